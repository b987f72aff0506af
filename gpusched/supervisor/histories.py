"""Histories: readings of the devices while a batch had windows on them, gathered until the store keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from gpusched.core.events import BatchFinished, Record
from gpusched.core.model import Reading
from gpusched.core.samples import History, Sample

#: seconds between commits of the histories of unfinished batches
KEEP_HISTORIES_S = 30.0


class Histories:
    """The histories of batches that have windows on devices. `stored` reads the history of a batch from the store."""

    def __init__(self, stored: Callable[[str], list[Sample]]) -> None:
        self._stored = stored
        self._histories: dict[str, History] = {}
        self._kept_at = time.monotonic()

    def note(self, reading: Reading, batch_ids: Iterable[str]) -> None:
        """Add a reading to the histories of these batches."""
        for batch_id in batch_ids:
            if batch_id not in self._histories:
                self._histories[batch_id] = History(self._stored(batch_id))
            self._histories[batch_id].add(reading)

    def to_keep(self, records: Iterable[Record]) -> dict[str, list[Sample]]:
        """The histories to commit with `records`: those of batches that finish, and every `KEEP_HISTORIES_S` all.

        So a crash loses the readings of `KEEP_HISTORIES_S` seconds at most.
        """
        due = time.monotonic() >= self._kept_at + KEEP_HISTORIES_S
        if due:
            self._kept_at = time.monotonic()
        ending = {record.batch_id for record in records if isinstance(record, BatchFinished)}
        return {name: history.samples() for name, history in self._histories.items() if due or name in ending}

    def forget(self, batch_id: str) -> None:
        self._histories.pop(batch_id, None)
