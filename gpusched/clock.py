"""The clock of all timestamps: wall time in which the difference of two stamps is a duration.

The system's clock may jump back, or forwards by days when NTP corrects a machine whose battery was empty. Stamps then
continue on CLOCK_BOOTTIME, which nobody sets and which counts sleep. They adopt the system's time once no batch is at
work, so a batch never has some stamps before the jump and some after, and no view has to allow for jumps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

#: seconds that the system's clock may be off before it counts as having jumped; NTP slews smaller differences
JUMP_S = 1.0

log = logging.getLogger("gpusched.daemon")


class Clock:
    """Wall time that starts at the system's time and then runs steadily."""

    def __init__(self, system: Callable[[], float], steady: Callable[[], float]) -> None:
        self._system = system
        self._steady = steady
        self._offset = system() - steady()

    def wall(self) -> float:
        """Seconds since the epoch. Two readings differ by the time between them, unless `take_over` came between."""
        return self._steady() + self._offset

    def take_over(self) -> None:
        """Adopt the system's time if it has jumped. Call this only while no batch is at work."""
        jumped = self._system() - self.wall()
        if abs(jumped) > JUMP_S:
            log.warning("the system's clock has jumped and is followed now seconds=%+.1f", jumped)
            self._offset += jumped


_clock = Clock(time.time, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
wall = _clock.wall
take_over = _clock.take_over
