"""Places for surveys: a few at a time, since each has a process for every core, and no member has more than one."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator

import anyio

#: surveys at a time for the daemon's own user and root, and as many for all members together
MAX_SURVEYS = 4


class Surveys:
    """The surveys at work.

    Those of a member that hang, while the client waits, are in the way of that member's next one, and of nobody else's.
    """

    def __init__(self) -> None:
        self._of_owner = anyio.Semaphore(MAX_SURVEYS)
        self._of_members = anyio.Semaphore(MAX_SURVEYS)
        #: by the uid of a member
        self._of_each: defaultdict[int, anyio.Lock] = defaultdict(anyio.Lock)

    @contextlib.asynccontextmanager
    async def place(self, member: int | None) -> AsyncIterator[None]:
        """Wait for a place, and keep it. `member`: the uid of a client whose rights are judged, or None."""
        async with contextlib.AsyncExitStack() as stack:
            if member is not None:
                await stack.enter_async_context(self._of_each[member])
            await stack.enter_async_context(self._of_owner if member is None else self._of_members)
            yield
