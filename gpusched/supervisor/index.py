"""The index of a batch, `<output>/teacher_runs.json`: JSON Lines, one line for each finished window.

It repeats facts of the store, for programs that read files. While a batch runs, lines are appended at the end of each
turn, from where the last one had come in the order of finishing, so that no window has two of them. The index is
written anew when its batch is accepted, reopened or taken up again, so that a line lost in a crash comes back, and when
somebody has removed or replaced it. One that cannot be written (a full disk) is *late* when its batch has finished: the
store remembers that until it is written. A file of its name that is no index is moved aside.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import anyio.lowlevel
import anyio.to_thread
import msgspec

from gpusched import directories, files
from gpusched.config import given_settings, settings_at
from gpusched.core.changes import LARGE, Change
from gpusched.core.events import (
    BatchAccepted,
    BatchFinished,
    BatchReopened,
    ChangeAdvanced,
    ChangeMade,
    WindowMoved,
)
from gpusched.core.model import Batch, BatchSpec, DataNotes, WindowKey
from gpusched.core.planning import INDEX
from gpusched.core.states import Finished
from gpusched.core.statuses import OUTCOMES, tally
from gpusched.engines.condition import Condition
from gpusched.errors import StoreError
from gpusched.protocol import WindowLine
from gpusched.store.store import FIRST, Place, Store
from gpusched.supervisor.followers import News, TurnEnded
from gpusched.supervisor.index_line import line

#: suffix for the name of a file that was moved aside
ASIDE = "not-an-index"
#: bytes of a file's first line that are read to recognise an index
_MOST_BYTES = 4 * 1024 * 1024

#: windows whose lines are gathered in a turn, and read at a time
PAGE_WINDOWS = 200
#: pages of an index after which what has been written is flushed to the disk
_PAGES_FLUSHED = 16
#: seconds between attempts to write a late index
RETRY_S = 5.0

log = logging.getLogger("gpusched.daemon")


class _GivenUp(Exception):
    """An index that is being gathered is out of date."""


@dataclass
class _Lines:
    """An index being written: it has the lines of all windows that finished up to `place`."""

    file: IO[bytes]
    place: Place = FIRST


class Index:
    """Keeps the index files of all unfinished batches.

    If a file cannot be written, the batch goes on, and the file is written anew when it has finished, or later.
    """

    def __init__(self, store: Store, log_path: Callable[[WindowKey, int], Path], condition: Condition) -> None:
        self._store = store
        self._log_path = log_path
        self._condition = condition
        #: monotonic instant at which to write late ones; None: there are none. The last supervisor may have left some.
        self.late_at: float | None = 0.0
        #: paths that the condition was told of
        self._told: set[str] = set()
        self._open: dict[str, _Lines] = {}
        #: batches with windows that have finished in this turn
        self._moved: set[str] = set()
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
        self.take_in(batch)
        self._rewrite(batch.id)

    def take_in(self, batch: Batch) -> None:
        """Know a batch, whose index is written later."""
        self._outputs[batch.id] = Path(batch.output_dir), batch.guarded
        self._specs[batch.id], self._settings[batch.id] = batch.spec, {}

    async def gather(self, batch_id: str) -> None:
        """Write an index anew that has missing or outdated lines, a page in each turn.

        This is given up if a finished window moves meanwhile: the index is then written when the batch has finished.
        """
        if batch_id not in self._incomplete:
            return
        this = self._gathering[batch_id] = object()
        self._notes.setdefault(batch_id, self._store.notes(batch_id))
        with (
            contextlib.suppress(OSError, StoreError, directories.NotOurs, _GivenUp),
            self._opened(batch_id, make=True) as directory,
        ):
            self._make_way(batch_id, directory)
            with files.replacing(INDEX, directory) as file:
                lines, pages = _Lines(file), 0
                while self._add_page(batch_id, lines):
                    pages += 1
                    if pages % _PAGES_FLUSHED == 0:  # so that little is left to flush in the last turn
                        file.flush()
                        await anyio.to_thread.run_sync(os.fsync, file.fileno())
                    await anyio.lowlevel.checkpoint()
                    if self._gathering.get(batch_id) is not this:
                        raise _GivenUp
            self._go_on_with(batch_id, lines)

    def take_late(self) -> bool:
        """Whether it is time to call `gather_late`."""
        if self.late_at is None or self.late_at > time.monotonic():
            return False
        self.late_at = None
        return True

    async def gather_late(self) -> None:
        """Write the late indexes. Those that cannot be written yet stay late."""
        try:
            late = [batch for batch in self._store.late_indexes.batches() if not self._is_taken(batch)]
            for path in self._told.difference(str(Path(batch.output_dir, INDEX)) for batch in late):
                self._clear(path)
            for batch in late:
                self.take_in(batch)
                self._incomplete.add(batch.id)
                await self.gather(batch.id)
                if batch in self._store.late_indexes.batches():  # it may have been reopened or forgotten meanwhile
                    self._finish(batch.id)
        except StoreError:
            self.late_at = time.monotonic() + RETRY_S

    def take_behind(self) -> list[str]:
        """The batches whose index has to be gathered though they have just been accepted."""
        behind, self._behind = self._behind, []
        return behind

    def follow(self, news: News) -> None:
        match news:
            case WindowMoved(key=key, old=old, new=new):
                if type(old) is Finished:
                    # Its line is out of date until the batch has finished.
                    self._gathering.pop(key.batch_id, None)
                    self._incomplete.add(key.batch_id)
                elif type(new) is Finished:
                    self._moved.add(key.batch_id)
            case TurnEnded():
                while self._moved:
                    self._append(self._moved.pop())
            case BatchAccepted(batch=batch, counts=counts):
                if tally(counts, OUTCOMES) <= LARGE:
                    self.rewrite(batch)
                    return
                self.take_in(batch)
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
            case ChangeAdvanced(batch_id=batch_id, change=Change(verb="cancel", label=None)):
                # Too many lines to append them one by one: they are gathered once all windows are cancelled.
                self._close_file(batch_id)
                self._incomplete.add(batch_id)
            case ChangeMade(batch_id=batch_id, change=Change(verb="cancel")) if batch_id in self._incomplete:
                self._behind.append(batch_id)
            case BatchFinished(batch_id=batch_id):
                if batch_id in self._moved:
                    self._moved.remove(batch_id)
                    self._append(batch_id)
                if batch_id in self._incomplete or self._is_lost(batch_id):
                    self._rewrite(batch_id)
                self._finish(batch_id)

    def _line(self, window: WindowLine) -> bytes:
        batch_id, point = window.key.batch_id, window.point
        log_path = None if window.placed_at is None else self._log_path(window.key, window.attempts)
        notes = self._notes.get(batch_id, {}).get(window.symbol, ())
        log = log_path if log_path is not None and log_path.exists() else None
        parameters = self._specs[batch_id].points.get(point, {})
        return line(window, log, notes, self._settings_at(batch_id, point), parameters)

    def _settings_at(self, batch_id: str, point: str) -> dict[str, Any]:
        known = self._settings[batch_id]
        if point not in known:
            spec = self._specs[batch_id]
            known[point] = given_settings(spec.workload, settings_at(spec, point))
        return known[point]

    def _append(self, batch_id: str) -> None:
        """Append the lines of the windows that have finished since the last call."""
        lines = self._open.get(batch_id)
        if lines is None:
            self._incomplete.add(batch_id)
            return
        try:
            while self._add_page(batch_id, lines):
                pass
            lines.file.flush()
            removed = os.fstat(lines.file.fileno()).st_nlink == 0
        except OSError:
            self._incomplete.add(batch_id)
            return
        if removed:
            log.warning("the index was removed while its batch ran, and is written anew path=%s", self._path(batch_id))
            self._rewrite(batch_id)

    def _add_page(self, batch_id: str, lines: _Lines) -> bool:
        """Add the next lines, of `PAGE_WINDOWS` windows at most; return whether there may be more by now."""
        rows, lines.place = self._store.finished_after(batch_id, lines.place, PAGE_WINDOWS)
        lines.file.writelines(map(self._line, rows))
        return len(rows) == PAGE_WINDOWS

    def _path(self, batch_id: str) -> Path:
        return self._outputs[batch_id][0] / INDEX

    def _opened(self, batch_id: str, *, make: bool) -> AbstractContextManager[int]:
        path, guarded = self._outputs[batch_id]
        return directories.opened_output(path, guarded=guarded, make=make)

    def _is_lost(self, batch_id: str) -> bool:
        """Whether the open index has lost its name, because it was removed or replaced."""
        lines = self._open.get(batch_id)
        if lines is None:
            return False
        with contextlib.suppress(OSError, directories.NotOurs), self._opened(batch_id, make=False) as directory:
            if directories.same(lines.file.fileno(), INDEX, directory):
                return False
        log.warning("the index was replaced while its batch ran, and is written anew path=%s", self._path(batch_id))
        return True

    def _rewrite(self, batch_id: str) -> None:
        self._notes[batch_id] = self._store.notes(batch_id)
        try:
            with self._opened(batch_id, make=True) as directory:
                self._make_way(batch_id, directory)
                with files.replacing(INDEX, directory) as file:
                    lines = _Lines(file)
                    while self._add_page(batch_id, lines):
                        pass
            self._go_on_with(batch_id, lines)
        except (OSError, directories.NotOurs):
            self._incomplete.add(batch_id)

    def _make_way(self, batch_id: str, directory: int) -> None:
        """Move a file of the index's name aside, unless it is an index."""
        if not _may_be_replaced(directory):
            kept = directories.move_aside(INDEX, directory, ASIDE)
            path = self._path(batch_id).with_name(kept)
            log.warning("another file of the index's name was moved aside path=%s", path)

    def _go_on_with(self, batch_id: str, lines: _Lines) -> None:
        """Append further lines to this file, which has all lines up to now."""
        self._close_file(batch_id)
        self._open[batch_id] = lines
        self._incomplete.discard(batch_id)

    def _finish(self, batch_id: str) -> None:
        """Close the index of a finished batch, and note whether it is whole."""
        path = str(self._path(batch_id))
        if self._close(batch_id) and batch_id not in self._incomplete:
            self._clear(path)
            with contextlib.suppress(StoreError):  # it is written once more by the next supervisor
                self._store.late_indexes.written(batch_id)
        else:
            self.late_at = time.monotonic() + RETRY_S
            self._told.add(path)
            self._condition.tell("index", path, f"the index {path} could not be written")

    def _clear(self, path: str) -> None:
        self._told.discard(path)
        self._condition.clear("index", path)

    def _is_taken(self, batch: Batch) -> bool:
        """Whether the place of a late index has gone to a batch that runs, or to one of another store."""
        path = Path(batch.output_dir)
        if any(self._outputs[batch_id][0] == path for batch_id in self._open if batch_id != batch.id):
            return True
        try:
            with (
                directories.opened_output(path, guarded=batch.guarded, make=False) as directory,
                files.regular(INDEX, directory) as file,
            ):
                first = _batch_of(file.readline(_MOST_BYTES))
        except (OSError, directories.NotOurs):
            return False
        return first is not None and first != batch.id and self._store.batch(first) is None

    def _close(self, batch_id: str) -> bool:
        self._notes.pop(batch_id, None)
        return self._close_file(batch_id)

    def _close_file(self, batch_id: str) -> bool:
        """Close an index, if it is open; return whether all of it is on the disk."""
        self._gathering.pop(batch_id, None)
        lines = self._open.pop(batch_id, None)
        if lines is not None:
            try:
                with lines.file as file:
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                return False
        return True

    def close(self) -> None:
        for batch_id in tuple(self._open):
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
