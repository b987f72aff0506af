"""Workloads of the tests of the service: the symbol says how a window behaves."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import select
import signal
import time
from pathlib import Path

from gpusched.workload import (
    BadData,
    DataNote,
    NoData,
    Report,
    Result,
    SurveyTask,
    SymbolSurvey,
    Task,
    WindowSurvey,
    window_label,
)


def survey(task: SurveyTask) -> SymbolSurvey:
    """SKIP… is skipped, and so is ABSENT…, REFUSED… is refused; nobody knows of UNKNOWN…; of NOTED… there is a note.

    REFUSED… is mended by a file of that name in the data root. ORPHAN kills the launcher at its first survey,
    ORPHANS at each.
    """
    if task.symbol.startswith("ORPHAN"):
        first = Path(task.data_root, task.symbol)
        if task.symbol == "ORPHANS" or not first.exists():
            first.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()  # it dies with its launcher
    if task.symbol.startswith("ABSENT"):
        raise NoData("no data: nothing there", remedy="give --interval 1day")
    if task.symbol.startswith("REFUSED") and not Path(task.data_root, task.symbol).exists():
        raise BadData("REFUSED.csv:3: '1,5' is not a number", remedy="set data.decimal")
    if task.symbol.startswith("UNKNOWN"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    notes = (DataNote("jumps", "÷ 4 on 2022-01-05: a split?"),) if task.symbol.startswith("NOTED") else ()
    windows = [
        WindowSurvey(
            start=window.start,
            end=window.end,
            bars=100,
            usable_rows=90,
            fingerprint=_fingerprint(window_label(task.symbol, window.start, window.end)),
            skip_reason="told to" if task.symbol.startswith("SKIP") else None,
        )
        for window in task.windows
    ]
    return SymbolSurvey(windows=tuple(windows), notes=notes)


def window(task: Task, directory: Path, report: Report) -> Result:
    """BAD… fails for good, UNKNOWN2… has no data, DIE… is killed at its first attempt, FIFO… works until the test says
    so, the rest succeeds.

    Every success writes `model.txt`, whose content follows from the label.
    """
    report("train", 1, 2)
    if not task.symbol.startswith("QUIET"):
        print(f"attempt at {task.label}", flush=True)
    if task.symbol.startswith("BAD"):
        raise BadData("told to")
    if task.symbol.startswith("UNKNOWN2"):
        raise NoData("no data after all")
    if task.symbol.startswith("DIE"):
        mark = Path(task.data_root) / f"{task.label}.died"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if task.symbol.startswith("FIFO"):
        take_one(Path(task.data_root) / "fifo")
    time.sleep(float(task.settings.get("seconds", 0)))  # where a test wants to hit it at work, at a random moment
    report("train", 2, 2)
    (directory / "model.txt").write_text(content(task.label))
    return Result(
        metrics={"auc": 0.5},
        sample_counts={"train": 8},
        metadata={},
        phases={"train": 0.01},
        fingerprint=_fingerprint(task.label),
    )


def take_one(fifo: Path) -> None:
    """Wait for a byte, and leave the others to other windows. Signals are handled meanwhile."""
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    while True:
        select.select([descriptor], [], [])
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, 1)
            break
    os.close(descriptor)


def content(label: str) -> str:
    return f"model of {label}\n" * 100


def _fingerprint(label: str) -> str:
    return hashlib.sha256(label.encode()).hexdigest()
