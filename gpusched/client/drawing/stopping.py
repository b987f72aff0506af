"""Ctrl-Z while something is drawn: the terminal is given back before the process stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Stops:
    """Takes SIGTSTP for the thread that draws, which looks at `asked` and calls `obey`."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._is_taken = False

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    def take(self) -> None:
        """From now on SIGTSTP is only noted; not where it is ignored, as without job control, nor in another thread."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._note)
            self._is_taken = True

    def release(self) -> None:
        """Undo `take`."""
        if self._is_taken:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            self._is_taken = False
        self._asked.clear()

    def obey(self) -> None:
        """Stop this process until it is continued."""
        self._asked.clear()
        # To this thread, which stops at once: of a signal to the process it might not hear before it goes on drawing.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()
