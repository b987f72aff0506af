"""Requests: what people ask for, to one window or to a batch: cancel, hold, release, retry, and other terms.

Changes of windows are made in slices; see `gpusched.core.changes`. A hold of a whole batch touches no window.
"""

from __future__ import annotations

import msgspec

from gpusched.core.books import Books
from gpusched.core.events import (
    BatchAltered,
    ChangeRequested,
    TermsRequested,
)
from gpusched.core.model import HoldReason, Instant
from gpusched.core.queue import BatchQueue, Entry
from gpusched.core.slices import Slices
from gpusched.core.states import Cancelled, Finished, Held, Queued, Running
from gpusched.core.statuses import WindowVerb, applies
from gpusched.core.terms import differences, with_terms


class Requests:
    """Carries out requests, those that concern many windows slice by slice."""

    def __init__(self, books: Books, slice_windows: int) -> None:
        """`slice_windows`: most windows changed in one turn, unless that is told."""
        self._books = books
        self._slice_windows = slice_windows
        self.slices = Slices(self._apply)

    def change(self, event: ChangeRequested, now: Instant) -> None:
        """Make a change, or as much of it as fits into a turn; it waits behind earlier changes of its batch."""
        batch = self._books.batches.get(event.batch_id)
        if batch is None or (event.label is not None and event.label not in batch.entries):
            return
        if event.label is None and event.verb == "hold":
            if batch.unfinished and batch.held is None:
                self._books.hold(batch, HoldReason(kind="request", text="by request"), now)
                self._books.withdraw(self._active(batch))
            return
        if event.label is None and event.verb == "release" and batch.held is not None:
            self._books.release(batch, now)
        waits = self.slices.ask(batch, event.verb, event.label, now)
        if waits is None:
            self._go_on(batch, self._slice_windows, now)
        else:
            self._books.records.append(waits)

    def make_slice(self, windows: int | None, now: Instant) -> None:
        """Advance the first change of the batch whose turn it is, by at most `windows` windows; None: a slice."""
        if (batch := self.slices.next) is not None:
            self._go_on(batch, windows or self._slice_windows, now)

    def _go_on(self, batch: BatchQueue, windows: int, now: Instant) -> None:
        """Make a slice of a batch's first change."""
        if (record := self.slices.make(batch, self._active(batch), windows, now)) is not None:
            self._books.records.append(record)
        self._books.end_if_done(batch, now)

    def _active(self, batch: BatchQueue) -> list[Entry]:
        return [entry for entry in self._books.active() if entry.key.batch_id == batch.batch.id]

    def change_terms(self, event: TermsRequested, now: Instant) -> None:
        """Give a batch other terms. A new timeout also applies to windows that run, from their start on."""
        queue = self._books.batches.get(event.batch_id)
        if queue is None:
            return
        spec = with_terms(queue.batch.spec, event.terms)
        if not (changes := differences(queue.batch.spec, spec)):
            return
        queue.batch = msgspec.structs.replace(queue.batch, spec=spec)
        self._books.records.append(BatchAltered(batch=queue.batch, changes=changes, at=now.wall))
        for entry in self._active(queue):
            if isinstance(entry.state, Running):
                self._books.limit_time(entry)

    def _apply(self, verb: WindowVerb, entry: Entry, now: Instant) -> bool:
        """Change one window; return whether `verb` has changed it."""
        before = entry.state
        if verb == "hold":
            self._books.hold_ahead(entry, now)
        elif verb == "release":
            self._books.release_ahead(entry, now)
        if not applies(verb, before):
            return False
        match before:
            case Finished(attempts=attempts):
                self._books.reopen(self._books.batches[entry.key.batch_id], now)
                entry.failures = entry.losses = 0
                entry.raised_at = ""
                self._books.requeue(entry, "retried", attempts + 1, "retried by request", now)
            case Held(attempt=attempt) if verb == "release":
                self._books.requeue(entry, "released", attempt, "released by request", now)
            case Queued(attempt=attempt) if verb == "hold":
                self._books.move(entry, "held", Held(attempt=attempt), "held by request", now)
            case Queued(attempt=attempt) | Held(attempt=attempt):
                done = Finished(attempts=attempt - 1, outcome=Cancelled())
                self._books.move(entry, "cancelled", done, "cancelled by request", now)
            case _:
                self._books.stop(entry, "cancelled", "cancelled by request", now)
        return entry.state is not before
