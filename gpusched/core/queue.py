"""Queues: the scheduler's records of each window and batch, and the order in which windows are placed."""

from __future__ import annotations

import heapq
import math
from collections import deque

import msgspec

from gpusched.core.changes import Change
from gpusched.core.estimates import GUESSED_SECONDS_PER_ROW
from gpusched.core.memory import NOTHING, Need
from gpusched.core.model import Batch, HoldReason, Instant, PlannedWindow, WindowKey
from gpusched.core.states import Finished, Queued, State
from gpusched.core.statuses import result_of

#: lines of a window's story that are kept in memory for error messages; the store keeps them all
STORY_LINES = 12


#: priority, length and number of a window, each so that the smallest goes first; the number is its place in its batch
Order = tuple[int, int, int]


#: no window has failed since the last success
NO_STREAK: tuple[tuple[str, str], int] = (("", ""), 0)


class Entry(msgspec.Struct, gc=False, eq=False):
    """One window of a batch, with its state and the history that decides about its next attempt."""

    key: WindowKey
    planned: PlannedWindow
    #: place in the queue of its batch, see `order_of`
    order: Order
    state: State
    #: attempts that failed by the window's own fault, and by other causes
    failures: int = 0
    losses: int = 0
    #: the place where its last attempt raised an exception; empty: it did not
    raised_at: str = ""
    #: monotonic instant before which it is not placed again
    ready_at: float = 0.0
    #: monotonic instant at which its last attempt began to run
    began: float = 0.0
    #: needed memory of the device and of the host, as learned from its own failures; 0: only estimates count
    device: Need = NOTHING
    host: Need = NOTHING
    #: it ran out of memory on a GPU that it had to itself, and the batch may use the CPU: it runs there next
    on_cpu: bool = False
    #: the latest lines of its story; a deque of its own would be most of the memory of a window that waits
    story: tuple[str, ...] = ()

    def tell(self, line: str) -> None:
        """Add a line to its story, and drop the oldest of too many."""
        self.story = (*self.story[1 - STORY_LINES :], line)


class BatchQueue:
    """One batch, its windows, and the order of those that can be placed."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.entries: dict[str, Entry] = {}
        #: the entries in the order of submission
        self.windows: list[Entry] = []
        #: changes that are not completed; the first is being made
        self.changes: deque[Change] = deque()
        #: the labels of the windows that should have a result
        self.with_result: dict[str, None] = {}
        self.unfinished = 0
        self.active = 0
        #: `BatchFinished` was recorded: all windows have ended, and their results have been checked
        self.finished = False
        #: number of the last check of its results
        self.check = 0
        #: why no window of it is placed, or None
        self.held: HoldReason | None = None
        #: number of the placement that served it last
        self.last_served = 0
        #: the kind and the cause that the latest failed windows have in common, and their number
        self.streak = NO_STREAK
        #: heap of the orders of windows; those that are no longer ready are dropped when they come up
        self._ready: list[Order]
        #: heap in the opposite order of length; None: not needed so far. `mixed` batches have it from the beginning: to
        #: make it of 100,000 windows would be a long turn
        self._shortest: list[Order] | None
        self.none_is_queued()

    def push(self, entry: Entry) -> None:
        heapq.heappush(self._ready, entry.order)
        if self._shortest is not None:
            heapq.heappush(self._shortest, _from_the_end(entry.order))

    def peek(self, now: Instant) -> Entry | None:
        """The first window in the queue that may be placed now, or None."""
        while self._ready:
            entry = self.windows[self._ready[0][2]]
            if type(entry.state) is Queued and entry.ready_at <= now.monotonic:
                return entry
            heapq.heappop(self._ready)
        return None

    def peek_shortest(self, now: Instant) -> Entry | None:
        """The last window in the queue that may be placed now, or None."""
        if self._shortest is None:
            self._shortest = [*map(_from_the_end, self._ready)]
            heapq.heapify(self._shortest)
        while self._shortest:
            entry = self.windows[-self._shortest[0][2]]
            if type(entry.state) is Queued and entry.ready_at <= now.monotonic:
                return entry
            heapq.heappop(self._shortest)
        return None

    @property
    def may_have_ready(self) -> bool:
        return bool(self._ready) and self.held is None and not self.is_being_cancelled

    @property
    def is_at_limit(self) -> bool:
        """Whether as many windows run as may run at once."""
        return 0 < self.batch.spec.workers <= self.active

    def ahead_of(self, entry: Entry, now: Instant) -> int:
        """The number of windows that may be placed now and go before `entry`."""
        others = (one for one in self.windows if one.order < entry.order)
        return sum(type(one.state) is Queued and one.ready_at <= now.monotonic for one in others)

    def none_is_queued(self) -> None:
        """Clear the heaps at once, after all windows were cancelled, instead of dropping their items one by one."""
        self._ready, self._shortest = [], [] if self.batch.device == "mixed" else None

    def count_result(self, entry: Entry) -> None:
        """Note whether a window whose state has changed should have a result."""
        if result_of(entry.state) is not None:
            self.with_result[entry.key.label] = None
        else:
            self.with_result.pop(entry.key.label, None)

    @property
    def is_being_cancelled(self) -> bool:
        return any(change.verb == "cancel" and change.label is None for change in self.changes)

    @property
    def done(self) -> bool:
        return self.unfinished == 0 and not self.changes

    def add(self, entry: Entry) -> None:
        self.entries[entry.key.label] = entry
        self.windows.append(entry)
        if type(entry.state) is Finished:
            self.count_result(entry)
            return
        self.unfinished += 1
        if type(entry.state) is Queued:
            self.push(entry)


def order_of(planned: PlannedWindow, number: int) -> Order:
    """As asked for, the longest first (in steps of about 20 %), as submitted: it is the `number`th of its batch."""
    return -planned.window.priority, -int(math.log2(_rows(planned) + 1) * 4), number


def _from_the_end(order: Order) -> Order:
    priority, length, number = order
    return priority, -length, -number


def _rows(planned: PlannedWindow) -> float:
    """The length of a window in rows: those that it has, or as many as take the seconds that were asked for."""
    return planned.window.expected_seconds / GUESSED_SECONDS_PER_ROW or planned.usable_rows
