"""The second guard of the slots: a semaphore with as many permits as the pool has slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio


class Permits:
    """Permits to run a window. One is held while the window's process may exist."""

    def __init__(self) -> None:
        self._semaphore = anyio.Semaphore(0)
        self._count = 0
        self._waiting: deque[Callable[[], None]] = deque()

    def fit(self, slots: int) -> None:
        """Adapt the number of permits to the pool. A permit in use is withdrawn by the first call after its return."""
        while self._count < slots:
            self.give_back()
            self._count += 1
        while self._count > slots and self._semaphore.value:
            self._semaphore.acquire_nowait()
            self._count -= 1

    def take(self, begin: Callable[[], None]) -> None:
        """Call `begin` with a permit held for it: now, or when one has been given back."""
        try:
            self._semaphore.acquire_nowait()
        except anyio.WouldBlock:
            self._waiting.append(begin)
        else:
            begin()

    def give_back(self) -> None:
        """Give a permit back; whoever waits for one gets it."""
        self._semaphore.release()
        if self._waiting:
            self.take(self._waiting.popleft())
