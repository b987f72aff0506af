"""The durable store: batches, the states of their windows, and every move of them, in one sqlite file.

`record` commits the records of one turn of the loop in one transaction, before the supervisor acts on them; after a
crash `unfinished` returns every batch as it was. All calls are synchronous and belong on the thread that opened the
store: a commit is an append to the write-ahead log and one fsync.

A batch that is accepted again replaces its earlier round: its windows, attempts and story begin anew (the attempt logs
and artifacts of the earlier round are files, and stay). Environment variables are never stored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from gpusched.core.changes import Change
from gpusched.core.estimates import Estimate
from gpusched.core.events import BatchRecovered, Record, WindowMoved
from gpusched.core.fastest import Timing
from gpusched.core.model import Batch, DataNotes, HoldReason, PlannedWindow, WindowKey
from gpusched.core.samples import Sample
from gpusched.core.states import State
from gpusched.protocol import AttemptLine, BatchStatus, StoryLine, WindowDetail, WindowLine
from gpusched.store import learned, statements
from gpusched.store.database import Database
from gpusched.store.late_indexes import LateIndexes
from gpusched.store.rows import (
    DeviceRow,
    attempt_row,
    batch_rows,
    decode_batch,
    decode_notes,
    decode_plan,
    decode_samples,
    decode_state,
    ending,
    result_line,
    story_lines,
    window_line,
)
from gpusched.store.sqlite_errors import translated
from gpusched.store.staged import Staged
from gpusched.store.turns import TurnWriter

__all__ = ["FIRST", "DeviceRow", "Place", "Store"]

#: a place in the order of finishing: the story's line that finished a window, and the window's number
Place = tuple[int, int]
Decoded = TypeVar("Decoded")
#: before the first finished window
FIRST: Place = (-1, -1)

_PAGE_WINDOWS = 1000
#: symbols whose notes one answer contains at most
NOTED_SYMBOLS = 5000
#: moves, counted from the latest, that `endings` searches
_RECENT_LINES = 10_000


class Store:
    """An open store; made by `Store.open`. Only one process at a time writes to it."""

    def __init__(self, database: Database) -> None:
        self.path = database.path
        #: the open file; the rows in it are written and read here
        self.database = database
        self._query = database.query
        self._decoding = database.decoding
        self._turns = TurnWriter(database)
        self.staged = Staged(database)
        self.late_indexes = LateIndexes(database)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store at `path`; create it if it does not exist, or bring an older version up to date.

        Raises a subclass of `StoreError`: `StoreLocked`, `StoreUnwritable`, `StoreCorrupt`, `StoreNewer`, `StoreFull`.
        """
        with contextlib.ExitStack() as on_error:
            database = Database.open(path)
            on_error.callback(database.close)
            store = cls(database)
            on_error.pop_all()
        return store

    @classmethod
    def peek(cls, path: Path) -> Self:
        """Open the store at `path` for reading, even while another process writes to it; nothing is written.

        One of an older version is read as it is now. Raises a subclass of `StoreError`.
        """
        return cls(Database.peek(path))

    @property
    def mark(self) -> str:
        """A text that marks the descendants of this process among all processes of the machine.

        It is the number of the lock file: see `Database.mark`.
        """
        return self.database.mark

    def close(self) -> None:
        """Fold the log into the file and let the next process in. Closing twice does nothing."""
        self.database.close()

    def keep_in_place(self) -> bool:
        """Write the store anew if its file was removed while it was open; return whether that was necessary.

        Raises `StoreReplaced` if another file has taken its name, and the errors of `open`.
        """
        return self.database.keep_in_place()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- writing -------------------------------------------------------------------------------------------------------

    def record(
        self,
        records: Sequence[Record],
        learned: Iterable[Estimate] = (),
        histories: Mapping[str, Sequence[Sample]] = {},  # never mutated
    ) -> None:
        """Commit everything, durably, or nothing. After an error the call can be repeated (`StoreFull`: given room).

        Raises `LookupError` for a move of a window that no accepted batch has.
        """
        self._turns.write(records, learned, histories)

    def mark_forgotten(self, batch_id: str, *, results: bool) -> None:
        """Hide a finished batch from all queries; its rows are removed by `remove_forgotten`."""
        with self.database.transaction():
            scope = "results" if results else "records"
            self.database.execute(
                "UPDATE batches SET forgetting = ? WHERE id = ? AND finished_at IS NOT NULL", (scope, batch_id)
            )

    def forgotten(self) -> list[tuple[str, str, bool]]:
        """(batch, output directory, whether its results go too) of the batches that are marked but not removed yet."""
        rows = self._query("SELECT id, output_dir, forgetting FROM batches WHERE forgetting IS NOT NULL")
        return [(batch_id, output_dir, scope == "results") for batch_id, output_dir, scope in rows]

    def remove_forgotten(self, batch_id: str, windows: int) -> int:
        """Remove up to `windows` windows of a marked batch, and the batch with the last one; return their number."""
        with self.database.transaction():
            removed = self.database.execute(statements.REMOVE_FORGOTTEN, (batch_id, windows)).rowcount
            if removed < windows:
                self.database.execute("DELETE FROM batches WHERE id = ? AND forgetting IS NOT NULL", (batch_id,))
        return removed

    def keep_timing(self, timing: Timing) -> None:
        """Keep the timing of a window, in place of an earlier one of the same kind."""
        with translated(self.path):
            self.database.execute(statements.KEEP_TIMING, msgspec.structs.astuple(timing))

    # -- reading -------------------------------------------------------------------------------------------------------

    def unfinished(self) -> Iterator[BatchRecovered]:
        """Every unfinished batch, in the order of acceptance, with all of its windows as last recorded."""
        for (batch_id,) in self._query(statements.TO_TAKE_UP):
            recovered = self.recovered(batch_id)
            if recovered is not None:
                yield recovered

    def recovered(self, batch_id: str, *, windows: bool = True) -> BatchRecovered | None:
        """A batch, finished or not, with all of its windows as last recorded, or without them."""
        for batch, held_kind, held_reason, finished in self._query(statements.RECOVERED, (batch_id,)):
            pending = self._query(statements.CHANGES, (batch_id,))
            with self._decoding(batch_id):
                changes = [
                    msgspec.convert(dict(zip(Change.__struct_fields__, row, strict=True)), Change) for row in pending
                ]
                held = {"kind": held_kind, "text": held_reason}
                return BatchRecovered(
                    batch=decode_batch(batch),
                    windows=tuple(self.states(batch_id)) if windows else (),
                    held=None if held_reason is None else msgspec.convert(held, HoldReason),
                    finished=bool(finished),
                    changes=tuple(changes),
                    losses=dict(self._query(statements.LOSSES, (batch_id,))),
                )
        return None

    def states(self, batch_id: str) -> Iterator[tuple[PlannedWindow, State]]:
        """A batch's windows in the order of submission, as last recorded, read page by page."""
        last = -1
        while rows := self._query(statements.STATES, (batch_id, last, _PAGE_WINDOWS)):
            last = rows[-1][0]
            with self._decoding(batch_id):
                for _, plan, state in rows:
                    yield decode_plan(plan), decode_state(state)

    def batches(self) -> list[BatchStatus]:
        """All batches, in the order of acceptance."""
        with self._decoding("batches"):
            return batch_rows(self._query(f"{statements.BATCHES} ORDER BY number"), self._query(statements.COUNTS))

    def batch(self, batch_id: str) -> BatchStatus | None:
        with self._decoding(batch_id):
            rows = self._query(f"{statements.BATCHES} AND id = ?", (batch_id,))
            counts = self._query(f"{statements.COUNTS} AND batch_id = ?", (batch_id,))
            return next(iter(batch_rows(rows, counts)), None)

    def accepted(self, batch_id: str) -> Batch | None:
        """The batch as it was accepted, with its specification."""
        for (batch,) in self._query("SELECT batch FROM batches WHERE id = ? AND forgetting IS NULL", (batch_id,)):
            with self._decoding(batch_id):
                return decode_batch(batch)
        return None

    def named_like(self, prefix: str, most: int) -> Iterator[Batch]:
        """The last batches whose id begins with `prefix`, the newest first."""
        for (batch,) in self._query(statements.NAMED_LIKE, (len(prefix), prefix, most)):
            with self._decoding(prefix):
                yield decode_batch(batch)

    def client_of(self, batch_id: str) -> tuple[int | None, bool]:
        """`owner` and `guarded` of a batch, also of one that is being forgotten."""
        for (batch,) in self._query("SELECT batch FROM batches WHERE id = ?", (batch_id,)):
            with self._decoding(batch_id):
                accepted = decode_batch(batch)
                return accepted.owner, accepted.guarded
        return None, False

    def owner_of_output(self, output_dir: str) -> int | None:
        """The uid of the client whose batch was the last to write to a directory.

        None if there was no such batch, or its client was root or the daemon's own user.
        """
        query = "SELECT batch FROM batches WHERE output_dir = ? ORDER BY number DESC LIMIT 1"
        for (batch,) in self._query(query, (output_dir,)):
            with self._decoding(output_dir):
                return decode_batch(batch).owner
        return None

    def windows(self, batch_id: str, *, status: str | None = None) -> Iterator[WindowLine]:
        """A batch's windows in the order of submission: all, or those in one state (or outcome, once finished).

        They are read page by page, so that a long listing neither fills the memory nor blocks the event loop: a window
        that moves meanwhile is shown in the state that it has when its page is read.
        """
        query, fixed = (
            (statements.IN_ORDER, (batch_id,)) if status is None else (statements.BY_STATUS, (batch_id, status))
        )
        last = -1
        while rows := self._query(query, (*fixed, last, _PAGE_WINDOWS)):
            last = rows[-1][0]
            yield from (self._decoded(window_line, row)[0] for row in rows)

    def finished_windows(self, batch_id: str) -> Iterator[WindowLine]:
        """A batch's finished windows with their results, in the order of finishing.

        Those that were accepted as finished come first.
        """
        rows, place = self.finished_after(batch_id, FIRST, _PAGE_WINDOWS)
        while rows:
            yield from rows
            rows, place = self.finished_after(batch_id, place, _PAGE_WINDOWS)

    def finished_after(self, batch_id: str, place: Place, windows: int) -> tuple[list[WindowLine], Place]:
        """The next `windows` of a batch's finished windows after a place in their order, and the place of the last."""
        rows = self._query(statements.BY_FINISHING, (batch_id, *place, windows))
        return [self._decoded(result_line, row) for row in rows], (rows[-1][1], rows[-1][0]) if rows else place

    def endings(self, batch_id: str | None, windows: int, *, failed: bool = False) -> list[WindowMoved]:
        """The last moves by which windows left their slots for good (`failed`: by which they failed), the latest last.

        At most `windows` moves, of one batch or of all (None), among the last `_RECENT_LINES` moves of all windows.
        """
        arguments = {"batch_id": batch_id, "windows": windows, "failed": failed, "lines": _RECENT_LINES}
        return [self._decoded(ending, row) for row in reversed(self._query(statements.ENDINGS, arguments))]

    def state(self, key: WindowKey) -> State | None:
        rows = self._query("SELECT state FROM windows WHERE batch_id = ? AND label = ?", (key.batch_id, key.label))
        with self._decoding(str(key)):
            return decode_state(rows[0][0]) if rows else None

    def window(self, key: WindowKey) -> WindowDetail | None:
        """Everything that is known of a window."""
        batch = self.accepted(key.batch_id)
        rows = self._query(statements.ONE_WINDOW, (key.batch_id, key.label))
        if batch is None or not rows:
            return None
        line, plan, state = self._decoded(window_line, rows[0])
        return WindowDetail(
            window=line,
            plan=plan,
            state=state,
            story=tuple(self.story(key)),
            attempts=tuple(self.attempts(key)),
            device=batch.device,
            choice=batch.choice,
            notes=self.notes(key.batch_id, symbol=line.symbol).get(line.symbol, ()),
            parameters=batch.spec.points.get(line.point, {}),
        )

    def labels(self, batch_id: str, symbol: str | None, most: int) -> list[str]:
        """The labels of the first `most` windows of a batch, or of one symbol of it."""
        query = "SELECT label FROM windows WHERE batch_id = ? AND coalesce(symbol = ?, 1) ORDER BY id LIMIT ?"
        return [label for (label,) in self._query(query, (batch_id, symbol, most))]

    def story(self, key: WindowKey) -> list[StoryLine]:
        """Every move of a window, and every change of its batch's terms until the window was finished, in order.

        Empty for a window that has not moved yet, or that does not exist.
        """
        rows = self._query(statements.STORY, {"batch_id": key.batch_id, "label": key.label})
        with self._decoding(str(key)):
            return story_lines(rows)

    def attempts(self, key: WindowKey) -> list[AttemptLine]:
        """Every launch of a window, in order."""
        rows = self._query(
            f"SELECT {statements.ATTEMPT_COLUMNS} FROM attempts a JOIN windows w ON w.id = a.window"  # noqa: S608
            " WHERE w.batch_id = ? AND w.label = ? ORDER BY a.attempt",
            (key.batch_id, key.label),
        )
        with self._decoding(str(key)):
            return [attempt_row(row) for row in rows]

    def devices(self) -> list[DeviceRow]:
        """The devices that the pool ever opened or closed, as last recorded."""
        rows = self._query("SELECT id, health, reason, at FROM devices ORDER BY id")
        with self._decoding("devices"):
            return [msgspec.convert(row, DeviceRow) for row in rows]

    def history(self, batch_id: str) -> list[Sample]:
        """Readings of the devices while windows of the batch ran: by device, in the order of time."""
        for (samples,) in self._query("SELECT samples FROM histories WHERE batch_id = ?", (batch_id,)):
            with self._decoding(batch_id):
                return decode_samples(samples)
        return []

    def notes(self, batch_id: str, *, symbol: str | None = None) -> DataNotes:
        """Notes on the data of a batch: of one symbol, or of the first `NOTED_SYMBOLS` symbols that have any."""
        rows = self._query(statements.NOTES, {"batch_id": batch_id, "symbol": symbol, "symbols": NOTED_SYMBOLS})
        with self._decoding(batch_id):
            return {name: decode_notes(notes) for name, notes in rows}

    def learned(self) -> list[Estimate]:
        """The costs of windows, for `Estimates`."""
        with self._decoding("learned"):
            return learned.learned(self.database)

    def timings(self, workload: str, settings: str) -> list[Timing]:
        """The timings of windows of a workload with these settings."""
        with self._decoding("timings"):
            return learned.timings(self.database, workload, settings)

    def _decoded(self, decode: Callable[[Sequence[Any]], Decoded], row: Sequence[Any]) -> Decoded:
        """A row of `statements.WINDOW_COLUMNS` as one of the functions of `rows` has it."""
        with self._decoding(f"{row[2]}/{row[3]}"):
            return decode(row)
