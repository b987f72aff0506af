"""Portions: how many of a batch's windows one turn of the loop takes, so that everybody else waits only briefly."""

from __future__ import annotations

#: windows of a batch that are taken up in one turn where the turn is not timed: 10 ms on a slow machine
SLICE_WINDOWS = 250
#: seconds of processor time that a turn should take
AIM_S = 0.01
#: windows in a turn at least and at most
LEAST, MOST = 20, 1000


class Portion:
    """The number of windows that the next turn may take, by the time that the last ones took.

    It shrinks at once and grows slowly. Time for which other processes had the core does not count: smaller portions
    would not give it back.
    """

    def __init__(self) -> None:
        self.windows = 100

    def adapt(self, seconds: float) -> None:
        """Note that a turn with this portion took `seconds` of processor time."""
        fit = int(self.windows * AIM_S / max(seconds, 1e-6))
        self.windows = min(max(LEAST, min(fit, self.windows * 5 // 4)), MOST)
