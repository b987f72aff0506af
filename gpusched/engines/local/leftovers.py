"""Leftovers: descendants of a dead launcher, found by a mark in their environment and killed.

Every launcher process is started with a unique mark in its environment, which all its descendants inherit: its windows,
their children, and processes that have left the windows' sessions. A living launcher takes care of all of them. When it
has been killed, alone or with the daemon, processes that have left their window's group would otherwise run on, next to
the window's following attempt.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

import anyio
import anyio.to_thread

from gpusched.engines.condition import Condition
from gpusched.engines.local import proc
from gpusched.handles import Handle
from gpusched.worker.mark import MARK

#: seconds between looks at a process that does not die
WATCH_S = 1.0


def find(mark: str) -> list[int]:
    """The living processes whose mark is `mark` or begins with it and a slash, except this process."""
    return [pid for pid, _ in proc.living() if pid != os.getpid() and _carries(pid, mark)]


async def end(mark: str, within_s: float) -> tuple[list[int], list[int]]:
    """Kill the processes that carry the mark and wait until they are gone; return the pids of all, and of survivors.

    Reading the environment of a process that hangs in the kernel may hang, too: after twice `within_s` this gives up,
    and processes that were killed and still live are the survivors.
    """
    killed: set[int] = set()
    with anyio.move_on_after(2 * within_s):
        await anyio.to_thread.run_sync(_end, mark, within_s, killed, abandon_on_cancel=True)
    return sorted(killed), sorted(filter(proc.lives, killed))


async def watch(pid: int, condition: Condition) -> None:
    """Report that a killed process does not die, until it does."""
    while proc.lives(pid):
        condition.tell(
            "leftover", str(pid), f"the process {pid} of an earlier launcher does not die ({proc.doing(pid)})"
        )
        await anyio.sleep(WATCH_S)
    condition.clear("leftover", str(pid))


def _end(mark: str, within_s: float, killed: set[int]) -> None:
    """Kill until nothing that carries the mark lives, or `within_s` is over; add the pids to `killed` before that."""
    deadline = time.monotonic() + within_s
    delay_s = 0.001
    # One that dies has lost its environment, and with it the mark, a moment before it is gone.
    while left := {*find(mark), *filter(proc.lives, killed)}:
        if time.monotonic() >= deadline and left <= killed:  # all of them were killed, and had time to die
            break
        killed |= left
        for pid in left:
            _kill(pid, mark)
        time.sleep(delay_s)
        delay_s = min(2 * delay_s, 0.1)


def _kill(pid: int, mark: str) -> None:
    """Kill a process if it carries the mark. It is held before the check, so that no stranger is killed."""
    with contextlib.suppress(OSError), Handle(pid) as held:
        if _carries(pid, mark):
            held.signal(signal.SIGKILL)


def _carries(pid: int, mark: str) -> bool:
    exact = f"{MARK}={mark}".encode()
    return any(entry == exact or entry.startswith(exact + b"/") for entry in proc.environment(pid))
