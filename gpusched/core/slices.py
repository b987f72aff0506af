"""Slices: the incomplete changes to batches, made in turns. See `gpusched.core.changes`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from gpusched.core.changes import LOOKED_AT, Change
from gpusched.core.events import ChangeAdvanced, ChangeMade
from gpusched.core.model import Instant
from gpusched.core.queue import BatchQueue, Entry
from gpusched.core.statuses import WindowVerb

#: makes a change to one window; returns whether the verb applied to it
Apply = Callable[[WindowVerb, Entry, Instant], bool]


class Slices:
    """Makes changes slice by slice: batches take turns, and the changes of a batch follow the order of the requests."""

    def __init__(self, apply: Apply) -> None:
        self._apply = apply
        #: batches whose first change is incomplete, by id; the first is next in turn
        self._waiting: dict[str, BatchQueue] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, batch_id: str) -> bool:
        return batch_id in self._waiting

    @property
    def next(self) -> BatchQueue | None:
        """The batch whose turn it is."""
        return next(iter(self._waiting.values()), None)

    def resume(self, batch: BatchQueue, changes: Iterable[Change]) -> None:
        """Take up the changes of a batch that were incomplete when the last supervisor died."""
        batch.changes.extend(changes)
        if batch.changes:
            self._waiting[batch.batch.id] = batch

    def ask(self, batch: BatchQueue, verb: WindowVerb, label: str | None, now: Instant) -> ChangeAdvanced | None:
        """Queue a change behind earlier ones; return the record to store if it has to wait."""
        number = batch.changes[-1].number + 1 if batch.changes else 1
        change = Change(verb=verb, label=label, number=number)
        batch.changes.append(change)
        if len(batch.changes) == 1:
            return None
        return ChangeAdvanced(batch_id=batch.batch.id, change=change, recorded=False, at=now.wall)

    def make(
        self, batch: BatchQueue, active: Iterable[Entry], most: int, now: Instant
    ) -> ChangeAdvanced | ChangeMade | None:
        """Make a slice of a batch's first change; return the record to store.

        `active` are its windows that hold slots, and `most` is the number of windows to change besides those.
        """
        change, batch_id = batch.changes[0], batch.batch.id
        entries = batch.windows if change.label is None else [batch.entries[change.label]]
        done, windows = change.done, change.windows
        if change.verb == "cancel" and change.label is None and done == 0:
            # Windows that run are told to end at once, not when their slice comes.
            windows += sum(self._apply("cancel", entry, now) for entry in active)
        last, enough = min(len(entries), done + LOOKED_AT * most), windows + most
        while done < last and windows < enough:
            windows += self._apply(change.verb, entries[done], now)
            done += 1
        change = batch.changes[0] = msgspec.structs.replace(change, done=done, windows=windows)
        recorded = self._waiting.pop(batch_id, None) is not None
        if done < len(entries):
            self._waiting[batch_id] = batch
            return ChangeAdvanced(batch_id=batch_id, change=change, recorded=recorded, at=now.wall)
        batch.changes.popleft()
        if change.verb == "cancel" and change.label is None:
            batch.none_is_queued()
        if batch.changes:
            self._waiting[batch_id] = batch
        if not windows and not recorded:
            return None
        return ChangeMade(batch_id=batch_id, change=change, recorded=recorded, at=now.wall)
