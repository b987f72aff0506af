"""Frames that go together: each batch of them costs Ray milliseconds of CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Gathering:
    """Calls `flush` after this turn of the loop, or, where all that has gathered may wait, `linger_s` seconds later."""

    def __init__(self, flush: Callable[[], None], linger_s: float) -> None:
        self._flush = flush
        self._linger_s = linger_s
        self._timer: asyncio.TimerHandle | None = None

    def due(self, *, may_wait: bool) -> None:
        """Take note of something to be flushed."""
        if self._timer is not None:
            if may_wait:
                return
            self._timer.cancel()
        delay_s = self._linger_s if may_wait else 0.0
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._go)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _go(self) -> None:
        self._timer = None
        self._flush()
