"""Claims: locks of a supervisor on the output directories of its unfinished batches.

Two supervisors that train into one directory would replace each other's results and index, so each claims the directory
by a lock on it, which ends with the process. No file is written for this. On file systems without locks on directories
(NFS) nobody is kept out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread

from gpusched import outputs
from gpusched.core.events import BatchFinished
from gpusched.core.model import Batch
from gpusched.errors import InputError
from gpusched.supervisor.followers import News


class Claims:
    """The claimed directories, by batch."""

    def __init__(self, is_needed: Callable[[str], bool]) -> None:
        """`is_needed` says whether a batch, named by its id, is at work or about to be."""
        self._is_needed = is_needed
        self._locks: dict[str, int] = {}
        #: by batch: held while its directory is being claimed
        self._taking: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def take(self, batch_id: str, output_dir: Path, *, guarded: bool = False, make: bool = True) -> None:
        """Claim a directory; `make` it if missing. Raises OutputInUse, OSError, `directories.NotOurs`.

        A batch that is finishing may give back a directory that it already has: whoever relies on the claim makes the
        batch needed before anything else is awaited.
        """
        # The lock excludes this process, too, so that a second call would be refused because of the first.
        async with self._taking.setdefault(batch_id, anyio.Lock()):
            if batch_id not in self._locks:
                # In a thread: the call may hang with its file system.
                claim = partial(outputs.claim, output_dir, guarded=guarded, make=make)
                self._locks[batch_id] = await anyio.to_thread.run_sync(claim)

    def retake(self, batch: Batch) -> str | None:
        """Claim the directory of a batch that is taken up again; return a sentence if another supervisor has it.

        A directory that cannot be opened now, perhaps because it is not mounted, is not claimed.
        """
        try:
            self._locks[batch.id] = outputs.claim(Path(batch.output_dir), guarded=batch.guarded)
        except outputs.OutputInUse as error:
            return error.sentence
        except (OSError, InputError):
            pass
        return None

    def follow(self, news: News) -> None:
        if type(news) is BatchFinished:
            self.give_back(news.batch_id)

    def give_back(self, batch_id: str) -> None:
        """Let others claim the directory of a batch, unless it is needed: a finished one may have been retried."""
        if not self._is_needed(batch_id):
            self._release(batch_id)

    def close(self) -> None:
        for batch_id in tuple(self._locks):
            self._release(batch_id)

    def _release(self, batch_id: str) -> None:
        lock = self._locks.pop(batch_id, None)
        if lock is not None:
            os.close(lock)
