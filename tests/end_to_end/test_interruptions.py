"""Whatever ends a run, the next one goes on where it stopped, and no process is left behind."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpusched.engines.local import leftovers, proc
from tests.end_to_end.support import Command, adopt_orphans, check_sound, hashes, index, wait_for_descendants
from tests.end_to_end.terminal import Terminal
from tests.end_to_end.test_run import WINDOWS
from tests.waiting import PATIENCE_S, until
from tests.worker.support import undying


@pytest.fixture(scope="module", autouse=True)
def _orphans() -> None:
    adopt_orphans()


@pytest.fixture
def fifo(gpusched: Command) -> Iterator[Path]:
    """Windows of the waiting workload take a byte each from it."""
    path = gpusched.directory / "data" / "fifo"
    os.mkfifo(path)
    keep_open = os.open(path, os.O_RDWR)
    yield path
    os.close(keep_open)


def finished_lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """A run's lines on finished windows, as it prints them."""
    assert process.stdout is not None
    return (line for line in process.stdout if line.startswith("["))


@pytest.mark.parametrize("kills", [(1, 9), pytest.param((2, 5, 12), marks=pytest.mark.thorough)])
def test_nothing_is_lost_or_trained_twice_when_a_run_is_killed(gpusched: Command, kills: tuple[int, ...]) -> None:
    gpusched("run", "symbols.txt", "-o", "undisturbed")
    for count in kills:
        process = gpusched.start("run", "symbols.txt", "-o", "out", "--workers", "2")
        for _, _ in zip(range(count), finished_lines(process), strict=False):
            pass
        process.kill()
        process.communicate()
        wait_for_descendants()
        # Each result is whole, or not there.
        for directory in (gpusched.directory / "out").glob("[A-Z]*"):
            assert (directory / "metadata.json").exists()
    done = {path.parent.name: path.stat().st_mtime_ns for path in (gpusched.directory / "out").glob("*/metadata.json")}
    assert len(done) >= max(kills)
    ended = gpusched.json("run", "symbols.txt", "-o", "out")
    assert ended["windows"]["succeeded"] + ended["windows"]["reused"] == WINDOWS
    assert ended["windows"]["reused"] == len(done)
    for label, mtime in done.items():
        assert (gpusched.directory / "out" / label / "metadata.json").stat().st_mtime_ns == mtime
    check_sound(gpusched.directory / "out", WINDOWS)
    assert hashes(gpusched.directory / "out") == hashes(gpusched.directory / "undisturbed")
    assert sorted(line["window_label"] for line in index(gpusched.directory / "out")) == sorted(
        path.name for path in (gpusched.directory / "out").glob("[A-Z]*")
    )


WAITING = ("run", "symbols.txt", "-o", "out", "--workers", "2", "--set", "run.workload=tests.server.workloads:window")


def test_one_interrupt_lets_the_running_windows_finish(gpusched: Command, fifo: Path) -> None:
    process = _start_waiting(gpusched, fifo)
    assert "no process" not in gpusched.said("status", "out")[1]
    process.send_signal(signal.SIGINT)
    _until(process, "Draining")
    fifo.write_bytes(b"..")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, (out, err)
    assert wait_for_descendants() == 0
    assert len(list((gpusched.directory / "out").glob("FIFO*/model.txt"))) == 3
    assert "no process is at work on it" in gpusched.said("status", "out")[1]
    fifo.write_bytes(b"." * 24)
    ended = gpusched.json(*WAITING)
    assert (ended["windows"]["reused"], ended["windows"]["succeeded"]) == (3, 3)
    assert "at work" not in gpusched.said("status", "out")[1]


@pytest.mark.thorough
def test_two_interrupts_stop_them(gpusched: Command, fifo: Path) -> None:
    _stop_by_two_interrupts(gpusched, fifo)
    assert len(list((gpusched.directory / "out").glob("FIFO*/model.txt"))) == 1
    fifo.write_bytes(b"." * 24)
    ended = gpusched.json(*WAITING)
    assert (ended["windows"]["reused"], ended["windows"]["succeeded"]) == (1, 5)


