"""Histories: readings of the devices while a batch had windows on them, gathered until the store keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from gpusched.core.events import BatchFinished, DeviceRead, Record
from gpusched.core.samples import History, Sample
from gpusched.supervisor.followers import News

#: seconds between commits of the histories of unfinished batches
KEEP_HISTORIES_S = 30.0


class Histories:
    """The histories of batches that have windows on devices, whose ids `running` returns.

    `stored` reads a batch's history from the store.
    """

    def __init__(self, running: Callable[[], Iterable[str]], stored: Callable[[str], list[Sample]]) -> None:
        self._running = running
        self._stored = stored
        self._histories: dict[str, History] = {}
        self._kept_at = time.monotonic()

    def follow(self, news: News) -> None:
        """Add a reading to the histories of the batches at work; forget the history of a batch that has finished."""
        match news:
            case DeviceRead(reading=reading):
                for batch_id in self._running():
                    if batch_id not in self._histories:
                        self._histories[batch_id] = History(self._stored(batch_id))
                    self._histories[batch_id].add(reading)
            case BatchFinished(batch_id=batch_id):
                self._histories.pop(batch_id, None)

    def to_keep(self, records: Iterable[Record]) -> dict[str, list[Sample]]:
        """The histories to commit with `records`: of batches that finish, and every `KEEP_HISTORIES_S` of all batches.

        So a crash loses the readings of `KEEP_HISTORIES_S` seconds at most.
        """
        due = time.monotonic() >= self._kept_at + KEEP_HISTORIES_S
        if due:
            self._kept_at = time.monotonic()
        ending = {record.batch_id for record in records if type(record) is BatchFinished}
        return {name: history.samples() for name, history in self._histories.items() if due or name in ending}
