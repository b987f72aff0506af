"""Handles of processes: pidfds, or their numbers where the kernel has none.

Those before Linux 5.3 do not, nor do some sandboxes: containers on RHEL 8, gVisor of some years, strict filters.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import cache
from types import TracebackType

#: flag of `pidfd_send_signal`: signal the group that the process leads; since Linux 6.9
_PROCESS_GROUP = 1 << 2


@cache
def are_there() -> bool:
    """Whether this kernel has pidfds, and lets this process use them."""
    try:
        descriptor = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(descriptor, 0)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


class Handle:
    """A process by a pidfd, so that no stranger is taken for it that was given the same number; else by its number.

    Use as a context manager, and inspect the process within it. Raises ProcessLookupError if there is none.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._pidfd = os.pidfd_open(pid) if are_there() else None
        if self._pidfd is None:
            with suppress(PermissionError):
                os.kill(pid, 0)

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)

    def signal(self, signum: int) -> None:
        """Raises ProcessLookupError, PermissionError."""
        if self._pidfd is None:
            os.kill(self._pid, signum)
        else:
            signal.pidfd_send_signal(self._pidfd, signum)

    def signal_group(self, signum: int) -> None:
        """Signal the group that it leads. Raises ProcessLookupError if it leads none, PermissionError."""
        if self._pidfd is not None:
            try:
                signal.pidfd_send_signal(self._pidfd, signum, None, _PROCESS_GROUP)
            except (ProcessLookupError, PermissionError):
                raise
            except OSError:  # this kernel does not know the flag
                pass
            else:
                return
        os.killpg(self._pid, signum)


def exit_of(child: int) -> int:
    """A descriptor that becomes readable when a child of this process exits; the caller closes it.

    The child must not be reaped before that, or its number may be another's.
    """
    if are_there():
        return os.pidfd_open(child)
    import threading

    readable, held = os.pipe()

    def wait() -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        os.close(held)

    threading.Thread(target=wait, daemon=True).start()
    return readable
