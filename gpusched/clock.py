"""The clock that everything is stamped with: wall time in which the difference of two stamps is a duration.

The system's clock may jump: forwards by days when a machine's battery was empty and NTP finds out, or back. Stamps go
on from where they were, on the clock that nobody sets and that counts sleep, and take the jump over as soon as no batch
is at work that would have some of its stamps before it and some after. So no view has to know of jumps, whatever it
subtracts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

#: seconds that the system's clock may be off before it counts as having jumped; less is what NTP slews
JUMP_S = 1.0

log = logging.getLogger("gpusched.daemon")


class Clock:
    """Wall time that starts at the system's and goes on steadily."""

    def __init__(self, system: Callable[[], float], steady: Callable[[], float]) -> None:
        self._system = system
        self._steady = steady
        self._offset = system() - steady()

    def wall(self) -> float:
        """Seconds since the epoch; the difference of two is how long that took, as long as nothing was taken over."""
        return self._steady() + self._offset

    def take_over(self) -> None:
        """Nothing is at work: stamps may jump to the system's time."""
        jumped = self._system() - self.wall()
        if abs(jumped) > JUMP_S:
            log.warning("the system's clock has jumped and is followed now seconds=%+.1f", jumped)
            self._offset += jumped


_clock = Clock(time.time, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
wall = _clock.wall
take_over = _clock.take_over
