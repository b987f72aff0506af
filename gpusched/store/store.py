"""The durable store: batches, the states of their windows, and every move of them, in one sqlite file.

`record` commits the records of one turn of the loop in one transaction, before the supervisor acts on them; after a
crash `unfinished` returns every batch as it was. All calls are synchronous and belong on the thread that opened the
store: a commit is an append to the write-ahead log and one fsync.

A batch that is accepted again replaces its earlier round: its windows, attempts and story begin anew (the attempt logs
and artifacts of the earlier round are files, and stay). Environment variables are never stored.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from gpusched import files
from gpusched.core.changes import Change
from gpusched.core.estimates import Estimate
from gpusched.core.events import (
    BatchAccepted,
    BatchAltered,
    BatchFinished,
    BatchHeld,
    BatchRecovered,
    BatchReleased,
    BatchReopened,
    ChangeAdvanced,
    ChangeMade,
    DeviceChanged,
    DeviceTuned,
    Record,
    WindowMoved,
    WindowsAdded,
)
from gpusched.core.fastest import Timing
from gpusched.core.model import (
    Active,
    Batch,
    DataNotes,
    Finished,
    PlannedWindow,
    Running,
    Starting,
    State,
    Stopping,
    WindowKey,
)
from gpusched.core.samples import Sample
from gpusched.errors import (
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreNewer,
    StoreReplaced,
    StoreUnlockable,
    StoreUnwritable,
)
from gpusched.store import statements
from gpusched.store.rows import (
    AttemptRow,
    BatchRow,
    DeviceRow,
    StoryLine,
    WindowRow,
    attempt_of,
    attempt_row,
    batch_row,
    bounded,
    decode_batch,
    decode_notes,
    decode_plan,
    decode_samples,
    decode_state,
    ending_columns,
    status_of,
    to_json,
)

__all__ = ["AttemptRow", "BatchRow", "DeviceRow", "Store", "StoryLine", "WindowRow"]

T = TypeVar("T")

#: "gpus" in ASCII: distinguishes a store from any other sqlite file
APPLICATION_ID = 0x67707573
#: the n-th script takes a database from version n - 1 to n
MIGRATIONS = ("1.sql", "2.sql", "3.sql", "4.sql")
VERSION = len(MIGRATIONS)

_BUSY_TIMEOUT_MS = 2000
#: files up to this size are checked page by page when opened (60 ms); damage to larger ones shows when it is read
_CHECK_BYTES = 64 * 1024 * 1024
_PAGE_WINDOWS = 1000
#: symbols whose notes one answer contains at most
NOTED_SYMBOLS = 5000
#: moves, counted from the latest, that `endings` searches
_RECENT_LINES = 10_000
#: the log is cut back to this size after a large batch
_LOG_BYTES = 16 * 1024 * 1024


class Store:
    """An open store; made by `Store.open`. Only one process at a time writes to it."""

    def __init__(self, path: Path, lock_fd: int, connection: sqlite3.Connection) -> None:
        self.path = path
        self._lock_fd = lock_fd
        self._connection = connection
        self._execute = connection.execute
        self._syncs = True
        self._status = path.stat()
        #: number of the last line of all stories
        self._line: int = self._query("SELECT coalesce(max(id), 0) FROM story")[0][0]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store at `path`; create it if it does not exist, or bring an older version up to date.

        Raises a subclass of `StoreError`: `StoreLocked`, `StoreUnwritable`, `StoreCorrupt`, `StoreNewer`, `StoreFull`.
        """
        with contextlib.ExitStack() as on_error, _translated(path):
            files.make_private_directory(path.parent)
            lock_fd = _lock(path)
            on_error.callback(os.close, lock_fd)
            _make_private(path)
            connection = _connect(path)
            on_error.callback(connection.close)
            store = cls(path, lock_fd, connection)
            on_error.pop_all()
        return store

    @staticmethod
    def peek_learned(path: Path) -> list[Estimate]:
        """Read the estimates of the store at `path`; none if it does not exist or cannot be read. Changes nothing."""
        return _peeked(path, lambda execute: _learned(execute(_LEARNED).fetchall()))

    @staticmethod
    def peek_timings(path: Path, workload: str, settings: str) -> list[Timing]:
        """Read the timings of a workload with these settings, as `peek_learned` does."""
        return _peeked(path, lambda execute: _timings(execute(statements.TIMINGS, (workload, settings)).fetchall()))

    @property
    def mark(self) -> str:
        """A text that marks the descendants of this process among all processes of the machine.

        It is the device and inode number of the lock file: while a process has that open, no other file has the number.
        """
        status = os.fstat(self._lock_fd)
        return f"{status.st_dev:x}-{status.st_ino:x}"

    def close(self) -> None:
        """Fold the log into the file and let the next process in. Closing twice does nothing."""
        if self._lock_fd < 0:
            return
        self._connection.close()
        if _has_status(os.fstat(self._lock_fd), _lock_path(self.path)) and not _has_status(self._status, self.path):
            _remove_log(self.path)
        os.close(self._lock_fd)
        self._lock_fd = -1

    def keep_in_place(self) -> bool:
        """Write the store anew if its file was removed while it was open; return whether that was necessary.

        Raises `StoreReplaced` if another file has taken its name, and the errors of `open`.
        """
        with _translated(self.path):
            try:
                if os.path.samestat(self._status, self.path.stat()):
                    return False
            except FileNotFoundError:
                self._restore()
                return True
        raise StoreReplaced(path=self.path)

    def _restore(self) -> None:
        """Copy all commits from the open file, which no longer has a name, to a new one at the old path."""
        files.make_private_directory(self.path.parent)
        if not _has_status(os.fstat(self._lock_fd), _lock_path(self.path)):
            lock_fd = _lock(self.path)
            os.close(self._lock_fd)
            self._lock_fd = lock_fd
        copy = self.path.with_name(f".{self.path.name}.restored")
        copy.unlink(missing_ok=True)
        _make_private(copy)
        with contextlib.closing(sqlite3.connect(copy)) as target:
            self._connection.backup(target)
        copy.rename(self.path)
        self._connection.close()
        _remove_log(self.path)
        self._status, self._connection = self.path.stat(), _connect(self.path)
        self._execute, self._syncs = self._connection.execute, True

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
        with self._transaction(sync=bool(histories) or not records or not all(map(_may_be_late, records))):
            for record in records:
                self._write(record)
            for estimate in learned:
                self._execute(statements.LEARN, msgspec.structs.astuple(estimate))
            for batch_id, samples in histories.items():
                self._execute(statements.KEEP_HISTORY, (to_json(samples), batch_id))

    @contextlib.contextmanager
    def _transaction(self, *, sync: bool = True) -> Iterator[None]:
        """Commit the statements executed in the block, all or none of them."""
        line = self._line
        with _translated(self.path):
            self._sync(sync)
            try:
                self._execute("BEGIN IMMEDIATE")
                yield
                self._execute("COMMIT")
            except BaseException:
                self._line = line
                # sqlite has already rolled back after some errors
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")
                raise

    def _sync(self, now: bool) -> None:
        """Set whether transactions wait for the disk.

        One that does not wait survives a kill of the process, but a loss of power only once a later one has waited.
        """
        if now != self._syncs:
            self._execute(f"PRAGMA synchronous = {'FULL' if now else 'NORMAL'}")
            self._syncs = now

    def learn(self, learned: Iterable[Estimate]) -> None:
        """Commit updated estimates outside of any turn; within one, `record` commits them at no extra cost."""
        self.record((), learned)

    def mark_forgotten(self, batch_id: str, *, results: bool) -> None:
        """Hide a finished batch from all queries; its rows are removed by `remove_forgotten`."""
        with self._transaction():
            scope = "results" if results else "records"
            self._execute(
                "UPDATE batches SET forgetting = ? WHERE id = ? AND finished_at IS NOT NULL", (scope, batch_id)
            )

    def forgotten(self) -> list[tuple[str, str, bool]]:
        """(batch, output directory, whether its results go too) of the batches that are marked but not removed yet."""
        rows = self._query("SELECT id, output_dir, forgetting FROM batches WHERE forgetting IS NOT NULL")
        return [(batch_id, output_dir, scope == "results") for batch_id, output_dir, scope in rows]

    def remove_forgotten(self, batch_id: str, windows: int) -> int:
        """Remove up to `windows` windows of a marked batch, and the batch with the last one; return their number."""
        with self._transaction():
            removed = self._execute(statements.REMOVE_FORGOTTEN, (batch_id, windows)).rowcount
            if removed < windows:
                self._execute("DELETE FROM batches WHERE id = ? AND forgetting IS NOT NULL", (batch_id,))
        return removed

    def keep_timing(self, timing: Timing) -> None:
        """Keep the timing of a window, in place of an earlier one of the same kind."""
        with _translated(self.path):
            self._execute(statements.KEEP_TIMING, msgspec.structs.astuple(timing))

    def _write(self, record: Record) -> None:
        match record:
            case WindowMoved():
                self._move(record)
            case WindowsAdded():
                self._add(record)
            case BatchAccepted():
                self._accept(record)
            case BatchHeld():
                self._execute("UPDATE batches SET held_reason = ? WHERE id = ?", (record.reason, record.batch_id))
            case BatchReleased():
                self._execute("UPDATE batches SET held_reason = NULL WHERE id = ?", (record.batch_id,))
            case BatchAltered():
                self._alter(record)
            case BatchReopened():
                self._execute("UPDATE batches SET finished_at = NULL WHERE id = ?", (record.batch_id,))
            case ChangeAdvanced(batch_id=batch_id, change=change):
                self._execute(statements.ADVANCE, (batch_id, *msgspec.structs.astuple(change)))
            case ChangeMade(batch_id=batch_id, change=change, recorded=recorded):
                if recorded:
                    row = (batch_id, change.number)
                    self._execute("DELETE FROM changes WHERE batch_id = ? AND number = ?", row)
            case BatchFinished():
                self._execute("UPDATE batches SET finished_at = ? WHERE id = ?", (record.at, record.batch_id))
            case DeviceChanged():
                device = (record.device_id, record.health, record.reason, record.at)
                self._execute("INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?)", device)
            case DeviceTuned():
                pass  # not kept: the next start tunes anew, since other programs may use the machine by then

    def _add(self, record: WindowsAdded) -> None:
        if record.first:
            self._begin_batch(record.batch, record.at)
            # Marked as being forgotten, it is hidden until it is accepted, and removed after a crash.
            self._execute("UPDATE batches SET forgetting = 'records' WHERE id = ?", (record.batch.id,))
        self._insert(record.batch.id, record.windows, record.at)

    def _accept(self, record: BatchAccepted) -> None:
        batch = record.batch
        if record.added == 0:
            self._begin_batch(batch, record.at)
        self._insert(batch.id, record.windows[record.added :], record.at)
        self._execute("UPDATE batches SET accepted_at = ?, forgetting = NULL WHERE id = ?", (record.at, batch.id))
        self._execute(statements.COUNT, (batch.id,))
        self._connection.executemany(
            "INSERT INTO notes VALUES (?, ?, ?, ?)",
            [(batch.id, n, symbol, to_json(notes)) for n, (symbol, notes) in enumerate(record.notes.items())],
        )

    def _begin_batch(self, batch: Batch, at: float) -> None:
        """Insert a batch, in the place of its earlier round if there is one."""
        self._execute("DELETE FROM batches WHERE id = ?", (batch.id,))
        self._execute(statements.ACCEPT, (batch.id, to_json(batch), batch.output_dir, batch.submitted_at, at))

    def _insert(self, batch_id: str, windows: Iterable[tuple[PlannedWindow, State]], at: float) -> None:
        rows = (
            (
                *(batch_id, plan.window.label, plan.window.symbol, status_of(state), attempt_of(state), at),
                *(0 if isinstance(state, Finished) else None, to_json(plan), to_json(bounded(state))),
            )
            for plan, state in windows
        )
        self._connection.executemany(statements.INSERT_WINDOW, rows)

    def _alter(self, record: BatchAltered) -> None:
        batch = record.batch
        self._execute("UPDATE batches SET batch = ? WHERE id = ?", (to_json(batch), batch.id))
        line = (batch.id, self._line, record.at, "; ".join(record.changes))
        self._execute("INSERT INTO batch_story VALUES (?, ?, ?, ?)", line)

    def _move(self, record: WindowMoved) -> None:
        old, new, at, key = record.old, record.new, record.at, record.key
        self._line += 1
        status, attempt = status_of(new), attempt_of(new)
        finishing = self._line if isinstance(new, Finished) else None
        moved = self._execute(
            statements.MOVE, (status, attempt, at, finishing, to_json(bounded(new)), key.batch_id, key.label)
        ).fetchall()
        if not moved:
            raise LookupError(f"{key}: the store has no such window")
        ((window,),) = moved
        self._execute(statements.TELL, (self._line, window, at, status_of(old), status, attempt, record.reason))
        match new:
            case Starting():
                self._execute(statements.PLACE, (window, attempt, new.slot.index, new.slot.device_id, at))
            case Running():
                self._execute(statements.START, (new.pid, new.started_at, window, attempt))
            case Stopping(pid=int(pid)) if not isinstance(old, Running) and getattr(old, "pid", None) is None:
                self._execute(statements.START, (pid, at, window, attempt))
            case _ if isinstance(old, Active) and not isinstance(new, Active):
                self._execute(statements.END, (*ending_columns(record), window, old.attempt))

    # -- reading -------------------------------------------------------------------------------------------------------

    def unfinished(self) -> Iterator[BatchRecovered]:
        """Every unfinished batch, in the order of acceptance, with all of its windows as last recorded."""
        for (batch_id,) in self._query(statements.UNFINISHED):
            recovered = self.recovered(batch_id)
            if recovered is not None:
                yield recovered

    def recovered(self, batch_id: str) -> BatchRecovered | None:
        """A batch, finished or not, with all of its windows as last recorded."""
        about = "SELECT batch, held_reason, finished_at IS NOT NULL FROM batches WHERE id = ? AND forgetting IS NULL"
        for batch, held_reason, finished in self._query(about, (batch_id,)):
            rows = self._query("SELECT plan, state FROM windows WHERE batch_id = ? ORDER BY id", (batch_id,))
            pending = self._query(statements.CHANGES, (batch_id,))
            changes = [Change(**dict(zip(Change.__struct_fields__, row, strict=True))) for row in pending]
            with self._decoding(batch_id):
                return BatchRecovered(
                    batch=decode_batch(batch),
                    windows=tuple([(decode_plan(plan), decode_state(state)) for plan, state in rows]),
                    held_reason=held_reason,
                    finished=bool(finished),
                    changes=tuple(changes),
                    losses=dict(self._query(statements.LOSSES, (batch_id,))),
                )
        return None

    def batches(self) -> list[BatchRow]:
        """All batches, in the order of acceptance."""
        counts: dict[str, dict[str, int]] = {}
        for batch_id, status, windows in self._query("SELECT batch_id, status, windows FROM counts WHERE windows > 0"):
            counts.setdefault(batch_id, {})[status] = windows
        return [batch_row(row, counts.get(row[0], {})) for row in self._query(f"{statements.BATCHES} ORDER BY number")]

    def batch(self, batch_id: str) -> BatchRow | None:
        for row in self._query(f"{statements.BATCHES} AND id = ?", (batch_id,)):
            counts = self._query("SELECT status, windows FROM counts WHERE batch_id = ? AND windows > 0", (batch_id,))
            return batch_row(row, dict(counts))
        return None

    def accepted(self, batch_id: str) -> Batch | None:
        """The batch as it was accepted, with its specification."""
        for (batch,) in self._query("SELECT batch FROM batches WHERE id = ? AND forgetting IS NULL", (batch_id,)):
            with self._decoding(batch_id):
                return decode_batch(batch)
        return None

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

    def windows(self, batch_id: str, *, status: str | None = None) -> Iterator[WindowRow]:
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
            yield from map(self._window_row, rows)

    def finished_windows(self, batch_id: str) -> Iterator[WindowRow]:
        """A batch's finished windows in the order of finishing; those that were accepted as finished come first."""
        last = (-1, -1)
        while rows := self._query(statements.BY_FINISHING, (batch_id, *last, _PAGE_WINDOWS)):
            last = (rows[-1][1], rows[-1][0])
            yield from map(self._window_row, rows)

    def endings(self, batch_id: str | None, windows: int, *, failed: bool = False) -> list[WindowMoved]:
        """The last moves by which windows left their slots for good (`failed`: by which they failed), the latest last.

        At most `windows` moves, of one batch or of all (None), among the last `_RECENT_LINES` moves of all windows.
        """
        arguments = {"batch_id": batch_id, "windows": windows, "failed": failed, "lines": _RECENT_LINES}
        return [self._ending(row) for row in reversed(self._query(statements.ENDINGS, arguments))]

    def _ending(self, row: tuple[Any, ...]) -> WindowMoved:
        *columns, reason = row
        window = self._window_row(tuple(columns))
        launch = window.last_attempt
        assert launch is not None
        old: State = Starting(attempt=launch.attempt, slot=launch.slot)
        if launch.pid is not None and launch.started_at is not None:
            old = Running(attempt=launch.attempt, slot=launch.slot, pid=launch.pid, started_at=launch.started_at)
        return WindowMoved(key=window.key, old=old, new=window.state, reason=reason, at=window.moved_at)

    def window(self, key: WindowKey) -> WindowRow | None:
        rows = self._query(statements.ONE_WINDOW, (key.batch_id, key.label))
        return self._window_row(rows[0]) if rows else None

    def story(self, key: WindowKey) -> list[StoryLine]:
        """Every move of a window, and every change of its batch's terms until the window was finished, in order.

        Empty for a window that has not moved yet, or that does not exist.
        """
        lines: list[StoryLine] = []
        state, attempt = "queued", 1
        for at, old, new, number, reason in self._query(
            statements.STORY, {"batch_id": key.batch_id, "label": key.label}
        ):
            if new is not None:
                state, attempt = new, number
            lines.append(StoryLine(at=at, old=old or state, new=state, attempt=attempt, reason=reason))
        return lines

    def attempts(self, key: WindowKey) -> list[AttemptRow]:
        """Every launch of a window, in order."""
        rows = self._query(
            f"SELECT {statements.ATTEMPT_COLUMNS} FROM attempts a JOIN windows w ON w.id = a.window"  # noqa: S608
            " WHERE w.batch_id = ? AND w.label = ? ORDER BY a.attempt",
            (key.batch_id, key.label),
        )
        return [attempt_row(row) for row in rows]

    def devices(self) -> list[DeviceRow]:
        """The devices that the pool ever opened or closed, as last recorded."""
        rows = self._query("SELECT id, health, reason, at FROM devices ORDER BY id")
        return [DeviceRow(id=id_, health=health, reason=reason, at=at) for id_, health, reason, at in rows]

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
        return _learned(self._query(_LEARNED))

    def timings(self, workload: str, settings: str) -> list[Timing]:
        """The timings of windows of a workload with these settings."""
        return _timings(self._query(statements.TIMINGS, (workload, settings)))

    def _query(self, sql: str, arguments: tuple[object, ...] | Mapping[str, object] = ()) -> list[Any]:
        with _translated(self.path):
            return self._execute(sql, arguments).fetchall()

    def _window_row(self, row: tuple[Any, ...]) -> WindowRow:
        _, _, batch_id, label, plan, state, moved_at, *attempt = row
        key = WindowKey(batch_id, label)
        with self._decoding(str(key)):
            return WindowRow(
                key=key,
                plan=decode_plan(plan),
                state=decode_state(state),
                moved_at=moved_at,
                last_attempt=None if attempt[0] is None else attempt_row(attempt),
            )

    @contextlib.contextmanager
    def _decoding(self, name: str) -> Iterator[None]:
        """Turn errors of decoding into `StoreCorrupt`; `name` says of which row."""
        try:
            yield
        except msgspec.MsgspecError as error:
            raise StoreCorrupt(path=self.path, cause=f"{name}: {error}") from error


