"""The pace of a batch: windows per second, seconds per window, and the error of what is expected from them. Pure."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable

#: the rate is taken over the last `RATE_S` seconds, but over at least and at most these numbers of windows
RATE_S = 30.0
RATE_WINDOWS = (64, 4096)
#: trained windows whose seconds give the expectation for the next one: at most, at least
KEPT_SECONDS, FEWEST_SECONDS = 64, 5


class Pace:
    """Counts the ends of windows. Instants are monotonic seconds."""

    def __init__(self) -> None:
        #: that windows which succeeded took on their slots
        self._seconds: deque[float] = deque(maxlen=KEPT_SECONDS)
        #: instants at which windows ended, and the one from which they are counted
        self._ends: deque[float] = deque()
        self._counted_from: float | None = None

    def placed(self, monotonic: float) -> None:
        """A window was placed: the first one begins the count."""
        if self._counted_from is None:
            self._counted_from = monotonic

    def trained(self, seconds: float) -> None:
        """A window succeeded after `seconds` on its slot."""
        self._seconds.append(seconds)

    def ended(self, monotonic: float) -> None:
        """A window left its slot for good."""
        self._ends.append(monotonic)
        self._forget(monotonic)

    def pause(self) -> None:
        """Begin anew: the time in which nothing was placed says nothing about the rate."""
        self._ends.clear()
        self._counted_from = None

    def clear(self) -> None:
        """Begin anew with another batch, whose windows may take other times."""
        self.pause()
        self._seconds.clear()

    def load(self, ends: Iterable[tuple[float, float]], running_since: float | None, monotonic: float) -> None:
        """Begin with windows that have ended: (instant, seconds on the slot), the latest first.

        `running_since`: when the first of the running windows was placed; None: none runs. Ends before a pause are left
        out.
        """
        self.pause()
        began = monotonic if running_since is None else running_since
        for end, seconds in ends:
            if end >= began - RATE_S:
                self._ends.appendleft(end)
                began = min(began, end - seconds)
        # Running windows will end, too: counted from the next placement, those ends would fall into no time at all.
        if running_since is not None:
            self._counted_from = self._ends.popleft() if self._ends else monotonic

    def rate(self, monotonic: float) -> float:
        """Windows per second that left their slots lately; 0 while none has."""
        self._forget(monotonic)
        if self._counted_from is None or monotonic <= self._counted_from:
            return 0.0
        return len(self._ends) / (monotonic - self._counted_from)

    @property
    def expected_s(self) -> float | None:
        """Seconds that a window takes on its slot, the median of those trained lately; None while there are few."""
        return statistics.median(self._seconds) if len(self._seconds) >= FEWEST_SECONDS else None

    def relative_error(self, left: int) -> float | None:
        """The standard error of the time that `left` windows take at the present rate, as a share of that time.

        None while that cannot be said. Ends are counted as a renewal process (D. R. Cox, Renewal Theory, 1962): a count
        of n has the variance n·v², where v is the coefficient of variation of the durations. So the rate, measured over
        n ends, has the relative error v/√n, and the m windows that are left vary by v/√m.
        """
        if left <= 0 or len(self._seconds) < FEWEST_SECONDS or not self._ends:
            return None
        variation = statistics.stdev(self._seconds) / max(1e-9, statistics.fmean(self._seconds))
        return variation * math.sqrt(1 / len(self._ends) + 1 / left)

    def _forget(self, monotonic: float) -> None:
        """Count from the last end that is let go, so that the span covers exactly the windows that are counted."""
        ends, (fewest, most) = self._ends, RATE_WINDOWS
        while len(ends) > fewest and (ends[0] < monotonic - RATE_S or len(ends) > most):
            self._counted_from = ends.popleft()
