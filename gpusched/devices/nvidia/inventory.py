"""Which GPUs there are, looked at again and again: cards come and go, and so does their driver.

Within a session NVML sees MIG instances come and go, and nothing else: a card or a driver that is new shows after its
start. Linux shows both without NVML, so a change there is what ends a session early.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from gpusched.devices.discovery import Discovery

#: seconds between two looks, and between those that find no driver: doubled each time, up to this
LOOK_S, RARE_LOOK_S = 5.0, 300.0
#: a look that took s seconds is not repeated for this many times s
PATIENCE = 10.0


class Inventory:
    """Calls `look`, which may block, when that is due. Not for more than one thread."""

    def __init__(
        self,
        look: Callable[[], Discovery],
        found: Discovery,
        *,
        look_s: float = LOOK_S,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`found` is what the last look saw."""
        self._look = look
        self._found = found
        self._look_s = look_s
        self._wait_s = look_s
        self._root = root
        self._clock = clock
        self._linux = self._seen_by_linux()
        self._due = clock() + look_s

    def changed_for_linux(self) -> bool:
        """Whether the driver or its cards are others than at the last call: NVML has to be started anew to see them."""
        before, self._linux = self._linux, self._seen_by_linux()
        if self._linux == before:
            return False
        self._due, self._wait_s = self._clock(), self._look_s
        return True

    def news(self) -> Discovery | None:
        """What is there, if it is time to look and that has changed."""
        began = self._clock()
        if began < self._due:
            return None
        before, self._found = self._found, self._look()
        took = self._clock() - began
        self._wait_s = self._look_s if self._found.complete else min(2 * self._wait_s, RARE_LOOK_S)
        self._due = self._clock() + max(self._wait_s, PATIENCE * took)
        return None if self._found == before else self._found

    def _seen_by_linux(self) -> tuple[bool, frozenset[str]]:
        driver = self._root / "proc/driver/nvidia"
        try:
            return (driver / "version").exists(), frozenset(os.listdir(driver / "gpus"))  # noqa: PTH208  # names only
        except OSError:
            return False, frozenset()