#: a parent that blocks all signals and lets the kernel reap its children, as some job schedulers leave them
UNKIND = (
    "import os, signal, sys\n"
    "signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())\n"
    "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def test_the_signals_that_a_parent_blocks_or_ignores_are_restored(gpusched: Command, fifo: Path) -> None:
    gpusched.prefix = (sys.executable, "-c", UNKIND)
    process = _start_waiting(gpusched, fifo)
    process.terminate()
    _until(process, "Draining")
    fifo.write_bytes(b"..")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, (out, err)
    assert wait_for_descendants() == 0


#: A kernel such as RHEL 8's, which has none of the system calls from `pidfd_send_signal` (Linux 5.1) on: neither pidfds
#: nor `close_range`, `clone3`, `openat2`. Their numbers are the same on every architecture.
OLD_KERNEL = """
import ctypes, os, sys

class Step(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]

class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.POINTER(Step))]

ENOSYS, FIRST = 38, 424
steps = (Step * 4)(
    Step(0x20, 0, 0, 0),  # the number
    Step(0x35, 0, 1, FIRST),  # at least the first of these
    Step(0x06, 0, 0, 0x50000 | ENOSYS),
    Step(0x06, 0, 0, 0x7FFF0000),  # allowed
)
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(Filter(4, steps)), 0, 0) == 0  # PR_SET_SECCOMP
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_kernel_without_pidfds_will_do(gpusched: Command, fifo: Path) -> None:
    gpusched.prefix = (sys.executable, "-c", OLD_KERNEL)
    command = ("--set", "run.workload=gpusched.command:run_command", "--set", "command.line=true")
    windows = gpusched.json("run", "symbols.txt", "-o", "own", *command)["windows"]
    assert windows["succeeded"] == windows["total"] > 0
    _stop_by_two_interrupts(gpusched, fifo)


def _start_waiting(gpusched: Command, fifo: Path) -> subprocess.Popen[str]:
    """A run of which one window has finished and two are waiting."""
    (gpusched.directory / "symbols.txt").write_text("FIFO\n")
    process = gpusched.start(*WAITING)
    fifo.write_bytes(b".")
    next(finished_lines(process))
    return process


def _stop_by_two_interrupts(gpusched: Command, fifo: Path) -> None:
    process = _start_waiting(gpusched, fifo)
    process.send_signal(signal.SIGINT)
    _until(process, "Draining")
    process.send_signal(signal.SIGINT)
    _until(process, "Stopping")
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert wait_for_descendants() == 0


def _until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return line
    pytest.fail(f"it ended without saying {word!r}")


@contextlib.contextmanager
def full(pid: int) -> Iterator[None]:
    """No file of this process may grow, as on a full disk."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_an_interrupted_run_whose_disk_is_full_says_what_it_waits_for(gpusched: Command, fifo: Path) -> None:
    process = _start_waiting(gpusched, fifo)
    with full(process.pid):
        fifo.write_bytes(b".")
        assert "nothing is launched until then" in _until(process, "state.db cannot")
        process.terminate()
        said = _until(process, "Draining")
        assert f"{gpusched.directory / 'out' / '.gpusched' / 'state.db'} cannot" in said
        assert "Make room there, or interrupt again (Ctrl-C, SIGTERM) to leave now" in said
        assert "the same command finds the results that are complete and runs the rest again" in said
    fifo.write_bytes(b".")
    _until(process, "Over: ")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, (out, err)
    assert len(list((gpusched.directory / "out").glob("FIFO*/model.txt"))) == 3


def test_a_disk_that_fills_up_while_a_run_drains_is_told_and_a_second_signal_leaves(
    gpusched: Command, fifo: Path
) -> None:
    process = _start_waiting(gpusched, fifo)
    process.terminate()
    _until(process, "Draining")
    with full(process.pid):
        fifo.write_bytes(b".")
        _until(process, "interrupt again (Ctrl-C, SIGTERM) to leave now")
        # It may be told of a record before that of the window's end, and this signal stops windows that still run.
        until(lambda: len(list((gpusched.directory / "out").glob("FIFO*/model.txt"))) == 2, patience_s=PATIENCE_S)
        process.terminate()
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, (out, err)
    wait_for_descendants()
    complete = {path: path.stat().st_mtime_ns for path in (gpusched.directory / "out").glob("FIFO*/model.txt")}
    assert len(complete) == 2
    fifo.write_bytes(b"." * 24)
    ended = gpusched.json(*WAITING)
    assert ended["windows"]["reused"] + ended["windows"]["succeeded"] == 6
    assert {path: path.stat().st_mtime_ns for path in complete} == complete


def test_the_wait_for_a_full_disk_is_told_above_the_live_view(gpusched: Command, fifo: Path) -> None:
    (gpusched.directory / "symbols.txt").write_text("FIFO\n")
    with Terminal(gpusched, *WAITING) as terminal:
        fifo.write_bytes(b".")
        terminal.until("1 succeeded")
        with full(terminal.process.pid):
            fifo.write_bytes(b".")
            terminal.until("cannot")
            terminal.process.terminate()
            terminal.until("SIGTERM) to leave now")
            terminal.process.terminate()
            assert terminal.end() == 130


def test_a_store_that_is_damaged_under_a_run_ends_it(gpusched: Command, fifo: Path) -> None:
    """Nothing else than that would ever be over: a commit is not tried again."""
    process = _start_waiting(gpusched, fifo)
    path = gpusched.directory / "out" / ".gpusched" / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as store:
        store.execute("DROP TABLE attempts")
    fifo.write_bytes(b".")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 4, (out, err)
    assert f"{path} is not a sound store: no such table: attempts\nhint: move it aside" in err
    wait_for_descendants()
    complete = list((gpusched.directory / "out").glob("FIFO*/model.txt"))
    assert complete
    path.rename(path.with_name("damaged"))
    fifo.write_bytes(b"." * 24)
    assert gpusched.json(*WAITING)["windows"]["reused"] == len(complete)


def test_three_interrupts_leave_whatever_hangs_and_the_next_run_ends_it(gpusched: Command, fifo: Path) -> None:
    process = _start_waiting(gpusched, fifo)
    lock = (gpusched.directory / "out" / ".gpusched" / "state.db.lock").stat()
    ours = leftovers.find(f"{lock.st_dev:x}-{lock.st_ino:x}")
    window = next(pid for pid in ours if (seen := proc.look(pid)) is not None and seen.parent in ours)
    with undying(window):
        for word in ("Draining", "Stopping", "Leaving"):
            process.send_signal(signal.SIGINT)
            _until(process, word)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, (out, err)
        assert f"Left behind: the process {window} of " in out + err
        assert "(state t in ptrace_stop)" in out + err
    wait_for_descendants()
    fifo.write_bytes(b"." * 24)
    assert gpusched.json(*WAITING)["windows"]["succeeded"] == 5
