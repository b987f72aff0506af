"""The index of a batch, `<output>/teacher_runs.json`: JSON Lines, one line for each finished window.

It repeats facts of the store, for programs that read files. While a batch runs, lines are appended. The index is
written anew when its batch is accepted, reopened or taken up again, so that a line lost in a crash comes back, and when
somebody has removed or replaced it. A file of its name that is no index is moved aside.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import anyio.lowlevel
import anyio.to_thread
import msgspec

from gpusched import directories, files
from gpusched.config import given_settings, settings_at
from gpusched.core.changes import LARGE
from gpusched.core.events import BatchAccepted, BatchFinished, BatchReopened, WindowMoved
from gpusched.core.model import Batch, BatchSpec, DataNote, DataNotes, WindowKey
from gpusched.core.planning import INDEX
from gpusched.core.states import (
    Cancelled,
    Failed,
    Failure,
    Finished,
    Lost,
    Outcome,
    Reused,
    Skipped,
    Succeeded,
    TimedOut,
)
from gpusched.core.statuses import OUTCOMES, tally
from gpusched.errors import StoreError
from gpusched.store.store import Store, WindowRow
from gpusched.supervisor.followers import News

#: suffix for the name of a file that was moved aside
ASIDE = "not-an-index"
#: bytes of a file's first line that are read to recognise an index
_MOST_BYTES = 4 * 1024 * 1024

#: windows whose lines are gathered in a turn
PAGE_WINDOWS = 200
#: pages of an index after which what has been written is flushed to the disk
_PAGES_FLUSHED = 16

log = logging.getLogger("gpusched.daemon")


class _GivenUp(Exception):
    """An index that is being gathered is out of date."""


class Index:
    """Keeps the index files of all unfinished batches.

    If a file cannot be written (a full disk), the batch goes on, and the file is written anew when it has finished.
    """

    def __init__(self, store: Store, log_path: Callable[[WindowKey, int], Path]) -> None:
        self._store = store
        self._log_path = log_path
        self._files: dict[str, IO[bytes]] = {}
        #: by batch: output directory, and whether to guard against links in its path
        self._outputs: dict[str, tuple[Path, bool]] = {}
        #: by batch: what it asked for, and the settings of its windows by `section.key`, by point
        self._specs: dict[str, BatchSpec] = {}
        self._settings: dict[str, dict[str, dict[str, Any]]] = {}
        self._incomplete: set[str] = set()
        #: see `take_behind`
        self._behind: list[str] = []
        #: by batch: identifies the latest call of `gather`, unless that is to be given up
        self._gathering: dict[str, object] = {}
        #: notes on the data of the batches whose files are open
        self._notes: dict[str, DataNotes] = {}

    def rewrite(self, batch: Batch) -> None:
        """Write the index of a batch from the store, and keep it open for more lines."""
        self._take_in(batch)
        self._rewrite(batch.id)

    def _take_in(self, batch: Batch) -> None:
        self._outputs[batch.id] = Path(batch.output_dir), batch.guarded
        self._specs[batch.id], self._settings[batch.id] = batch.spec, {}

    async def gather(self, batch_id: str) -> None:
        """Write an index anew of which lines are missing or out of date, a page in each turn.

        This is given up if a finished window moves meanwhile: the index is then written when the batch has finished.
        """
        if batch_id not in self._incomplete:
            return
        this = self._gathering[batch_id] = object()
        self._notes.setdefault(batch_id, self._store.notes(batch_id))
        rows = self._store.finished_windows(batch_id)
        with (
            contextlib.suppress(OSError, StoreError, directories.NotOurs, _GivenUp),
            self._opened(batch_id, make=True) as directory,
        ):
            self._make_way(batch_id, directory)
            with files.replacing(INDEX, directory) as file:
                pages = 0
                # A page that is not full is the last one, up to this very turn.
                while len(page := list(map(self._line, islice(rows, PAGE_WINDOWS)))) == PAGE_WINDOWS:
                    file.writelines(page)
                    pages += 1
                    if pages % _PAGES_FLUSHED == 0:  # so that little is left to flush in the last turn
                        file.flush()
                        await anyio.to_thread.run_sync(os.fsync, file.fileno())
                    await anyio.lowlevel.checkpoint()
                    if self._gathering.get(batch_id) is not this:
                        raise _GivenUp
                file.writelines(page)
            self._go_on_with(batch_id, file)

    def take_behind(self) -> list[str]:
        """The batches whose index has to be gathered though they have just been accepted."""
        behind, self._behind = self._behind, []
        return behind

    def follow(self, news: News) -> None:
        match news:
            case BatchAccepted(batch=batch, counts=counts):
                if tally(counts, OUTCOMES) <= LARGE:
                    self.rewrite(batch)
                    return
                self._take_in(batch)
                self._incomplete.add(batch.id)
                if counts.get("queued"):  # otherwise it is gathered when its results have been checked
                    self._behind.append(batch.id)
            case BatchReopened(batch_id=batch_id):
                row = self._store.batch(batch_id)
                if row is not None and sum(row.counts.values()) > LARGE:
                    # The index stays as it is until the batch finishes again: writing it now would take a second.
                    self._close(batch_id)
                    self._incomplete.add(batch_id)
                else:
                    self._rewrite(batch_id)
            case WindowMoved(key=key, old=Finished()):
                # Its line is out of date until the batch has finished.
                self._gathering.pop(key.batch_id, None)
                self._incomplete.add(key.batch_id)
            case WindowMoved(key=key, new=Finished()):
                window = self._store.window(key)
                # The window may have moved on: a retry can be committed together with the end.
                if window is not None and isinstance(window.state, Finished):
                    self._append(key.batch_id, self._line(window))
            case BatchFinished(batch_id=batch_id):
                if batch_id in self._incomplete or self._is_lost(batch_id):
                    self._rewrite(batch_id)
                self._close(batch_id)

    def _line(self, row: WindowRow) -> bytes:
        attempt = row.last_attempt
        log_path = self._log_path(row.key, attempt.attempt) if attempt else None
        notes = self._notes.get(row.key.batch_id, {}).get(row.plan.window.symbol, ())
        log = log_path if log_path is not None and log_path.exists() else None
        point = row.plan.window.point
        parameters = self._specs[row.key.batch_id].points.get(point, {})
        return line(row, log, notes, self._settings_at(row.key.batch_id, point), parameters)

    def _settings_at(self, batch_id: str, point: str) -> dict[str, Any]:
        known = self._settings[batch_id]
        if point not in known:
            spec = self._specs[batch_id]
            known[point] = given_settings(spec.workload, settings_at(spec, point))
        return known[point]

    def _append(self, batch_id: str, text: bytes) -> None:
        file = self._files.get(batch_id)
        if file is None:
            self._incomplete.add(batch_id)
            return
        try:
            file.write(text)
            file.flush()
            removed = os.fstat(file.fileno()).st_nlink == 0
        except OSError:
            self._incomplete.add(batch_id)
            return
        if removed:
            log.warning("the index was removed while its batch ran, and is written anew path=%s", self._path(batch_id))
            self._rewrite(batch_id)

    def _path(self, batch_id: str) -> Path:
        return self._outputs[batch_id][0] / INDEX

    def _opened(self, batch_id: str, *, make: bool) -> AbstractContextManager[int]:
        path, guarded = self._outputs[batch_id]
        return directories.opened_output(path, guarded=guarded, make=make)

    def _is_lost(self, batch_id: str) -> bool:
        """Whether the open index has lost its name, because it was removed or replaced."""
        file = self._files.get(batch_id)
        if file is None:
            return False
        with contextlib.suppress(OSError, directories.NotOurs), self._opened(batch_id, make=False) as directory:
            if directories.same(file.fileno(), INDEX, directory):
                return False
        log.warning("the index was replaced while its batch ran, and is written anew path=%s", self._path(batch_id))
        return True

    def _rewrite(self, batch_id: str) -> None:
        self._notes[batch_id] = self._store.notes(batch_id)
        try:
            with self._opened(batch_id, make=True) as directory:
                self._make_way(batch_id, directory)
                with files.replacing(INDEX, directory) as file:
                    file.writelines(map(self._line, self._store.finished_windows(batch_id)))
            self._go_on_with(batch_id, file)
        except (OSError, directories.NotOurs):
            self._incomplete.add(batch_id)

    def _make_way(self, batch_id: str, directory: int) -> None:
        """Move a file of the index's name aside, unless it is an index."""
        if not _may_be_replaced(directory):
            kept = directories.move_aside(INDEX, directory, ASIDE)
            path = self._path(batch_id).with_name(kept)
            log.warning("another file of the index's name was moved aside path=%s", path)

    def _go_on_with(self, batch_id: str, file: IO[bytes]) -> None:
        """Append further lines to this file, which has all lines up to now."""
        self._close_file(batch_id)
        self._files[batch_id] = file
        self._incomplete.discard(batch_id)

    def _close(self, batch_id: str) -> None:
        self._notes.pop(batch_id, None)
        self._close_file(batch_id)

    def _close_file(self, batch_id: str) -> None:
        self._gathering.pop(batch_id, None)
        file = self._files.pop(batch_id, None)
        if file is not None:
            with contextlib.suppress(OSError), file:
                file.flush()
                os.fsync(file.fileno())

    def close(self) -> None:
        for batch_id in tuple(self._files):
            self._close(batch_id)
        self._gathering.clear()


