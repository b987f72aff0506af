"""Starting launcher processes; the first one of a run before the supervisor is even imported.

The supervisor's imports take a quarter of a second, and a launcher's as long again. So `gpusched run` starts a launcher
of the built-in workload as its very first step, from `gpusched.__main__`, and both import at the same time; therefore
this module imports nothing slow. Nothing is known of the run yet, which may be refused: the launcher writes to a file
in memory, and has no mark. The supervisor's `Launcher` claims it, and sends it its log and its mark, or dismisses it.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from typing import NamedTuple

from gpusched import programs
from gpusched.programs import Program
from gpusched.worker.mark import MARK
from gpusched.worker.threads import capped

#: room for a mark in the environment of a launcher that has none yet
_MARK_CHARS = 200
#: environment of a launcher process: no thread pools, since a fork would copy their locks but not their threads
_SINGLE_THREADED = {
    **capped(1),
    # where pyarrow is installed, pandas imports it, and its allocator would start a thread
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


class Started(NamedTuple):
    """A launcher process, and our end of the socket to it."""

    program: Program
    socket: socket.socket


class Early(NamedTuple):
    """A launcher process that nobody has claimed yet."""

    started: Started
    #: the module whose windows it will fork
    module: str
    #: descriptor of the file in memory that it writes to
    log: int


_waiting: list[Early] = []


def start(log: int, environment: Mapping[str, str], mark: str, *more: str) -> Started:
    """Start a launcher process that writes to the descriptor `log`. `more`: its further arguments. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        program = programs.start(
            [sys.executable, "-P", "-m", "gpusched.worker.launcher", str(theirs.fileno()), str(os.getpid()), *more],
            stdout=log,
            stderr=log,
            environment={**environment, **_SINGLE_THREADED, MARK: mark},
            kept_open=(theirs.fileno(),),
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Started(program, ours)


def start_early(workload: str) -> None:
    """Start a launcher process that imports the modules for surveys of `workload`. A failure says nothing yet."""
    try:
        log = os.memfd_create("gpusched-launcher", os.MFD_CLOEXEC)
        if log <= 2:  # a standard stream is closed, and nothing may take its number
            os.close(log)
            return
        started = start(log, os.environ, "-" * _MARK_CHARS, os.getcwd(), workload)  # noqa: PTH109  # pathlib is slow
    except OSError:
        return
    _waiting.append(Early(started, workload.rpartition(":")[0], log))


def claim(module: str) -> Early | None:
    """The launcher process that was started early for this module; None if there is none. Any other is dismissed."""
    if _waiting and _waiting[0].module == module:
        return _waiting.pop()
    dismiss()
    return None


def dismiss() -> None:
    """End a launcher process that nobody has claimed."""
    while _waiting:
        unclaimed = _waiting.pop()
        unclaimed.started.program.kill()
        unclaimed.started.program.wait()
        unclaimed.started.socket.close()
        os.close(unclaimed.log)
