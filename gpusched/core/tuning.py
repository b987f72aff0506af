"""The number of slots used on a GPU, found by hill climbing on the measured throughput.

While a device is full, the work of the windows that end on it is measured, period by period. More slots are tried and
then fewer, in steps of a quarter and finally of one. More slots are kept if each of them adds at least `WORTH` of the
work that an average slot does. When no step helps, the number rests, twice as long each time. Pure: `now` is an
argument.
"""

from __future__ import annotations

#: a period lasts at least `PERIOD_S` seconds, until `ENDS_PER_SLOT` windows per slot and `ENDS` in all have ended
ENDS_PER_SLOT, ENDS, PERIOD_S = 8, 16, 2.0
#: work that an additional slot must add, as a share of an average slot's work per second
WORTH = 0.25
#: periods to rest when no step helps: the first time, and at most
REST, MOST_REST = 8, 256


class Tuner:
    """Finds the number of slots to use on one device, between 1 and `most`."""

    def __init__(self, start: int, most: int) -> None:
        self.slots = start
        self._most = most
        self._up = True
        #: steps are of one slot, since steps of a quarter of the slots do not help any more
        self._fine = False
        #: slots and work per second of the period with which the present one is compared
        self._before: tuple[int, float] | None = None
        #: number of directions in which a step of this size has not helped
        self._vain = 0
        self._rest = 0
        self._next_rest = REST
        self._restart()

    def interrupted(self) -> None:
        """Start the period again: the device was not full, so the measurement is worthless."""
        self._restart()

    def ended(self, work: float, now: float) -> str | None:
        """Count a window that left the full device; return the reason if `slots` has changed.

        `work` is the size of the window, in any unit; `now` is in monotonic seconds.
        """
        if self._to_leave_out:
            # The first windows to end were started among another number of neighbours.
            self._to_leave_out -= 1
            self._began = now
            return None
        self._ends += 1
        self._work += work
        took = now - self._began
        if self._ends < max(ENDS, ENDS_PER_SLOT * self.slots) or took < PERIOD_S:
            return None
        rate = self._work / took
        self._restart()
        if self._rest:
            self._rest -= 1
            return None
        return self._judge(rate)

    def _restart(self) -> None:
        self._to_leave_out = self.slots
        self._ends, self._work, self._began = 0, 0.0, 0.0

    def _judge(self, rate: float) -> str | None:
        if self._before is None:
            self._before = (self.slots, rate)
            return self._try_next("to see what that does")
        slots, old_rate = self._before
        change = rate / old_rate - 1
        effect = f"{self.slots} instead of {slots} changed the work per second by {change:+.0%}"
        if change > WORTH * (self.slots - slots) / slots:
            self._before, self._vain = (self.slots, rate), 0
            return self._try_next(effect)
        self._before = None
        self._turn()
        self._move(slots)
        return f"{slots} slots again: {effect}"

    def _try_next(self, why: str) -> str | None:
        """Take one step; turn round at the end of the range, and go on in steps of one once larger ones do not help."""
        while True:
            if self._vain == 2:
                if self._fine or self.slots < 8:  # a quarter is one
                    self._sleep()
                    return None
                self._fine, self._vain = True, 0
            size = 1 if self._fine else max(1, self.slots // 4)
            wanted = min(self._most, self.slots + size) if self._up else max(1, self.slots - size)
            if wanted != self.slots:
                self._move(wanted)
                return f"{wanted} slots: {why}"
            self._turn()

    def _turn(self) -> None:
        self._up = not self._up
        self._vain += 1

    def _sleep(self) -> None:
        self._before, self._vain, self._up, self._fine = None, 0, True, False
        self._rest, self._next_rest = self._next_rest, min(2 * self._next_rest, MOST_REST)

    def _move(self, slots: int) -> None:
        self.slots = slots
        self._restart()
