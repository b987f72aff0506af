"""Shell completion: the words offered, and bash's use of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.support import Command
from tests.server.support import Daemon, finished
from tests.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("completion")) as running:
        with running.connect() as link:
            for name in ("first", "second"):
                link.submit(running.spec("S0", "S1"), source="symbols", name=name)
        finished(running, "first")
        yield running


#: `gpusched` with patience for a daemon on a busy machine
PATIENT = """
from gpusched import __main__
from gpusched.cli import completion
completion.PATIENCE_S = 120.0
__main__.main()
"""


def words(line: str, directory: Path, socket: str = "") -> list[str]:
    """The words offered at the end of `line`."""
    answer = directory / "answer"
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "GPUSCHED_SOCKET": socket or str(directory / "nobody"),
    }
    done = subprocess.run(
        [sys.executable, "-c", PATIENT],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("", "")
    return [word.strip() for word in answer.read_text().split("\n")]


def test_commands_options_and_their_choices(tmp_path: Path) -> None:
    assert words("gpusched re", tmp_path) == ["results", "report", "release", "retry", "resume"]
    assert words("gpusched run --worke", tmp_path) == ["--workers"]
    assert words("gpusched run --device c", tmp_path) == ["cpu", "cuda"]
    assert "devices.slots=" in words("gpusched run --set devices.", tmp_path)
    assert words("gpusched plan --set lightgbm.num_l", tmp_path) == ["lightgbm.num_leaves="]
    assert words("gpusched plan --set lightgbm.output_m", tmp_path) == [""], "it cannot be set"
    assert words("gpusched plan --param labels.", tmp_path) == ["labels.horizon=", "labels.threshold="]
    assert words("gpusched plan --param lightgbm.num_l", tmp_path) == ["lightgbm.num_leaves="]
    assert words("gpusched completion z", tmp_path) == ["zsh"]


def test_batches_windows_and_devices_of_the_daemon(daemon: Daemon, tmp_path: Path) -> None:
    socket = str(daemon.socket)
    assert words("gpusched status f", tmp_path, socket) == ["first"]
    for command in ("cancel", "wait", "forget"):
        assert sorted(words(f"gpusched {command} ", tmp_path, socket)) == ["first", "second"]
    labels = words("gpusched show first/S0", tmp_path, socket)
    assert labels
    assert all(label.startswith("first/S0_2022-") for label in labels)
    assert words("gpusched drain c", tmp_path, socket) == ["cpu"]


def test_the_columns_that_results_have(daemon: Daemon, tmp_path: Path) -> None:
    socket = str(daemon.socket)
    assert words("gpusched results first --sort a", tmp_path, socket) == ["attempts", "artifacts_path", "auc"]
    assert words("gpusched results first --by-symbol --sort w", tmp_path, socket) == [
        "windows", "worst", "worst_window",
    ]  # fmt: skip
    assert words("gpusched results first --by-symbol --metric ", tmp_path, socket)[:1] == ["auc"]
    assert words("gpusched report first --metric a", tmp_path, socket) == ["auc"]


def test_runs_and_their_windows(gpusched: Command, tmp_path: Path) -> None:
    """Without a daemon nothing was offered, not even files; `wait` and `forget` never had a batch."""
    gpusched("run", "--symbols", "ABC", "--start", "2022-01-01", "--end", "2022-12-31", "-o", "runs/mine")
    (tmp_path / "other" / "below").mkdir(parents=True)
    for name in (b"not UTF-8 \xff", b"two\nlines"):  # these cannot be offered, and hide no other
        shutil.copytree(tmp_path / "runs", tmp_path / os.fsdecode(name))
    for command in ("results", "compare", "retry", "show"):
        assert words(f"gpusched {command} ", tmp_path) == ["runs/"]
    assert words("gpusched status runs/m", tmp_path) == ["runs/mine"]
    assert words("gpusched status ./runs/", tmp_path) == ["./runs/mine"]
    assert words("gpusched logs runs/m", tmp_path) == ["runs/mine/"]
    labels = words("gpusched show runs/mine/A", tmp_path)
    assert len(labels) == 2
    assert labels == words("gpusched retry runs/mine/A", tmp_path)
    assert all(label.startswith("runs/mine/ABC_2022-") for label in labels)
    assert words("gpusched cancel runs/m", tmp_path) == [""]
    assert words("gpusched results runs/mine --sort validation_a", tmp_path) == [
        "validation_accuracy",
        "validation_auc",
    ]
    assert "validation_auc" in words("gpusched results runs/mine --best val", tmp_path)
    assert words("gpusched results runs/mine --by sym", tmp_path) == ["symbol"]


def test_no_daemon_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    assert words("gpusched status f", tmp_path) == [""]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_understands(shell: str, tmp_path: Path) -> None:
    script = subprocess.run(
        [sys.executable, "-m", "gpusched", "completion", shell],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    ).stdout
    assert "gpusched" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script was not run")
    (tmp_path / "script").write_text(script)
    subprocess.run([shell, "-n", tmp_path / "script"], timeout=PATIENCE_S, check=True)


def test_bash_completes_a_window(daemon: Daemon, tmp_path: Path) -> None:
    """As with the key: bash's own words, by the script's own function."""
    line = "gpusched show first/S1_2022-01-01"
    bash = f"""
        eval "$(gpusched completion bash)"
        COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({line}) COMP_CWORD=2 COMP_TYPE=9
        _python_argcomplete gpusched first/S1_2022-01-01 show
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    program = tmp_path / "gpusched"
    program.write_text(f"#!{sys.executable}\n{PATIENT}")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", bash],
        env=os.environ | {"PATH": path, "GPUSCHED_SOCKET": str(daemon.socket)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout.strip() == "first/S1_2022-01-01_to_2022-01-10"
