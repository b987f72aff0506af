"""Bars for the tests: random walks with a fixed seed, in memory and in files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gpusched.teacher.bars import NAIVE, Bars, sift
from gpusched.workload import DateRange, SurveyTask, Task

START = dt.date(2024, 1, 1)
HEADER = "timestamp,open,high,low,close,volume\n"
Row = tuple[float, float, float, float, float]


def ignore(phase: str, round: int = 0, rounds: int = 0) -> None:
    """A `Report` that does nothing."""


def walk(count: int, seed: int = 7) -> list[Row]:
    """A random walk: rows of open, high, low, close, volume."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, count)))
    opened = close * np.exp(rng.normal(0, 0.01, count))
    high = np.maximum(opened, close) * 1.004
    low = np.minimum(opened, close) * 0.996
    volume = rng.integers(1_000, 100_000, count)
    return [
        (float(o), float(h), float(lo), float(c), float(v))
        for o, h, lo, c, v in zip(opened, high, low, close, volume, strict=True)
    ]


def bars(rows: Iterable[Row]) -> Bars:
    """Daily bars from `START` on, without offsets."""
    values = np.array(list(rows), np.float64).reshape(-1, 5).T
    local = np.arange(values.shape[1], dtype=np.int64) * 86_400_000_000 + _days(START) * 86_400_000_000
    return sift(local, np.full(values.shape[1], NAIVE, np.int32), values).bars


def _days(date: dt.date) -> int:
    return (date - dt.date(1970, 1, 1)).days


def day(number: int) -> dt.date:
    return START + dt.timedelta(days=number)


def write_daily(root: Path, symbol: str, rows: Iterable[Row], offset: str = "+05:30") -> Path:
    """Write one file of daily bars from `START` on; return its path."""
    path = root / symbol / "1d" / "all.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{day(number)}T00:00:00{offset},{','.join(map(repr, row))}\n" for number, row in enumerate(rows))
    path.write_text(HEADER + "".join(lines))
    return path


def write_csv(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def window_task(root: Path, *, symbol: str = "ABC", days: int = 120, threads: int = 1, **settings: Any) -> Task:
    return Task(
        symbol=symbol,
        start=START,
        end=day(days - 1),
        data_root=str(root / "data"),
        cache_dir=str(root / "cache"),
        settings=settings,
        threads=threads,
    )


def survey_task(task: Task) -> SurveyTask:
    """A survey of the one window of `task`."""
    return SurveyTask(
        symbol=task.symbol,
        windows=(DateRange(task.start, task.end),),
        data_root=task.data_root,
        cache_dir=task.cache_dir,
        settings=task.settings,
    )
