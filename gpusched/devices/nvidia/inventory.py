"""Repeated discovery of GPUs: cards come and go, and so does their driver.

Within a session NVML sees MIG instances come and go, but neither new cards nor a new driver: those show only after it
has been started anew. Linux shows both without NVML, so a change there ends a session early.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from gpusched.devices.kind import Discovery

#: seconds between two looks; after each incomplete look the wait doubles, up to the second number
LOOK_S, RARE_LOOK_S = 5.0, 300.0
#: a look that took s seconds is not repeated for this many times s
PATIENCE = 10.0


class Inventory:
    """Calls `look`, which may block, when it is due. Not thread-safe."""

    def __init__(
        self,
        look: Callable[[], Discovery],
        last: Discovery,
        *,
        look_s: float = LOOK_S,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`last` is the result of the last look."""
        self._look = look
        self._last = last
        self._look_s = look_s
        self._wait_s = look_s
        self._root = root
        self._clock = clock
        self._linux = self._seen_by_linux()
        self._due = clock() + look_s

    def changed_for_linux(self) -> bool:
        """Whether the driver or its cards have changed since the last call, so that NVML has to be started anew."""
        before, self._linux = self._linux, self._seen_by_linux()
        if self._linux == before:
            return False
        self._due, self._wait_s = self._clock(), self._look_s
        return True

    def news(self) -> Discovery | None:
        """Look, if it is time to; return the result if it differs from the last one."""
        began = self._clock()
        if began < self._due:
            return None
        before, self._last = self._last, self._look()
        took = self._clock() - began
        self._wait_s = self._look_s if self._last.complete else min(2 * self._wait_s, RARE_LOOK_S)
        self._due = self._clock() + max(self._wait_s, PATIENCE * took)
        return None if self._last == before else self._last

    def _seen_by_linux(self) -> tuple[bool, frozenset[str]]:
        driver = self._root / "proc/driver/nvidia"
        try:
            return (driver / "version").exists(), frozenset(os.listdir(driver / "gpus"))  # noqa: PTH208  # names only
        except OSError:
            return False, frozenset()