_LEARNED = "SELECT * FROM learned ORDER BY workload, device_type, bucket"


def _make_private(path: Path) -> None:
    """Create the file for its owner only; closed before sqlite opens it, since a close would drop sqlite's locks."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.closing(os.fdopen(fd, "r+b")):
        os.fchmod(fd, 0o600)  # sqlite gives the same mode to -wal and -shm


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _has_status(status: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(status, path.stat())
    except OSError:
        return False


def _remove_log(path: Path) -> None:
    """Remove the log files of a store that has lost its name: sqlite would apply them to the next file of that name."""
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).unlink()


def _lock(path: Path) -> int:
    try:
        return files.lock(_lock_path(path))
    except files.Locked as locked:
        raise StoreLocked(path=path, holder=locked.holder) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise StoreUnlockable(path=path, cause=error.strerror) from error


def _may_be_late(record: Record) -> bool:
    """Whether a loss of power may lose the record: nothing is done because of it, and a restart ends up as well.

    A restart treats a window that was starting like one that was running, and resumes a change where it last stood.
    """
    match record:
        case WindowMoved(old=old, new=new):
            return isinstance(new, Running) or (not isinstance(old, Active) and not isinstance(new, Active))
        case ChangeAdvanced(recorded=recorded):
            return recorded
        case WindowsAdded():
            return True
        case _:
            return False


def _peeked(path: Path, read: Callable[[Callable[..., Any]], list[T]]) -> list[T]:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return read(connection.execute)
    except (sqlite3.Error, TypeError, ValueError):
        return []


def _timings(rows: Iterable[tuple[Any, ...]]) -> list[Timing]:
    named = (dict(zip(Timing.__struct_fields__, row, strict=True)) for row in rows)
    return [msgspec.convert(fields, Timing, strict=False) for fields in named]


def _learned(rows: Iterable[tuple[Any, ...]]) -> list[Estimate]:
    return [Estimate(**dict(zip(Estimate.__struct_fields__, row, strict=False))) for row in rows]


# -- opening -----------------------------------------------------------------------------------------------------------


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is a sound store, and bring it to this version."""
    execute = connection.execute
    execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    ((application_id,),) = execute("PRAGMA application_id").fetchall()
    ((version,),) = execute("PRAGMA user_version").fetchall()
    ((tables,),) = execute("SELECT count(*) FROM sqlite_schema").fetchall()
    if tables and application_id != APPLICATION_ID:
        raise StoreCorrupt(path=path, cause="it is a database of another program")
    if version > VERSION:
        raise StoreNewer(path=path, version=version, supported=VERSION)
    execute("PRAGMA journal_mode = WAL")
    execute("PRAGMA synchronous = FULL")
    execute("PRAGMA foreign_keys = ON")
    execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    if path.stat().st_size <= _CHECK_BYTES:
        ((finding, *_), *_) = execute("PRAGMA quick_check(1)").fetchall()
        if finding != "ok":
            raise StoreCorrupt(path=path, cause=finding)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        sql = (Path(__file__).parent / "migrations" / script).read_text()
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {sql}; PRAGMA application_id = {APPLICATION_ID};"
                f" PRAGMA user_version = {number}; COMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                execute("ROLLBACK")
            raise


