"""Rehearsals: tiny windows that the launcher runs itself, whose traces in memory every fork inherits.

Python specializes the code of a function once it has run several times, fills its caches of attributes and compiled
expressions, and resolves symbols of shared libraries when they are first used. A window runs most functions once: by
itself it would do all of that work, or run without its fruits, and write to the pages that hold them.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import os
from collections.abc import Generator
from pathlib import Path

from gpusched import directories
from gpusched.worker import linux
from gpusched.worker.loading import load_module
from gpusched.worker.messages import WindowJob
from gpusched.worker.window import run_window
from gpusched.workload import Result, Task

#: calls after which Python 3.11 specializes a function
TIMES = 8
#: forks after which a launcher makes its remaining rehearsals even while windows run: each takes as much time as all
#: rehearsals save in five windows
PAYING = 32
#: a directory in memory
IN_MEMORY, ON_DISK = Path("/dev/shm"), "/tmp"  # noqa: S108  # for a new directory that only this user can open


class Rehearsals:
    """The rehearsals of a process, one by one; after the last it is made ready to fork."""

    def __init__(self) -> None:
        self._windows: Generator[None] | None = None
        self._forks = 0
        #: bytes of anonymous memory that a fork shares with this process
        self.shared_bytes = 0

    @property
    def are_left(self) -> bool:
        return self._windows is not None

    def begin(self, workload: str) -> None:
        """Have the windows of a loaded workload rehearsed next."""
        self.finish()
        self._windows, self._forks = _rehearse(workload), 0

    def go_on(self) -> None:
        """Run one window, if any is left; after the last, make ready to fork."""
        if self._windows is None:
            return
        for _ in self._windows:
            return
        self._windows = None
        self._make_ready()

    def before_fork(self) -> None:
        """Run the first rehearsal before the first window; after `PAYING` windows, one before each, if any is left."""
        if self._windows is not None:
            self._forks += 1
            if self._forks == 1 or self._forks > PAYING:
                self.go_on()
            if self._forks == 1 and self._windows is not None:
                self._make_ready()

    def finish(self) -> None:
        """Run all that are left."""
        while self.are_left:
            self.go_on()

    def _make_ready(self) -> None:
        _prepare_to_fork()
        self.shared_bytes = linux.own_bytes()

    def drop(self) -> None:
        """Run no more, and remove their files."""
        if self._windows is not None:
            self._windows.close()


def make_ready(workload: str) -> None:
    """Rehearse the windows of a loaded workload, and make ready to fork: all that a launcher does, at once."""
    rehearsals = Rehearsals()
    rehearsals.begin(workload)
    rehearsals.finish()


def _prepare_to_fork() -> None:
    """Freeze imported objects and lay out the heap, so that a fork has as few of their pages copied as possible."""
    gc.collect()
    gc.freeze()
    linux.lay_out_heap()


def _rehearse(workload: str) -> Generator[None]:
    """Run a loaded workload's own small window, `__rehearsal__`, or one that trains nothing; pause after each time.

    An error ends the rehearsals: the windows meet it as well, and report it.
    """
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK | os.X_OK) else Path(os.environ.get("TMPDIR") or ON_DISK)
    with contextlib.suppress(Exception), directories.temporary(place) as directory:
        prepare = getattr(load_module(workload), "__rehearsal__", None)
        task = _nothing_to_do(directory) if prepare is None else prepare(directory)
        function = f"{__name__}:nothing" if prepare is None else workload
        for number in range(TIMES):
            job = WindowJob(workload=function, task=task, output_dir=str(directory / f"output.{number}"))
            run_window(job, lambda phase, round=0, rounds=0: None, durable=False)  # a flush may start threads
            yield


def nothing(task: Task, directory: Path, report: object) -> Result:
    """The function of a window that trains nothing."""
    return Result(metrics={}, sample_counts={}, metadata={}, phases={})


def _nothing_to_do(directory: Path) -> Task:
    day = dt.date(2000, 1, 1)
    place = str(directory)
    return Task(symbol="NONE", start=day, end=day, data_root=place, cache_dir=place, settings={})
