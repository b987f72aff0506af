"""Batches on their way in: from a plan or from the store, in slices if they are too large for one turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gpusched.core.events import (
    BatchAccepted,
    BatchRecovered,
    BatchSubmitted,
    WindowsAdded,
    WindowsArrived,
    WindowsRecovered,
)
from gpusched.core.model import Batch, Instant, PlannedWindow, WindowKey
from gpusched.core.planning import planned_outcome
from gpusched.core.queue import BatchQueue, Entry, order_of
from gpusched.core.states import Finished, Queued, State, is_active
from gpusched.core.statuses import status_of

#: a window as it arrives, and the state in which it begins
Arrived = tuple[PlannedWindow, State]


class _Arriving:
    """A batch that is not accepted yet, and its record to be."""

    def __init__(self, batch: Batch) -> None:
        self.queue = BatchQueue(batch)
        self.windows: list[Arrived] = []
        #: windows by status
        self.counts: Counter[str] = Counter()

    def add(self, windows: Iterable[PlannedWindow]) -> tuple[Arrived, ...]:
        """Add the next windows; return them in the states in which they begin."""
        begun = _as_planned(windows)
        _add(self.queue, begun)
        self.windows += begun
        self.counts.update(status_of(state) for _, state in begun)
        return begun


class Incoming:
    """Keeps the windows that have come until their batch is complete."""

    def __init__(self) -> None:
        self._arriving: dict[str, _Arriving] = {}
        self._recovering: dict[str, BatchQueue] = {}

    def arrived(self, event: WindowsArrived, now: Instant) -> WindowsAdded:
        arriving = self._arriving.setdefault(event.batch.id, _Arriving(event.batch))
        first = not arriving.windows
        return WindowsAdded(batch=event.batch, windows=arriving.add(event.windows), first=first, at=now.wall)

    def submitted(self, event: BatchSubmitted, now: Instant) -> tuple[BatchQueue, BatchAccepted]:
        """A batch whose last windows have arrived, and the record of its acceptance."""
        arriving = self._arriving.pop(event.batch.id, None) or _Arriving(event.batch)
        added = len(arriving.windows)
        arriving.add(event.windows)
        return arriving.queue, BatchAccepted(
            batch=event.batch,
            windows=tuple(arriving.windows),
            added=added,
            counts=dict(arriving.counts),
            notes=event.notes,
            at=now.wall,
        )

    def recovered(self, event: WindowsRecovered) -> None:
        if event.first:
            self._recovering[event.batch.id] = BatchQueue(event.batch)
        _add(self._recovering[event.batch.id], event.windows)

    def taken_up(self, event: BatchRecovered) -> BatchQueue:
        """A batch of the store with all of its windows."""
        batch = self._recovering.pop(event.batch.id, None) or BatchQueue(event.batch)
        batch.held, batch.finished = event.held, event.finished
        _add(batch, event.windows)
        return batch


def _add(batch: BatchQueue, windows: Iterable[Arrived]) -> None:
    for number, (planned, state) in enumerate(windows, len(batch.windows)):
        key = WindowKey(batch.batch.id, planned.window.label)
        batch.add(Entry(key, planned, order_of(planned, number), state))
        batch.active += is_active(state)


def _as_planned(windows: Iterable[PlannedWindow]) -> tuple[Arrived, ...]:
    """Windows in the states in which they begin: queued, or finished by the plan."""
    outcomes = ((planned, planned_outcome(planned)) for planned in windows)
    queued = Queued()  # of all of them: it is one more object for each of 100,000 windows otherwise
    return tuple([(p, queued if o is None else Finished(attempts=0, outcome=o)) for p, o in outcomes])
