"""What a run leaves can be looked at, and tried again, by its directory and without a daemon."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gpusched.store.store import Store
from tests.end_to_end.support import Command
from tests.powers import closed

LABEL = "_2022-01-01_to_2022-06-29"
DATES = ("--start", "2022-01-01", "--end", "2022-06-29")
TRAIN = """#!/bin/sh
echo "training $1"
[ -e "$1" ] || exit 3
echo '{"auc": 0.6}' > "$2/metrics.json"
"""


@pytest.fixture
def gpusched(tmp_path: Path) -> Command:
    """In a directory with a script that trains GOOD and fails for BAD; nobody answers for a daemon."""
    (tmp_path / "symbols.txt").write_text("GOOD\nBAD\n")
    (tmp_path / "train.sh").write_text(TRAIN)
    (tmp_path / "train.sh").chmod(0o755)
    (tmp_path / "GOOD").touch()
    command = Command(tmp_path)
    command.environment["XDG_RUNTIME_DIR"] = str(tmp_path / "none")
    return command


def run(gpusched: Command, *arguments: str) -> str:
    """Run both windows, of which one fails; return what is said."""
    words = ("--", "./train.sh", "{symbol}", "{output_dir}")
    return gpusched("run", "symbols.txt", *DATES, *arguments, *words, code=1)


@pytest.mark.parametrize("make", [os.mkfifo, pytest.param(os.mkdir, marks=pytest.mark.thorough)])
def test_another_entry_in_the_place_of_a_log(gpusched: Command, make: Callable[[Path], None]) -> None:
    run(gpusched, "-o", "out")
    (log,) = (gpusched.directory / "out" / ".gpusched" / "logs").glob("*/BAD*.log")
    log.unlink()
    make(log)
    _, said = gpusched.said("logs", f"out/BAD{LABEL}")
    assert said == f"out/BAD{LABEL} has written nothing to stdout or stderr\n"
    assert "exited with code 3" in gpusched("show", f"out/BAD{LABEL}")


def test_a_run_that_was_interrupted_before_its_plan(gpusched: Command) -> None:
    state_dir = gpusched.directory / "out" / ".gpusched"
    state_dir.mkdir(parents=True)
    Store.open(state_dir / "state.db").close()
    for command in ("retry", "status", "results"):
        for name in ("out", "./out"):
            _, said = gpusched.said(command, name, code=4)
            assert "out ended before its windows were planned\nhint: give the same `gpusched run` again\n" in said
    _, said = gpusched.said("retry", f"out/BAD{LABEL}", code=4)
    assert "ended before its windows were planned" in said


def test_a_name_that_no_directory_can_have(gpusched: Command) -> None:
    name = "d" * 300
    _, said = gpusched.said("status", f"./{name}", code=4)
    assert said.startswith(f"error: {name} cannot be looked at: File name too long\nhint: check the path")
    _, said = gpusched.said("status", name, code=3)
    assert f"error: {name} is no directory of a run, and no daemon answers" in said


def test_a_copy_of_a_run_is_a_run_of_its_own(gpusched: Command) -> None:
    run(gpusched, "-o", "out")
    out, copy = gpusched.directory / "out", gpusched.directory / "copy"
    shutil.copytree(out, copy, symlinks=True)
    before = (out / "teacher_runs.json").read_bytes()
    assert gpusched.json("status", "copy")["output_dir"] == str(copy)
    assert gpusched("status", "copy").splitlines()[1].endswith(f"\t{copy}")
    found = gpusched.json("results", "copy")["results"]
    assert [row["artifacts_path"] for row in found if row["status"] == "succeeded"] == [str(copy / f"GOOD{LABEL}")]
    assert f"Output   {copy / f'GOOD{LABEL}'}" in gpusched("show", f"copy/GOOD{LABEL}")
    (gpusched.directory / "BAD").touch()
    _, said = gpusched.said("retry", f"copy/BAD{LABEL}", code=2)
    assert f"error: copy was copied or moved: its records are of the run into {out}\n" in said
    assert gpusched.json("retry", "copy")["windows"] | {"total": 2} == gpusched.json("status", "copy")["windows"]
    assert (copy / f"BAD{LABEL}" / "metadata.json").exists()
    assert (out / "teacher_runs.json").read_bytes() == before
    assert not (out / f"BAD{LABEL}").exists()
    (copy / f"BAD{LABEL}" / "metadata.json").unlink()
    gpusched.said("retry", f"copy/BAD{LABEL}", code=2)  # it has not failed


def test_what_a_run_leaves(gpusched: Command) -> None:
    directory = gpusched.directory / "out"
    assert run(gpusched, "-o", "out").rstrip().splitlines()[-5:] == [
        f"Results  {directory}",
        "  gpusched results ./out",
        "  gpusched report ./out",
        "  gpusched windows ./out --status failed",
        "  gpusched retry ./out",
    ]
    for name in ("out", "./out", str(directory)):
        status = gpusched.json("status", name)
        assert (status["output_dir"], status["windows"]["failed"]) == (str(directory), 1)
    windows = gpusched.json("windows", "out", "--status", "failed")["windows"]
    assert [window["window_label"] for window in windows] == [f"BAD{LABEL}"]
    assert "permanent: train.sh exited with code 3: training BAD" in gpusched("show", f"out/BAD{LABEL}")
    assert gpusched("logs", f"./out/BAD{LABEL}") == "training BAD\n"
    assert gpusched("explain", f"out/GOOD{LABEL}") == "succeeded: finished after 1 attempt\n"
    results = gpusched.json("results", "out")["results"]
    assert [result["metrics"] for result in results if result["status"] == "succeeded"] == [{"auc": 0.6}]
    assert " 2/2 " in gpusched("top", "--once", "out")
    assert Path(gpusched("report", "out", "-o", "out.html").strip()).name == "out.html"


def test_a_run_is_tried_again(gpusched: Command) -> None:
    run(gpusched, "-o", "out")
    (gpusched.directory / "BAD").touch()
    said = gpusched.json("retry", "out")
    assert (said["windows"]["succeeded"], said["windows"]["reused"]) == (1, 1)
    lines = (gpusched.directory / "out" / "teacher_runs.json").read_text().splitlines()
    assert {json.loads(line)["status"] for line in lines} == {"success"}
    _, err = gpusched.said("retry", f"out/BAD{LABEL}", code=2)
    assert f"BAD{LABEL} has not failed: its status is succeeded\nhint: windows that failed, timed out, " in err


@pytest.mark.thorough
def test_one_window_of_a_run_is_tried_again(gpusched: Command) -> None:
    (gpusched.directory / "symbols.txt").write_text("GOOD\nBAD\nBAD2\n")
    run(gpusched, "-o", "out")
    (gpusched.directory / "BAD").touch()
    (gpusched.directory / "BAD2").touch()
    said = gpusched("retry", f"out/BAD{LABEL}", code=1)
    assert f"succeeded BAD{LABEL} " in said
    assert "Plan:" not in said
    counts = gpusched.json("status", "out")["windows"]
    assert (counts["succeeded"], counts["failed"]) == (2, 1), "the other failure stays as it was"
    lines = [json.loads(line) for line in (gpusched.directory / "out" / "teacher_runs.json").read_text().splitlines()]
    assert sorted((line["symbol"], line["outcome"]) for line in lines) == [
        ("BAD", "succeeded"), ("BAD2", "failed"), ("GOOD", "succeeded"),
    ]  # fmt: skip
    ended = gpusched.json("retry", f"out/BAD2{LABEL}")
    assert ended["windows"] == {
        "total": 3, "succeeded": 3, "reused": 0, "skipped": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    _, err = gpusched.said("retry", f"out/BAD{LABEL}", "--set", "run.timeout_s=5", code=2)
    assert "run.timeout_s is a limit of a whole run" in err
    _, err = gpusched.said("retry", "out/NONE", code=4)
    assert "NONE" in err


@pytest.mark.thorough
def test_a_batch_below_the_output_root_is_found_by_its_name(gpusched: Command) -> None:
    run(gpusched, "--name", "mine")
    assert gpusched.json("status", "mine")["output_dir"] == str(gpusched.directory / "gpusched-runs" / "mine")
    assert gpusched("logs", f"mine/GOOD{LABEL}") == "training GOOD\n"
    (gpusched.directory / "BAD").touch()
    assert f"succeeded BAD{LABEL} " in gpusched("retry", f"mine/BAD{LABEL}")
    assert gpusched.json("retry", "mine")["windows"]["reused"] == 2


def test_a_run_in_the_place_of_a_window_or_of_a_batch_of_the_daemon(gpusched: Command) -> None:
    """It was said that the directory above is none of a run, or that a daemon is to be started."""
    run(gpusched, "-o", "out of/mine")
    for command in ("show", "logs", "explain"):
        for name in ("out of/mine", "out of/mine/"):
            _, err = gpusched.said(command, name, code=2)
            assert "'out of/mine' does not name a window, but a run\n" in err
            assert "hint: give 'out of/mine'/LABEL; `gpusched windows 'out of/mine'` lists them\n" in err
    for words in ("cancel", "hold", "release", "forget", "wait", "priority"):
        _, err = gpusched.said(words, "out of/mine", *(["5"] if words == "priority" else []), code=2)
        assert f"error: {words} is for batches of the daemon, and 'out of/mine' is the directory of a run\n" in err
    _, err = gpusched.said("cancel", f"out of/mine/GOOD{LABEL}", code=2)
    assert "hint: Ctrl-C where it runs" in err
    _, err = gpusched.said("cancel", "out of/none", code=3)
    assert "no daemon answers" in err


def test_a_run_where_nothing_can_be_written(gpusched: Command) -> None:
    """As in an archive, or under a read-only mount in a container: nothing of it could be looked at."""
    run(gpusched, "-o", "out")
    records = gpusched.directory / "out" / ".gpusched"
    assert [path.name for path in records.glob("state.db*")] == ["state.db", "state.db.lock"]
    with closed(records, 0o500):
        assert gpusched.json("status", "out")["windows"]["succeeded"] == 1
        assert {line["symbol"] for line in gpusched.json("results", "out")["results"]} == {"BAD", "GOOD"}
        assert gpusched("logs", f"out/GOOD{LABEL}") == "training GOOD\n"
        assert "training GOOD" not in gpusched("show", f"out/GOOD{LABEL}")


@pytest.mark.parametrize("other", ["--csv", "--json"])
def test_results_have_one_form(gpusched: Command, other: str) -> None:
    """Nothing was printed, and nothing said."""
    _, err = gpusched.said("results", "out", "--parquet", "out.parquet", other, code=2)
    assert f"--parquet does not go with {other}" in err


def test_a_directory_of_runs_names_the_newest(gpusched: Command) -> None:
    run(gpusched, "-o", "all of/one")
    for name in ("all of", "./all of", "all of/"):
        _, err = gpusched.said("results", name, code=4)
        assert "is not the directory of a run, but a directory in it is\n" in err
    run(gpusched, "-o", "all of/other")
    os.utime(gpusched.directory / "all of" / "one", (0, 0))
    _, err = gpusched.said("status", "all of", code=4)
    assert "all of is not the directory of a run, but 2 directories in it are\n" in err
    assert "hint: name one of them: the newest is 'all of/other'\n" in err


def test_what_is_no_run_is_said(gpusched: Command) -> None:
    for command in ("report", "status", "results", "windows"):
        _, err = gpusched.said(command, "nosuchdir", code=3)
        assert "nosuchdir is no directory of a run, and no daemon answers at " in err
        _, err = gpusched.said(command, "./nosuchdir", code=4)
        assert "there is no directory" in err
    assert "does not name a window" in gpusched.said("show", "out", code=2)[1]
