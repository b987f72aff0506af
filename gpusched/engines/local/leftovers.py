"""What is left of windows whose launcher has died: found by a mark in their environment, and ended.

Every launcher process is executed with a mark of its own in its environment, which all that descends from it inherits:
its windows, what they start, and what leaves their sessions. A launcher that lives takes care of all that. When it has
been killed, or the daemon was and the launcher with it, those that have left their window's group would run on, beside
the next attempt.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

import anyio
import anyio.to_thread

from gpusched.engines.condition import Condition
from gpusched.engines.local import groups, proc

#: between looks at what does not die
WATCH_S = 1.0

VARIABLE = "GPUSCHED_LAUNCHER"


def find(mark: str) -> list[int]:
    """The living processes that carry `mark`, or one that begins with it and a slash; not this one."""
    return [pid for pid, _ in proc.living() if pid != os.getpid() and _carries(pid, mark)]


async def end(mark: str, within_s: float) -> tuple[list[int], list[int]]:
    """Kill what carries the mark, and wait until it is gone: all that was found, and what of it does not die.

    Whoever hangs in the kernel may have the look at it hang: that is waited for no longer than as long again.
    """
    with anyio.move_on_after(2 * within_s):
        found, left = await anyio.to_thread.run_sync(_end, mark, within_s, abandon_on_cancel=True)
        return sorted(found), sorted(left)
    return [], []


async def end_earlier(mark: str) -> tuple[list[int], list[int]]:
    """End what an earlier supervisor of the same store has left; as `end`."""
    return await end(mark, groups.KILL_GRACE_S)


async def watch(pid: int, condition: Condition) -> None:
    """Have it told that a killed process does not die, until it does."""
    while proc.lives(pid):
        condition.tell(
            "leftover", str(pid), f"the process {pid} of an earlier launcher does not die ({proc.doing(pid)})"
        )
        await anyio.sleep(WATCH_S)
    condition.clear("leftover", str(pid))


def _end(mark: str, within_s: float) -> tuple[set[int], set[int]]:
    deadline = time.monotonic() + within_s
    found: set[int] = set()
    delay_s = 0.001
    while left := set(find(mark)):
        if time.monotonic() >= deadline and left <= found:  # all were killed, and had their time
            break
        found |= left
        for pid in left:
            _kill(pid, mark)
        time.sleep(delay_s)
        delay_s = min(2 * delay_s, 0.1)
    return found, left


def _kill(pid: int, mark: str) -> None:
    """The descriptor is opened first, so that what is looked at is what is killed."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if _carries(pid, mark):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _carries(pid: int, mark: str) -> bool:
    exact = f"{VARIABLE}={mark}".encode()
    return any(entry == exact or entry.startswith(exact + b"/") for entry in proc.environment(pid))
