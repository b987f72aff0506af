"""The second guard of the slots: a semaphore with as many permits as the pool has slots."""

from __future__ import annotations

from types import TracebackType

import anyio


class Permits:
    """Permits to run a window. Hold one, as a context manager, while the window's process may exist."""

    def __init__(self) -> None:
        self._semaphore = anyio.Semaphore(0)
        self._count = 0

    def fit(self, slots: int) -> None:
        """Adapt the number of permits to the pool. A permit in use is withdrawn by the first call after its return."""
        while self._count < slots:
            self._semaphore.release()
            self._count += 1
        while self._count > slots and self._semaphore.value:
            self._semaphore.acquire_nowait()
            self._count -= 1

    async def __aenter__(self) -> None:
        await self._semaphore.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._semaphore.release()
