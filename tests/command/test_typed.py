"""Commands as they are typed, and as a daemon takes them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest

from gpusched.command import WORKLOAD
from gpusched.errors import InputError
from tests.cli.conftest import shell
from tests.cli.shells import Shell
from tests.server.support import Daemon, finished

__all__ = ["shell"]

DATES = ("--start", "2022-01-01", "--end", "2022-12-31")


@pytest.mark.parametrize(
    ("typed", "code", "says"),
    [
        (("--command", "./train.sh {simbol}"), 4, "--command: command.line: there is no placeholder {simbol}; did you"),
        (("--command", "./train.sh '{symbol}"), 4, "cannot be split into words: No closing quotation"),
        (("--command", ""), 4, "there is no command: give it with --command, or behind `--`"),
        (("--", "./tarin.sh", "{symbol}"), 4, "there is no program './tarin.sh'"),
        (
            ("--command", "./train.sh", "--", "./train.sh"),
            2,
            "give the command with --command or behind `--`, not",
        ),
        (("--horizon", "5", "--", "./train.sh"), 4, "a command does not see it: write it into the command"),
        (("--set", "command.preload=['os']"), 4, "it is a setting of commands: give one with --command"),
        (("--", "./train.sh", "{data_root}"), 4, "{data_root} has no value: give --data-root"),
        (("--data-root", "none", "--", "./train.sh"), 4, "the data root"),
        (("--set", "command.exit_codes={skip=[0]}", "--", "./train.sh"), 4, "exit code 0 cannot mean both success and"),
        (("--set", "command.preload=['os']", "--", "./train.sh"), 4, "train.sh is not Python"),
    ],
)
def test_what_is_typed_wrong_is_refused(shell: Shell, typed: tuple[str, ...], code: int, says: str) -> None:
    shell.file("train.sh", "#!/bin/sh\n")
    (shell.directory / "train.sh").chmod(0o755)
    assert says in shell.refused("plan", "symbols.txt", *DATES, *typed, code=code)


def test_only_what_makes_a_batch_takes_a_command(shell: Shell) -> None:
    assert "there is nothing to run behind `--`: 'true'" in shell.refused("status", "--", "true", code=2)


def test_settings_of_a_file_are_those_of_the_option(shell: Shell) -> None:
    shell.file("train.py", "")
    shell.file("config.toml", '[command]\nline = ["python3", "train.py", "{symbol}"]\nexit_codes = { skip = [9] }\n')
    ended = shell("plan", "symbols.txt", *DATES, "--set", f"run.workload={WORKLOAD}", "--json")
    assert ended.code == 0, ended
    assert "Exit code 2" not in ended.err
    assert "No --data-root is given: results are reused without regard to the data that train.py reads" in ended.err
    ended = shell("plan", "symbols.txt", *DATES, "--json", "--", "python3", "train.py")
    assert "train.py is not told {output_dir}" in ended.err


def test_a_daemon_runs_commands_and_refuses_what_it_cannot_run(tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text('#!/bin/sh\necho "$2" > "$1/pwd"; pwd >> "$1/pwd"\n')
    script.chmod(0o755)
    settings = {"argv": [str(script), "{output_dir}", "{symbol}"], "directory": str(tmp_path)}
    with Daemon(tmp_path / "daemon") as daemon, daemon.connect() as client:
        spec = msgspec.structs.replace(daemon.spec("A"), workload=WORKLOAD, settings=settings, data_root="")
        submitted = client.submit(spec, source="symbols", name="mine")
        assert (submitted.batch.id, submitted.how) == ("mine", "new")
        (found,) = Path(finished(daemon, "mine").output_dir).glob("A_*/pwd")
        assert found.read_text() == f"A\n{tmp_path}\n"
        for wrong, why in (
            ({"argv": ["train.sh"], "directory": "/"}, "the program and the directory are absolute paths"),
            ({"argv": [str(script), "{nothing}"], "directory": "/"}, "there is no placeholder {nothing}"),
            ({"argv": [f"{tmp_path}/none"], "directory": "/"}, "the daemon cannot use .*/none: No such file"),
        ):
            with pytest.raises(InputError, match=why):
                client.submit(msgspec.structs.replace(spec, settings=wrong), source="symbols", name="other")


def test_a_daemon_may_run_no_commands(tmp_path: Path) -> None:
    from gpusched.service.territory import Territory, WorkloadRefused

    with pytest.raises(WorkloadRefused, match=WORKLOAD):
        Territory(output_root=tmp_path, workloads=("gpusched.teacher:train_window",)).workload(None, WORKLOAD)


@pytest.mark.parametrize("word", [">", "2>&1", "|", "&&", "$HOME/x", "~/x"])
def test_a_word_for_a_shell_is_told_of(shell: Shell, word: str) -> None:
    shell.file("train.py", "")
    ended = shell("plan", "symbols.txt", *DATES, "--command", f"python3 train.py {{output_dir}} {word} x")
    assert f"{word!r} is a word for train.py: a command has no shell, `sh -c '…'` is one" in ended.err
    assert "no shell" not in shell("plan", "symbols.txt", *DATES, "--", "python3", "train.py", word).err


def test_an_interpreter_is_found_by_the_path_of_the_client(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{shell.directory}/bin{os.pathsep}{os.environ['PATH']}")
    (shell.directory / "bin").mkdir()
    (shell.directory / "bin" / "mine").symlink_to(sys.executable)
    shell.file("train.py", "")
    assert shell("plan", "symbols.txt", *DATES, "--json", "--", "mine", "train.py", "{output_dir}").code == 0


def test_a_sweep_fills_in_parameters(shell: Shell) -> None:
    shell.file("train.py", "")
    words = ("--", "python3", "train.py", "{output_dir}", "--depth={param.depth}")
    ended = shell("plan", "symbols.txt", "--json", *DATES, "--param", "depth=3,5", *words)
    assert ended.code == 0, ended
    assert "_depth=3" in ended.out
    ended = shell("plan", "symbols.txt", *DATES, *words)
    assert ended.code == 4
    assert "{param.depth} has no value: give it with --param depth=" in ended.err
