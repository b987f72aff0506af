"""The records of a run, asked as a daemon is asked: from the store in its state directory, without a daemon.

They are read beside a run that is still at work, and nothing is written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from gpusched import __version__, clock, files
from gpusched.core.model import Batch, WindowKey
from gpusched.core.reasons import Explanation
from gpusched.core.samples import Sample
from gpusched.core.states import Finished, Held, Queued
from gpusched.core.statuses import ACTIVE, attempt_of
from gpusched.protocol import BatchDetail, BatchStatus, LogChunk, Snapshot, WindowDetail, WindowLine
from gpusched.runs.place import NoRun, store_of
from gpusched.service import views
from gpusched.service.names import Names, NoLog
from gpusched.service.views import RECENT_WINDOWS
from gpusched.store.database import lock_path
from gpusched.store.store import Store

#: seconds between reads of a log that is followed
FOLLOW_S = 0.2
_CHUNK_BYTES = 64 * 1024


class Records:
    """The reading half of `Connection`, for the batches that were run into one directory. Use as a context manager."""

    def __init__(self, state_dir: Path, directory: Path) -> None:
        """Raises NoRun if nothing was run into `directory`; StoreError."""
        database = store_of(state_dir, directory)
        self.state_dir = state_dir
        self.directory = directory
        self.version = __version__
        self._aborted = False
        self._store = Store.peek(database)
        self._names = Names(self._store)
        batches = self._store.batches()
        if not batches:
            self._store.close()
            raise NoRun(path=directory)
        #: the batch that was the last to be run there
        self.batch_id = batches[-1].id

    def close(self) -> None:
        self._store.close()

    @property
    def is_left(self) -> bool:
        """Whether nobody is at work on the unfinished windows: their supervisor was killed, or left."""
        return self._names.status(self.batch_id).state == "open" and files.is_free(lock_path(self._store.path))

    def abort(self) -> None:
        """From any thread: end the following of a log."""
        self._aborted = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def batches(self) -> tuple[BatchStatus, ...]:
        return tuple(map(views.batch_status, self._store.batches()))

    def batch(self, batch_id: str, *, notes: bool = False) -> BatchDetail:
        status, batch = self._names.status(batch_id), self._names.batch(batch_id)
        on_data = self._store.notes(batch_id) if notes else {}
        return BatchDetail(batch=status, spec=batch.spec, choice=batch.choice, notes=on_data)

    def windows(self, batch_id: str, *, status: str | None = None) -> Iterator[WindowLine]:
        self._names.status(batch_id)
        self._names.check_status(status)
        return map(views.listed, self._store.windows(batch_id, status=status))

    def window(self, batch_id: str, label: str) -> WindowDetail:
        return self._names.window(WindowKey(batch_id, label))

    def accepted(self) -> Batch:
        """The last batch that was run there, as it was asked for."""
        return self._names.batch(self.batch_id)

    def snapshot(self) -> Snapshot:
        """The state of the last batch that was run there; its devices are not known any more."""
        batch = self._names.status(self.batch_id)
        return Snapshot(
            at=clock.wall(),
            batches=(batch,),
            active=tuple(line for status in ACTIVE for line in self._store.windows(batch.id, status=status)),
            progress=(),
            devices=(),
            ended=tuple(map(views.ending, self._store.endings(batch.id, RECENT_WINDOWS))),
            failed=tuple(map(views.ending, self._store.endings(batch.id, RECENT_WINDOWS, failed=True))),
        )

    def explain(self, batch_id: str, label: str) -> Explanation:
        """What a window does, as far as its records tell."""
        key = WindowKey(batch_id, label)
        return views.explained(key, self._names.state(key), None, None).explanation

    def results(self, batch_id: str) -> Iterator[WindowLine]:
        self._names.status(batch_id)
        return map(views.listed, self._store.finished_windows(batch_id))

    def history(self, batch_id: str) -> tuple[Sample, ...]:
        self._names.status(batch_id)
        return tuple(self._store.history(batch_id))

    def log(
        self, batch_id: str, label: str, *, attempt: int | None = None, offset: int = 0, follow: bool = False
    ) -> Iterator[LogChunk]:
        """The log of an attempt, of the last one if none is given; `follow` goes on until the window is finished."""
        key = WindowKey(batch_id, label)
        while True:
            state = self._names.state(key)
            last = attempt_of(state) - isinstance(state, Queued | Held)
            number, ended = attempt or last, isinstance(state, Finished)
            chunks = self._read(key, number, offset)
            if chunks is None and not follow:
                why = "it was never launched" if last == 0 else f"attempt {number} left none"
                if not 0 < number <= last:
                    raise NoLog(window=key, why=why)
            for chunk in chunks or ():
                yield chunk
                offset = chunk.offset + len(chunk.data)
            if not follow or ended or self._aborted:
                return
            time.sleep(FOLLOW_S)
            if attempt_of(self._names.state(key)) != number and attempt is None:
                offset = 0

    def _read(self, key: WindowKey, attempt: int, offset: int) -> Iterator[LogChunk] | None:
        """The pieces of a log from `offset` on; None without such a file."""
        from gpusched.supervisor.attempts import log_of  # slow to import, and needed for logs only

        try:
            descriptor = files.open_regular(self.state_dir / "logs" / log_of(key, attempt))
        except OSError:
            return None
        return _pieces(descriptor, attempt, offset)


def _pieces(descriptor: int, attempt: int, offset: int) -> Iterator[LogChunk]:
    try:
        offset = min(offset, os.fstat(descriptor).st_size)  # its middle may have been cut out since
        while data := os.pread(descriptor, _CHUNK_BYTES, offset):
            yield LogChunk(attempt=attempt, offset=offset, data=data)
            offset += len(data)
    finally:
        os.close(descriptor)
