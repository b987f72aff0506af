"""Process groups: signal one, and wait until none of its processes is left."""

from __future__ import annotations

import contextlib
import os
import signal

import anyio

from gpusched.engines.local import proc
from gpusched.handles import Handle

#: seconds to wait for a process group that was sent SIGKILL, before it counts as stuck
KILL_GRACE_S = 5.0


def signal_group(leader: int, parent: int, signum: int) -> None:
    """Signal the group that a child of `parent` leads, or the child alone if it leads none; nothing if it is reaped.

    This works even if `parent` hangs. The process is held before it is inspected and then signalled, so that the signal
    cannot reach a stranger that was given the same number.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError), Handle(leader) as held:
        seen = proc.look(leader)
        if seen is None or seen.parent != parent:
            return
        try:
            held.signal_group(signum)
        except ProcessLookupError:
            held.signal(signum)  # a window that has not called setsid yet, or a stray


def kill_group(group: int) -> None:
    """Kill a group that the launcher can no longer kill. Its number was in use a moment ago: it is not reused yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def is_left(group: int) -> bool:
    """Whether a group still has processes, other than zombies for init to reap."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-group, os.WNOHANG)  # if we are init, or a subreaper, orphans become our children
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return bool(proc.members(group))


async def group_gone(group: int, within_s: float) -> bool:
    """Wait until a killed group has no processes left; return whether that happened within `within_s` seconds."""
    delay_s = 0.001
    with anyio.move_on_after(within_s):
        while is_left(group):
            await anyio.sleep(delay_s)
            delay_s = min(2 * delay_s, 0.1)
        return True
    return False
