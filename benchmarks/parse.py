"""The first parse of 860 one-day files of a symbol, and what it takes once mapped: `python -m benchmarks.parse`."""

from __future__ import annotations

import datetime as dt
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.bars import trading_days, write_symbol
from benchmarks.settings import settings
from gpusched import teacher
from gpusched.workload import DateRange, SurveyTask

FILES = 860
REPEAT = 5


def main() -> None:
    teacher.preload()
    days = trading_days(dt.date(2020, 1, 1), dt.date(2024, 12, 31))[:FILES]
    for bars_per_day, interval in ((1, "1d"), (75, "5min")):
        with tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name:
            write_symbol(
                Path(name) / "data", "SYM", days, interval=interval, bars_per_day=bars_per_day, file_per_day=True
            )
            cold, warm = zip(*(_survey(Path(name), interval, number) for number in range(REPEAT)), strict=True)
        what = f"{FILES} files of {bars_per_day} row{'s' if bars_per_day > 1 else ''}"
        print(f"{what:<22} first parse {1000 * statistics.median(cold):6.1f} ms   "
              f"mapped {1000 * statistics.median(warm):5.1f} ms")  # fmt: skip


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
        (window,) = teacher.survey(task)
        assert window.bars
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1]


if __name__ == "__main__":
    main()