# -- errors -----------------------------------------------------------------------------------------------------------

#: sqlite's codes for a write that did not fit: out of space, over quota, larger than the limit on file sizes
_NO_ROOM = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
#: errors of flock on file systems without locks, as some network file systems are
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_NO_TEXT = "it holds bytes where text should be"


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn errors of sqlite and the operating system into the catalogue's; others are bugs, and pass through."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code in _NO_ROOM:
            raise StoreFull(path=path, cause=error) from error
        if code == sqlite3.SQLITE_IOERR_SHORT_READ:
            raise StoreCorrupt(path=path, cause="it is truncated: shorter than its header says") from error
        if str(error).startswith("Could not decode to UTF-8"):  # Python's own error, without a code
            raise StoreCorrupt(path=path, cause=_NO_TEXT) from error
        match code & 0xFF:
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                raise StoreCorrupt(path=path, cause=error) from error
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                raise StoreLocked(path=path, holder="another program that reads or writes it") from error
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_IOERR:
                raise StoreUnwritable(path=path, cause=error) from error
        raise
    except UnicodeDecodeError as error:  # the same damage, where the message cannot even quote the bytes
        raise StoreCorrupt(path=path, cause=_NO_TEXT) from error
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StoreFull(path=path, cause=cause) from error
        raise StoreUnwritable(path=path, cause=cause) from error
