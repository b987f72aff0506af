"""Disks that are full, terminals and readers that have gone, a working directory that was removed."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpusched.cli import run
from gpusched.cli.commands import settings
from gpusched.client.drawing.terminal import open_console
from tests.cli.shells import DATES, Shell
from tests.end_to_end.support import Command
from tests.waiting import PATIENCE_S


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_below_stdout_is_no_bug(gpusched: Command, unbuffered: str) -> None:
    """Unbuffered, a print fails; otherwise the last flush does, and the interpreter would try that once more."""
    done = to_full_disk(gpusched, "config", full="stdout", unbuffered=unbuffered)
    assert done.returncode == 4
    assert done.stderr.startswith("error: No space left on device\nhint: make room")
    assert "bug" not in done.stderr


@pytest.mark.parametrize(
    "typed",
    [("--help",), *(pytest.param(it, marks=pytest.mark.thorough) for it in (("run", "--help"), ("--version",)))],
)
def test_help_that_cannot_be_written_is_an_error(gpusched: Command, typed: tuple[str, ...]) -> None:
    done = to_full_disk(gpusched, *typed, full="stdout", unbuffered="")
    assert (done.returncode, done.stderr.splitlines()[0]) == (4, "error: No space left on device")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_below_stderr_keeps_the_exit_code(gpusched: Command, unbuffered: str) -> None:
    assert to_full_disk(gpusched, "rum", full="stderr", unbuffered=unbuffered).returncode == 2


@pytest.mark.parametrize("typed", [("status",), ("config",), ("plan", "symbols.txt")])
def test_a_working_directory_that_was_removed_is_told(shell: Shell, typed: tuple[str, ...]) -> None:
    gone = shell.directory / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert "the working directory of this shell was removed\nhint: go to another one" in shell.refused(*typed, code=4)


def test_a_working_directory_that_is_removed_amid_a_run_costs_nothing(shell: Shell) -> None:
    """The run was done, and its end was told as that of a command that could not begin."""
    gone, output = shell.directory / "gone", shell.directory / "output"
    gone.mkdir()
    os.chdir(gone)
    typed = ("--symbols", "A", "--data-root", str(shell.directory / "data"), "-o", str(output), "--device", "cpu")
    done = shell("run", *typed, "--start", "2022-01-01", "--end", "2022-01-31", "--command", f"rmdir {gone}")
    assert done.code == 0, done
    assert f"gpusched results {output}" in done.out


def test_a_full_disk_below_stderr_costs_no_plan(gpusched: Command) -> None:
    """Notes go to stderr, the answer to stdout."""
    done = to_full_disk(gpusched, "plan", "symbols.txt", *DATES, full="stderr", unbuffered="1")
    assert "2022-01-01_to_" in done.stdout


def test_a_reader_who_leaves_amid_a_screen_is_no_failure(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """rich would end the process with exit code 1."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(settings, "show", lambda _: open_console().print("a screen"))
        assert run(["config"]) == 0


def test_letters_that_a_stream_lacks_are_spelt_out(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors="strict"))
    assert run(["config", "--set", "run.output=é"]) == 0
    assert b"\\xe9" in written.getvalue()


def to_full_disk(gpusched: Command, *typed: str, full: str, unbuffered: str) -> subprocess.CompletedProcess[str]:
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Path("/dev/full").open("w") as streams[full]:
        return subprocess.run(
            [sys.executable, "-m", "gpusched", *typed],
            cwd=gpusched.directory,
            env={**gpusched.environment, "PYTHONUNBUFFERED": unbuffered},
            text=True,
            timeout=PATIENCE_S,
            **streams,
        )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("typed", [("config",), ("doctor", "--help")])
def test_a_terminal_that_has_hung_up_is_nobody_who_listens(
    gpusched: Command, typed: tuple[str, ...], unbuffered: str
) -> None:
    """Where SIGHUP is ignored (`nohup`, a session's leader that is gone) a write fails with EIO."""
    ours, theirs = os.openpty()
    os.close(ours)
    with os.fdopen(theirs, "w") as terminal:
        done = subprocess.run(
            [sys.executable, "-m", "gpusched", *typed],
            cwd=gpusched.directory,
            env={**gpusched.environment, "PYTHONUNBUFFERED": unbuffered},
            stdout=terminal,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_stdout_is_nobody_who_listens(gpusched: Command) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m gpusched config >&-"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=gpusched.directory,
        env=gpusched.environment,
        stderr=subprocess.PIPE,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_interrupted_before_it_has_begun(gpusched: Command) -> None:
    """By a signal that arrives while modules are imported: no traceback either."""
    program = (
        "import signal, sys; from gpusched import cli; import gpusched.cli as c;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a shell has jobs in the background ignore it
        "c.parse = lambda arguments: signal.raise_signal(signal.SIGINT); sys.exit(cli.run(['config']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=gpusched.environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr) == (130, "")
