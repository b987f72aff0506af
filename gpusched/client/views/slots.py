"""When slots were at work in the last minutes, drawn from the ends of their windows, in bounded room. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from gpusched.core.events import WindowMoved
from gpusched.core.model import Slot
from gpusched.core.samples import RECENT, RECENT_OF_ALL, RECENT_S
from gpusched.core.states import Finished, Running
from gpusched.core.statuses import FAILURES, name_of


class Worked(msgspec.Struct, gc=False, kw_only=True):
    """`RECENT_S` seconds in which a slot was held: the `number`th since 1970."""

    number: int
    #: whether a window began there, and whether one failed there
    begins: bool
    failed: bool


class SlotView(msgspec.Struct, frozen=True, kw_only=True):
    """A slot's last minutes."""

    index: int
    worked: Sequence[Worked]
    #: Unix time at which the window that holds it was placed; None: it is free
    held_since: float | None


class SlotTimes:
    """The last minutes of all slots."""

    def __init__(self) -> None:
        self._worked: dict[Slot, deque[Worked]] = {}
        #: Unix time from which on ends are known; None: none was told
        self.since: float | None = None
        #: the latest end
        self._latest = 0.0

    def of(self, slot: Slot) -> Sequence[Worked]:
        return self._worked.get(slot, ())

    def load(self, ended: Sequence[WindowMoved], at: float) -> None:
        """Take in the ends that a snapshot of the instant `at` lists, the latest at the end."""
        new = [moved for moved in ended if moved.at > self._latest and isinstance(moved.old, Running)]
        if ended and all(moved.at > self._latest for moved in ended):
            # Between them and those that were told there may be others.
            self._worked, self.since = {}, None
        if self.since is None:
            self.since = min((moved.at for moved in new), default=at)
        for moved in new:
            assert isinstance(moved.old, Running)
            self.add(moved, moved.old.slot, moved.old.started_at)

    def add(self, moved: WindowMoved, slot: Slot, began: float) -> None:
        """A window left a slot that it had held since `began`."""
        self._latest = moved.at
        failed = isinstance(moved.new, Finished) and name_of(moved.new.outcome) in FAILURES
        worked = self._worked.get(slot)
        if worked is None:
            worked = self._worked[slot] = deque(maxlen=RECENT)
        last = int(moved.at // RECENT_S)
        first = min(last, max(int(began // RECENT_S), last - RECENT + 1))
        for number in range(first, last + 1):
            begins, fails = number == first, failed and number == last
            if worked and worked[-1].number >= number:
                worked[-1].begins |= begins
                worked[-1].failed |= fails
            else:
                worked.append(Worked(number=number, begins=begins, failed=fails))
        while len(worked) > max(1, RECENT_OF_ALL // len(self._worked)):
            worked.popleft()
