"""A heartbeat: progress is told of again while there is none, so that it is noticed when nobody listens any more."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import anyio

OnProgress = Callable[[int, int], None]

#: seconds between two beats
BEAT_S = 1.0


@contextlib.asynccontextmanager
async def beating(on_progress: OnProgress) -> AsyncIterator[OnProgress]:
    """Yield a function that passes progress on; within the context, the last is passed on every `BEAT_S` seconds, too.

    `on_progress` may cancel a scope around the context.
    """
    reached = 0, 0

    def reach(done: int, total: int) -> None:
        nonlocal reached
        reached = done, total
        on_progress(done, total)

    async def beat() -> None:
        while True:
            await anyio.sleep(BEAT_S)
            on_progress(*reached)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        yield reach
        tasks.cancel_scope.cancel()
