"""Process groups: signalling one, and waiting until nothing of it is left."""

from __future__ import annotations

import contextlib
import errno
import os
import signal

import anyio

from gpusched.engines.local import proc

#: how long to wait for a process group that was sent SIGKILL
KILL_GRACE_S = 5.0

#: `pidfd_send_signal`: to the group that the process leads; since Linux 6.9
_PROCESS_GROUP = 1 << 2


def signal_group(leader: int, parent: int, signum: int) -> None:
    """Signal the group that a child of `parent` leads. Nothing happens if that has been reaped.

    Needs nobody's help: `parent` may hang. A descriptor holds the process while it is looked at, so that the signal
    cannot reach a stranger that was given the same number.
    """
    try:
        descriptor = os.pidfd_open(leader)
    except ProcessLookupError:
        return
    try:
        seen = proc.look(leader)
        if seen is not None and seen.parent == parent:
            _send(descriptor, leader, signum)
    finally:
        os.close(descriptor)


def _send(descriptor: int, leader: int, signum: int) -> None:
    try:
        try:
            signal.pidfd_send_signal(descriptor, signum, None, _PROCESS_GROUP)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            os.killpg(leader, signum)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(descriptor, signum)  # it has not called setsid yet
    except PermissionError:
        pass  # it runs as somebody else by now, and will be seen not to die


def kill_group(group: int) -> None:
    """Kill a group that the launcher can no longer kill. Its number was in use a moment ago, and cannot be new yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def is_left(group: int) -> bool:
    """Whether anything of a group is left but zombies for init to reap."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-group, os.WNOHANG)  # if we are init, or a subreaper, they are ours now
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return bool(proc.members(group))


async def group_gone(group: int, within_s: float) -> bool:
    """Wait until nothing of a killed group is left; whether that came to pass in time."""
    delay_s = 0.001
    with anyio.move_on_after(within_s):
        while is_left(group):
            await anyio.sleep(delay_s)
            delay_s = min(2 * delay_s, 0.1)
        return True
    return False
