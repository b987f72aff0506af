"""Bars of a few lines, parsed."""

from __future__ import annotations

from pathlib import Path

from gpusched.teacher.bars import Bars, sift
from gpusched.teacher.parsing import parse as parse_csv
from gpusched.teacher.rows import Reading, require_one_clock
from tests.teacher.support import write_csv

ONE = "2024-01-01T09:15:00+05:30,1,2,0.5,1.5,10\n"
TWO = "2024-01-01T09:20:00+05:30,2,3,1.5,2.5,20\n"


def parse(tmp_path: Path, *texts: str) -> Bars:
    paths = [write_csv(tmp_path / f"{number}.csv", text) for number, text in enumerate(texts)]
    return bars_of(paths, Reading(symbol="ABC"))


def bars_of(paths: list[Path], reading: Reading) -> Bars:
    rows = parse_csv(paths, reading)
    require_one_clock(paths, rows)
    return sift(rows.local, rows.offset, rows.values).bars


def values(bars: Bars) -> list[tuple[float, ...]]:
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))
