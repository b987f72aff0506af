"""Remembers where results are, in the index of results below the cache directory."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO

from gpusched import known_results
from gpusched.core.events import BatchAccepted, BatchFinished, WindowMoved
from gpusched.core.model import WindowResult
from gpusched.core.states import Finished, Reused, Succeeded
from gpusched.errors import StoreError
from gpusched.store.store import Store
from gpusched.supervisor.followers import News

#: reused results of a batch that are looked for in the index, within one turn of the loop
MOST_REUSED = 10_000


class Remembering:
    """Adds the results of all batches to the index. Results that cannot be written there are not remembered."""

    def __init__(self, store: Store, cache_dir: Path) -> None:
        self._store = store
        self._cache_dir = cache_dir
        #: by batch; None: there can be none
        self._files: dict[str, BinaryIO | None] = {}

    def follow(self, news: News) -> None:
        match news:
            case WindowMoved(key=key, new=new):
                if type(new) is Finished and type(new.outcome) is Succeeded:
                    self._add(key.batch_id, new.outcome.result)
            case BatchAccepted(batch=batch, windows=windows) if len(windows) <= MOST_REUSED:
                outcomes = [state.outcome for _, state in windows if isinstance(state, Finished)]
                if reused := [outcome.result for outcome in outcomes if isinstance(outcome, Reused)]:
                    self._add(batch.id, *reused)
            case BatchFinished(batch_id=batch_id):
                self._close(batch_id)

    def close(self) -> None:
        for batch_id in tuple(self._files):
            self._close(batch_id)

    def _add(self, batch_id: str, *results: WindowResult) -> None:
        with contextlib.suppress(OSError, ValueError, StoreError):
            if batch_id not in self._files:
                self._files[batch_id] = None
                self._files[batch_id] = self._opened(batch_id)
            if (file := self._files[batch_id]) is not None:
                new = [
                    known_results.line(one.fingerprint or "", one.artifacts_path.rpartition("/")[2]) for one in results
                ]
                file.writelines(new if len(new) == 1 else sorted(set(new) - known_results.lines(file)))

    def _opened(self, batch_id: str) -> BinaryIO | None:
        batch = self._store.accepted(batch_id)
        return None if batch is None else known_results.opened_for(self._cache_dir, Path(batch.output_dir), batch.owner)

    def _close(self, batch_id: str) -> None:
        file = self._files.pop(batch_id, None)
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
