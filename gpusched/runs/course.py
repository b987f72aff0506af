"""The course of a run: whether its batch can still go on by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import anyio

from gpusched.core.events import BatchAccepted, BatchFinished, BatchHeld, BatchReleased, WindowMoved
from gpusched.core.states import Finished, Held
from gpusched.supervisor.followers import News


class Course:
    """See the module."""

    def __init__(self, *, devices_return: bool = False) -> None:
        """`devices_return`: a batch without devices waits for some, as on a cluster whose nodes come and go."""
        self._devices_return = devices_return
        #: set when all windows are finished, or the rest is held and nobody is watching who could release it
        self.ended = anyio.Event()
        self._watched = False
        self._batch_held: str | None = None
        self._held, self._unfinished = 0, 0

    @property
    def held_reason(self) -> str | None:
        """Why windows are held and the run could not finish, or None."""
        if self._batch_held is not None:
            return self._batch_held
        return "its windows are held by request" if self._held else None

    def follow(self, news: News) -> None:
        match news:
            case BatchAccepted(windows=windows):
                self._unfinished = sum(not isinstance(state, Finished) for _, state in windows)
            case WindowMoved(old=old, new=new):
                self._held += isinstance(new, Held) - isinstance(old, Held)
                self._unfinished += isinstance(old, Finished) - isinstance(new, Finished)
            case BatchHeld(kind="stranded") if self._devices_return:
                return
            case BatchHeld(reason=reason):
                self._batch_held = reason
            case BatchReleased():
                self._batch_held = None
            case BatchFinished():
                self.ended.set()
            case _:
                return
        self._end_if_stuck()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within the context, somebody is watching who can release held windows."""
        self._watched = True
        try:
            yield
        finally:
            self._watched = False
            self._end_if_stuck()

    def _end_if_stuck(self) -> None:
        stuck = self._batch_held is not None or 0 < self._held == self._unfinished
        if stuck and not self._watched:
            self.ended.set()
