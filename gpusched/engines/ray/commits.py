"""Commits of results that have come from nodes: those that come together are made together, in few threads.

So the results of one batch of messages are ready in one turn of the supervisor's loop, which records them in one
transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import anyio.to_thread

from gpusched.core.model import WindowResult
from gpusched.engines.tasks import Tasks

#: threads that hash results and make them durable; and the number of results that makes another thread worth while
AT_ONCE, WORTH = 4, 4

Commit = Callable[[], WindowResult]


class Commits:
    """Makes commits in worker threads."""

    def __init__(self) -> None:
        self._threads = anyio.CapacityLimiter(AT_ONCE)
        self._gathered: list[tuple[Commit, asyncio.Future[WindowResult]]] = []
        self._making = Tasks()

    async def made(self, commit: Commit) -> WindowResult:
        """Make a commit, with all others of this turn of the loop. Raises its error."""
        loop = asyncio.get_running_loop()
        if not self._gathered:
            loop.call_soon(self._begin)
        future: asyncio.Future[WindowResult] = loop.create_future()
        self._gathered.append((commit, future))
        return await future

    def _begin(self) -> None:
        gathered, self._gathered = self._gathered, []
        size = max(WORTH, -(-len(gathered) // AT_ONCE))
        for first in range(0, len(gathered), size):
            self._making.start(self._make(gathered[first : first + size]))

    async def _make(self, some: list[tuple[Commit, asyncio.Future[WindowResult]]]) -> None:
        made = await anyio.to_thread.run_sync(_make, [commit for commit, _ in some], limiter=self._threads)
        for (_, future), result in zip(some, made, strict=True):
            if future.done():  # whoever waited has been cancelled
                continue
            if isinstance(result, WindowResult):
                future.set_result(result)
            else:
                future.set_exception(result)


def _make(commits: list[Commit]) -> list[WindowResult | Exception]:
    made: list[WindowResult | Exception] = []
    for commit in commits:
        try:
            made.append(commit())
        except Exception as error:  # raised to whoever asked for this one
            made.append(error)
    return made
