"""The process of a program: started below the window's process, followed to its end.

It is in the window's session and group: it gets SIGTERM and SIGKILL when the window does, and is killed with the group
when the window's process dies. After SIGTERM that waits for it, so that it can use the time it is given. What it leaves
running when it ends is killed: the window's process adopts the orphans of its program.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType

import msgspec

from gpusched.handles import exit_of
from gpusched.worker import linux

#: the descriptor on which a program reports its result, named to it by `RESULT_VARIABLE`
RESULT = 3
RESULT_VARIABLE = "GPUSCHED_RESULT_FD"
#: a longer report is refused
MAX_RESULT_BYTES = 1 << 20

_READ_BYTES = 64 * 1024
#: Python ignores them, and a program would inherit that
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a program, with exactly one of `exit_code` and `signal`; neither if it was not started."""

    exit_code: int | None
    signal: int | None
    #: what it wrote to its result descriptor, cut after `MAX_RESULT_BYTES` + 1
    report: bytes
    #: it was told to stop meanwhile
    stopped: bool
    #: why it could not be started; empty if it was
    not_started: str = ""


class _Stop:
    """Whether SIGTERM has arrived."""

    asked = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.asked = True


def run(argv: list[str], directory: str) -> Ended:
    """Run a program in `directory` to its end.

    Only for a window's own process: it changes its directory, becomes the parent of all orphans, and handles SIGTERM
    from now on.
    """
    linux.adopt_orphans()
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop)
    report, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        os.chdir(directory)
        # Not a fork: that would copy the page tables of this process, and take longer than the start of the program.
        pid = os.posix_spawn(
            argv[0],
            argv,
            os.environ | {RESULT_VARIABLE: str(RESULT)},
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs, RESULT)],
            setsigmask=[],
            setsigdef=[signal.SIGTERM, *_IGNORED],
        )
    except OSError as error:
        os.close(report)
        why = f"{error.filename or argv[0]}: {error.strerror}"
        return Ended(exit_code=None, signal=None, report=b"", stopped=stop.asked, not_started=why)
    finally:
        os.close(theirs)
    text = bytearray()
    try:
        _follow(pid, report, text)
        code = os.waitstatus_to_exitcode(end_children(pid))
        while _read(report, text):  # what was written before the end
            pass
    finally:
        os.close(report)
    return Ended(
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        report=bytes(text),
        stopped=stop.asked,
    )


def _follow(pid: int, report: int, text: bytearray) -> None:
    """Read the report of a program until the program has ended."""
    ended = exit_of(pid)
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(report, select.POLLIN)
        os.set_blocking(report, False)
        ready: set[int] = set()
        while ended not in ready:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if report in ready and not _read(report, text):
                poll.unregister(report)
    finally:
        os.close(ended)


def _read(report: int, text: bytearray) -> bool:
    """Read a piece; False if there is none now, or no more."""
    try:
        piece = os.read(report, _READ_BYTES)
    except BlockingIOError:
        return False
    text += piece[: MAX_RESULT_BYTES + 1 - len(text)]
    return bool(piece)


def end_children(program: int = 0) -> int:
    """Kill what a program has left behind, and reap it and the program itself; return the program's status."""
    status = 0
    while children := linux.children():
        for child in children:
            if child != program:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored: there is nothing to reap
            ended, its_status = os.waitpid(-1, 0)
            if ended == program:
                status = its_status
    return status