def remove(output_dir: Path, batch_id: str, *, guarded: bool = False) -> bool:
    """Remove the index if all its lines are of this batch; return whether it did. Raises OSError, NotOurs."""
    try:
        with directories.opened_output(output_dir, guarded=guarded, make=False) as directory:
            with files.regular(INDEX, directory) as file:
                if any(_batch_of(line) != batch_id for line in file):
                    return False
                if not directories.same(file.fileno(), INDEX, directory):
                    return False
            os.unlink(INDEX, dir_fd=directory)
            return True
    except FileNotFoundError:
        return False


def _batch_of(line: bytes) -> str | None:
    try:
        return msgspec.json.decode(line, type=_Line).batch_id
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


class _Line(msgspec.Struct):
    batch_id: str


def _may_be_replaced(directory: int) -> bool:
    """Whether there is no file of the index's name, or it is an index: empty, or with a window in its first line."""
    try:
        with files.regular(INDEX, directory) as file:
            first = file.readline(_MOST_BYTES)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        return not first or {"batch_id", "window_label"} <= msgspec.json.decode(first, type=dict[str, Any]).keys()
    except (msgspec.MsgspecError, RecursionError):
        return False


def line(
    row: WindowRow,
    log: Path | None,
    notes: tuple[DataNote, ...] = (),
    settings: Mapping[str, Any] = MappingProxyType({}),
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """The line of a finished window, for programs that read the index.

    `log` is the log of its last attempt, if there is one; `notes` are about its symbol's data, `settings` those of the
    workload that were given, by `section.key`, and `parameters` those among them that its point of a sweep has set.
    """
    assert isinstance(row.state, Finished)
    window, attempt = row.plan.window, row.last_attempt
    fields: dict[str, Any] = {
        "batch_id": row.key.batch_id,
        "symbol": window.symbol,
        "date_range": {"start": window.start, "end": window.end},
        "window_label": row.key.label,
        **({"point": window.point, "parameters": parameters} if window.point else {}),
        "artifacts_path": None,
        "status": None,
        "metrics": None,
        "sample_counts": None,
        "attempts": row.state.attempts,
        "device": attempt.slot.device_id if attempt else None,
        "slot": attempt.slot.index if attempt else None,
        "started_at": _iso(attempt.started_at or attempt.placed_at) if attempt else None,
        "seconds": 0.0,
        "log": None if log is None else str(log),
    }
    if attempt and attempt.usage:
        fields["peak_memory_bytes"] = attempt.usage.peak_memory_bytes
        fields["device_memory_bytes"] = attempt.usage.device_memory_bytes
    if attempt and attempt.ended_at is not None:
        fields["seconds"] = round(max(0.0, attempt.ended_at - (attempt.started_at or attempt.placed_at)), 6)
    fields |= _ended(row.state.outcome)
    if settings:
        fields["settings"] = dict(settings)
    if notes:
        fields["data_notes"] = notes
    return msgspec.json.encode(fields) + b"\n"


def _ended(outcome: Outcome) -> dict[str, Any]:
    """The fields that depend on how a window ended."""
    match outcome:
        case Succeeded(result=result) | Reused(result=result):
            fields: dict[str, Any] = {
                "status": "success",
                "artifacts_path": result.artifacts_path,
                "metrics": result.metrics,
                "sample_counts": result.sample_counts,
            }
            if result.constant is not None:
                fields["constant"] = result.constant
            if isinstance(outcome, Reused):
                fields |= {"reused": True, "device": result.device}
            return fields
        case Skipped(reason=reason):
            return {"status": "skipped", "skip_reason": reason}
        case Failed(failure=failure) | Lost(failure=failure):
            return {"status": "failed", "error": _error(failure)}
        case TimedOut(seconds=seconds):
            error = {"kind": "timed_out", "message": f"stopped after {seconds:g} s"}
            return {"status": "failed", "error": error}
        case Cancelled():
            return {"status": "cancelled"}


def _error(failure: Failure) -> dict[str, str]:
    return {"kind": failure.kind, "message": failure.message, "traceback": failure.traceback}


def _iso(wall: float) -> str:
    return dt.datetime.fromtimestamp(wall, dt.UTC).isoformat()
