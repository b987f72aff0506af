"""Sweeping: half-written results of processes that died are removed while their batch goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio.to_thread

from gpusched import outputs
from gpusched.core.model import Batch
from gpusched.directories import NotOurs


class Sweeping:
    """Output directories to be swept; `on_end` is called when all have been."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        #: the directories, and whether to guard the paths to them
        self._littered: dict[str, bool] = {}
        #: `run` is at work
        self.is_on = False

    def ask(self, batch: Batch) -> None:
        """Have the output directory of a batch swept."""
        self._littered[batch.output_dir] = batch.guarded

    def take(self) -> bool:
        """Whether to call `run`."""
        if self.is_on or not self._littered:
            return False
        self.is_on = True
        return True

    async def run(self) -> None:
        """Sweep in a thread: there may be much, and on a slow network file system."""
        while self._littered:
            output_dir, guarded = self._littered.popitem()
            sweep = partial(outputs.sweep_partial, Path(output_dir), guarded=guarded)
            with contextlib.suppress(OSError, NotOurs):  # the next batch in that directory tries again
                await anyio.to_thread.run_sync(sweep, abandon_on_cancel=True)
        self.is_on = False
        self._on_end()
