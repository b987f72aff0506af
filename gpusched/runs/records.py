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

import msgspec

from gpusched import __version__, clock, files
from gpusched.core.logs import log_of
from gpusched.core.model import Batch, WindowKey, WindowResult
from gpusched.core.reasons import Explanation
from gpusched.core.samples import Sample
from gpusched.core.states import Finished, Held, Queued, Reused, Succeeded
from gpusched.core.statuses import ACTIVE, attempt_of
from gpusched.directories import is_same
from gpusched.protocol import BatchDetail, BatchStatus, LogChunk, Snapshot, WindowDetail, WindowLine
from gpusched.runs.place import NothingPlanned, store_of
from gpusched.service import views
from gpusched.service.names import Names, no_log
from gpusched.service.views import RECENT_WINDOWS
from gpusched.store.database import lock_path
from gpusched.store.store import Store

#: seconds between reads of a log that is followed
FOLLOW_S = 0.2
_CHUNK_BYTES = 64 * 1024


class Records:
    """The reading half of `Connection`, for the batches that were run into one directory. Use as a context manager."""

    def __init__(self, state_dir: Path, directory: Path) -> None:
        """Raises NoRun if nothing was run into `directory`, NothingPlanned; StoreError."""
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
            raise NothingPlanned(path=directory)
        #: the batch that was the last to be run there
        self.batch_id = batches[-1].id
        #: by batch: the output directory in its records, which were copied or moved from there with their results
        self._elsewhere = {row.id: row.output_dir for row in batches if not is_same(Path(row.output_dir), directory)}

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

    @property
    def copied_from(self) -> str | None:
        """The directory that the last batch was run into, if its records were copied or moved from there."""
        return self._elsewhere.get(self.batch_id)

    def batches(self) -> tuple[BatchStatus, ...]:
        return tuple(self._here(views.batch_status(row)) for row in self._store.batches())

    def _here(self, batch: BatchStatus) -> BatchStatus:
        """A batch with the directory in which it is now."""
        if batch.id not in self._elsewhere:
            return batch
        return msgspec.structs.replace(batch, output_dir=str(self.directory.absolute()))

    def _placed(self, key: WindowKey, result: WindowResult) -> WindowResult:
        """A result with the place in which it is now: in the old one there may be another."""
        there = self._elsewhere.get(key.batch_id)
        if there is None or Path(result.artifacts_path) != Path(there, key.label):
            return result
        return msgspec.structs.replace(result, artifacts_path=str(self.directory.absolute() / key.label))

    def _listed(self, line: WindowLine) -> WindowLine:
        line = views.listed(line)
        if line.result is None or not self._elsewhere:
            return line
        return msgspec.structs.replace(line, result=self._placed(line.key, line.result))

    def batch(self, batch_id: str, *, notes: bool = False) -> BatchDetail:
        status, batch = self._here(self._names.status(batch_id)), self._names.batch(batch_id)
        on_data = self._store.notes(batch_id) if notes else {}
        return BatchDetail(batch=status, spec=batch.spec, choice=batch.choice, notes=on_data)

    def windows(self, batch_id: str, *, status: str | None = None) -> Iterator[WindowLine]:
        self._names.status(batch_id)
        self._names.check_status(status)
        return map(self._listed, self._store.windows(batch_id, status=status))

    def window(self, batch_id: str, label: str) -> WindowDetail:
        detail = self._names.window(WindowKey(batch_id, label))
        state = detail.state
        if isinstance(state, Finished) and isinstance(outcome := state.outcome, Succeeded | Reused):
            outcome = msgspec.structs.replace(outcome, result=self._placed(detail.window.key, outcome.result))
            state = msgspec.structs.replace(state, outcome=outcome)
        return msgspec.structs.replace(detail, window=self._listed(detail.window), state=state)

    def accepted(self) -> Batch:
        """The last batch that was run there, as it was asked for."""
        return self._names.batch(self.batch_id)

    def snapshot(self) -> Snapshot:
        """The state of the last batch that was run there; its devices are not known any more."""
        batch = self._here(self._names.status(self.batch_id))
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
        """What a window does, by what its records tell."""
        key = WindowKey(batch_id, label)
        return views.explained(key, self._names.state(key), None, None).explanation

    def results(self, batch_id: str) -> Iterator[WindowLine]:
        self._names.status(batch_id)
        return map(self._listed, self._store.finished_windows(batch_id))

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
            if chunks is None and not follow and not 0 < number <= last:
                raise no_log(key, state, number, last)
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
