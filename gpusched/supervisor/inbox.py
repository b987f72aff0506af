"""The inbox: events that wait for the supervisor's next turn, each with the instant at which it was handed over."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

import anyio.lowlevel

from gpusched import clock
from gpusched.core.events import Event
from gpusched.core.model import Instant

#: seconds that events wait at most for a turn that other events need
PATIENCE_S = 0.1


def now() -> Instant:
    return Instant(monotonic=time.monotonic(), wall=clock.wall())


class Inbox:
    """See the module. `at_work` says whether any batch is unfinished: the clock is not changed meanwhile."""

    def __init__(self, at_work: Callable[[], bool]) -> None:
        self._at_work = at_work
        self._events: deque[tuple[Event, Instant]] = deque()
        self._woken = asyncio.Event()
        #: wakes the supervisor for events that need no turn of their own
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._events)

    def add(self, event: Event) -> None:
        """Add an event to the turn that is under way, or to the next one whenever that is."""
        if not self._at_work():
            clock.take_over()
        self._events.append((event, now()))

    def post(self, event: Event) -> None:
        """Add an event, and ask for a turn."""
        self.add(event)
        self._woken.set()

    def post_later(self, event: Event) -> None:
        """Add an event with which nobody waits: it is handled in the next turn, after `PATIENCE_S` at most."""
        self.add(event)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self.wake)

    def wake(self) -> None:
        """Ask for a turn."""
        self._woken.set()

    async def turn(self, deadline: float | None) -> None:
        """Wait until a turn is asked for, or until a monotonic instant; other tasks come first in any case."""
        if self._woken.is_set():
            await anyio.lowlevel.checkpoint()
        else:
            loop = asyncio.get_running_loop()
            alarm = None
            if deadline is not None:
                alarm = loop.call_at(loop.time() + (deadline - time.monotonic()), self.wake)
            await self._woken.wait()
            if alarm is not None:
                alarm.cancel()
        self._rest()

    def take(self) -> Iterator[tuple[Event, Instant]]:
        """The events in order, also those that are added meanwhile: they need no further turn."""
        while self._events:
            yield self._events.popleft()
        self._rest()

    def _rest(self) -> None:
        """Until the next turn is asked for."""
        self._woken.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
