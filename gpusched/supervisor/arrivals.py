"""Batches on their way from a plan into the store; large ones go in slices, so that nobody else has to wait."""

from __future__ import annotations

import msgspec

from gpusched.core.events import BatchSubmitted, WindowsArrived
from gpusched.core.model import Batch, DataNotes, PlannedWindow


class _Arrival(msgspec.Struct):
    batch: Batch
    windows: tuple[PlannedWindow, ...]
    notes: DataNotes
    #: windows that have arrived
    arrived: int = 0


class Arrivals:
    """The batches that have been handed over but not submitted yet, in order."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Arrival] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, batch_id: str) -> bool:
        return batch_id in self._waiting

    @property
    def batches(self) -> tuple[Batch, ...]:
        return tuple(arrival.batch for arrival in self._waiting.values())

    def add(self, batch: Batch, windows: tuple[PlannedWindow, ...], notes: DataNotes) -> None:
        self._waiting[batch.id] = _Arrival(batch, windows, notes)

    def next(self, windows: int) -> WindowsArrived | BatchSubmitted:
        """The next `windows` windows of the first batch; a small batch comes at once."""
        batch_id, arrival = next(iter(self._waiting.items()))
        begin, end = arrival.arrived, arrival.arrived + windows
        arrival.arrived = end
        part = arrival.windows[begin:end]
        if end < len(arrival.windows):
            return WindowsArrived(batch=arrival.batch, windows=part)
        del self._waiting[batch_id]
        return BatchSubmitted(batch=arrival.batch, windows=part, notes=arrival.notes)
