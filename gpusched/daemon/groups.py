"""Process groups: killing one, and waiting until nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import anyio

#: how long to wait for a process group that was sent SIGKILL
KILL_GRACE_S = 5.0


def kill_group(group: int) -> None:
    """Kill a group that the launcher can no longer kill. Its number was in use a moment ago, and cannot be new yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


async def group_gone(group: int) -> None:
    """Until nothing of a killed group is left but zombies for init to reap, or `KILL_GRACE_S` have passed."""
    delay_s = 0.001
    with anyio.move_on_after(KILL_GRACE_S):
        while True:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-group, os.WNOHANG)  # noqa: ASYNC222 - if we are init, or a subreaper, they are ours now
            if not _has_living_member(group):
                return
            await anyio.sleep(delay_s)
            delay_s = min(2 * delay_s, 0.1)


def _has_living_member(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (command) state ppid pgrp …, where the command may hold anything
            state, _, its_group = status.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False
