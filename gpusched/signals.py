"""What a parent can leave behind in the signals of a process that it starts."""

from __future__ import annotations

import signal


def restore() -> None:
    """Let all signals in, and ends of children be told.

    Both survive an exec. A parent that blocks signals would keep a run from being drained, and one that ignores
    SIGCHLD would let the kernel remove a child's exit status before anybody has read it. Signals that are ignored
    otherwise stay so: `nohup` and a shell's `&` mean it.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
