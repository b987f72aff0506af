"""Files that a user may not read or write are told of in a sentence, however a command comes upon them."""

from __future__ import annotations

import errno
import os
import pwd
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpusched import cli, load_results
from gpusched.cli.commands import settings
from gpusched.cli.cuda_build.workshop import interrupted
from gpusched.client.drawing import terminal
from gpusched.results import NoResults
from tests.end_to_end.support import Command
from tests.powers import closed

ASKED = ("--data-root", "data", "--start", "2022-01-01", "--end", "2022-06-29")
RECORDS = "the records of the run in private/run cannot be read: Permission denied"


@pytest.fixture
def gpusched(tmp_path: Path) -> Iterator[Command]:
    """In a directory with one, `private`, that this user may not enter; nobody answers for a daemon."""
    (tmp_path / "symbols.txt").write_text("A\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "private").mkdir()
    command = Command(tmp_path)
    command.environment["XDG_RUNTIME_DIR"] = str(tmp_path / "none")
    with closed(tmp_path / "private"):
        yield command


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        *((words, RECORDS) for words in (
            "status private/run", "windows private/run", "results private/run", "report private/run",
            "show private/run/L", "logs private/run/L", "retry private/run", "compare private/run private/run",
        )),
        ("run symbols.txt -o private/out", "cannot write to the output directory {here}/private/out: Permission"),
        ("run symbols.txt --reuse-from private", "--reuse-from {here}/private: Permission denied"),
        ("run symbols.txt --reuse-from private/run", "--reuse-from {here}/private/run: Permission denied"),
        ("run symbols.txt --command private/program", "{here}/private/program cannot be executed: Permission denied"),
        ("run symbols.txt --command 'sh private/script'", "{here}/private/script cannot be executed: Permission"),
        ("run symbols.txt --workload ./private/w.py:train", "no workload in {here}/private/w.py: Permission denied"),
        ("run private/symbols.txt", "{here}/private/symbols.txt: the symbols file cannot be read: Permission denied"),
        ("run symbols.txt --data-root private/data", "the data root {here}/private/data cannot be read: Permission"),
    ],
)  # fmt: skip
def test_a_place_of_somebody_else(gpusched: Command, words: str, sentence: str) -> None:
    """Each was an internal error."""
    command, *others = shlex.split(words)
    asked = ASKED if command == "run" and "--data-root" not in words else ASKED[2:] if command == "run" else ()
    _, said = gpusched.said(command, *others, *asked, code=4)
    assert sentence.format(here=gpusched.directory) in said
    assert "\nhint: " in said


def test_an_output_directory_that_is_a_file(gpusched: Command) -> None:
    """The sentence was about the records that would have been within it."""
    (gpusched.directory / "out").touch()
    _, said = gpusched.said("run", "symbols.txt", *ASKED, "-o", "out", code=4)
    assert f"cannot write to the output directory {gpusched.directory / 'out'}: it is not a directory" in said


def test_logs_that_may_not_be_written(gpusched: Command) -> None:
    """It was an internal error, an ExceptionGroup."""
    logs = gpusched.directory / "out" / ".gpusched" / "logs"
    logs.mkdir(parents=True)
    with closed(logs):
        _, said = gpusched.said("run", "symbols.txt", *ASKED, "-o", "out", code=4)
    assert f"error: {logs}/" in said
    assert "Permission denied\nhint: name a place that this user may use" in said


def test_a_home_of_somebody_else_has_no_configuration(gpusched: Command) -> None:
    """As under `sudo -u` and in a container: no command worked at all."""
    for name in ("HOME", "XDG_CONFIG_HOME"):
        gpusched.environment[name] = str(gpusched.directory / "private")
    assert "run.max_attempts" in gpusched("config")


def test_a_user_without_a_home(gpusched: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as any number: it has neither HOME nor an entry."""

    def nobody(_: object) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        gpusched.environment.pop(name, None)
    said = gpusched("config")
    assert "cache.dir\t/.cache/gpusched\tdefault" in said
    assert "daemon.state_dir\t/.local/state/gpusched\tdefault" in said


@pytest.mark.parametrize("words", ["plan symbols.txt", "bench symbols.txt", "run symbols.txt --top"])
def test_where_nothing_temporary_can_be_written(
    words: str, gpusched: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each was an internal error; `run --top` while its windows trained."""

    def fail() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/srv']")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    monkeypatch.setattr(terminal, "takes_keys", lambda _: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(gpusched.directory / "private" / "cache"))
    monkeypatch.chdir(gpusched.directory)
    assert cli.run([*words.split(), *ASKED]) == 4
    said = capsys.readouterr().err
    assert "no temporary file can be written: No usable temporary directory found in ['/tmp', '/srv']\n" in said
    assert "hint: set TMPDIR to a directory that you may write" in said


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_place_that_nobody_has_thought_of(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise OSError(number, os.strerror(number), "/srv/theirs")

    monkeypatch.setattr(settings, "show", fail)
    assert cli.run(["config"]) == 4
    assert (
        f"error: /srv/theirs: {os.strerror(number)}\nhint: name a place that this user may" in capsys.readouterr().err
    )


def test_results_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    with closed(tmp_path / "private") as private:
        for place in (private, private / "run"):
            with pytest.raises(NoResults, match="Permission denied"):
                load_results(place)
        with pytest.raises(
            NoResults, match=re.escape(f"teacher_runs.json that may be read: {private}: Permission denied")
        ):
            load_results(tmp_path)
        assert interrupted(private) is None, "the doctor has other things to tell"
