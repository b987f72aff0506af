"""The first parse of 860 one-day files of a symbol, in several forms, and the time once they are mapped.

`python -m benchmarks.parse`
"""

from __future__ import annotations

import csv
import datetime as dt
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.bars import OFFSET, trading_days, write_symbol
from benchmarks.settings import settings
from gpusched import teacher
from gpusched.workload import DateRange, SurveyTask

FILES = 860
REPEAT = 5
#: common variants of the usual text
FORMS: dict[str, Callable[[str], str]] = {
    "quoted": lambda text: "".join(f'"{line}"\n' for line in text.replace(",", '","').splitlines()),
    "with Z": lambda text: text.replace(OFFSET, "Z"),
    "with fractions": lambda text: text.replace(OFFSET, f".000{OFFSET}"),
    "to the minute": lambda text: text.replace(f":00{OFFSET}", ""),
    "with semicolons": lambda text: text.replace(",", ";"),
}
#: bars of a day, and the interval that the directory is named after
SHAPES = ((1, "1d"), (75, "5min"))


class Parse(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds for all files of a symbol, medians of `REPEAT`."""

    #: with an empty cache
    first: float
    #: with a full one
    mapped: float
    #: to read each file with the csv module and do nothing with it
    csv_reader: float


def measure(bars_per_day: int, interval: str, form: Callable[[str], str] = str) -> Parse:
    """Time the parse of files whose text is changed by `form`."""
    teacher.preload()
    days = trading_days(dt.date(2020, 1, 1), dt.date(2024, 12, 31))[:FILES]
    with tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name:
        directory = Path(name)
        write_symbol(directory / "data", "SYM", days, interval=interval, bars_per_day=bars_per_day, file_per_day=True)
        for path in (directory / "data").rglob("*.csv"):
            path.write_text(form(path.read_text()))
        runs = [(*_survey(directory, interval, number), _csv_reader(directory / "data")) for number in range(REPEAT)]
    first, mapped, reader = map(statistics.median, zip(*runs, strict=True))
    return Parse(first=first, mapped=mapped, csv_reader=reader)


def main() -> None:
    for bars_per_day, interval in SHAPES:
        measured = measure(bars_per_day, interval)
        files = f"{FILES} files of {bars_per_day} row{'s' if bars_per_day > 1 else ''}"
        print(f"{files:<22} first parse {1000 * measured.first:6.1f} ms   mapped {1000 * measured.mapped:5.1f} ms   "
              f"csv.reader alone {1000 * measured.csv_reader:6.1f} ms")  # fmt: skip
    for name, form in FORMS.items():
        print(f"the latter {name:<20} {1000 * measure(*SHAPES[-1], form).first:6.1f} ms")


def _csv_reader(root: Path) -> float:
    began = time.perf_counter()
    for path in sorted(root.rglob("*.csv")):
        with path.open(newline="") as file:
            for _ in csv.reader(file):
                pass
    return time.perf_counter() - began


def _survey(directory: Path, interval: str, number: int) -> tuple[float, float]:
    """Seconds to look at one window of the symbol, with an empty cache and then with a full one."""
    task = SurveyTask(
        symbol="SYM",
        windows=(DateRange(dt.date(2022, 1, 1), dt.date(2022, 6, 29)),),
        data_root=str(directory / "data"),
        cache_dir=str(directory / f"cache{number}"),
        settings=settings(interval),
    )
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        (window,) = teacher.survey(task).windows
        assert window.bars
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1]


if __name__ == "__main__":
    main()
