"""Deterministic synthetic bars in the layouts that gpusched reads, for the benchmarks and the large tests."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np

HEADER = "timestamp,open,high,low,close,volume\n"
OFFSET = "+05:30"
SESSION_START = dt.time(9, 15)


def symbols(count: int) -> list[str]:
    return [f"SYM{number:02d}" for number in range(count)]


def trading_days(start: dt.date, end: dt.date) -> list[dt.date]:
    """Monday to Friday, both ends inclusive."""
    days = (end - start).days + 1
    dates = (start + dt.timedelta(days=day) for day in range(days))
    return [date for date in dates if date.weekday() < 5]


def write_symbol(
    root: Path,
    symbol: str,
    days: list[dt.date],
    *,
    interval: str = "1d",
    bars_per_day: int = 1,
    file_per_day: bool = False,
) -> None:
    """Write a random walk with the symbol's name as its seed; 5-minute bars if there is more than one a day."""
    rng = np.random.default_rng(int.from_bytes(symbol.encode(), "big"))
    count = len(days) * bars_per_day
    scale = 0.02 / np.sqrt(bars_per_day)
    close = 100 * np.exp(np.cumsum(rng.normal(0.0002 / bars_per_day, scale, count)))
    opened = close * np.exp(rng.normal(0, scale / 2, count))
    high = np.maximum(opened, close) * (1 + np.abs(rng.normal(0, scale / 2, count)))
    low = np.minimum(opened, close) * (1 - np.abs(rng.normal(0, scale / 2, count)))
    volume = rng.integers(10_000, 1_000_000, count)
    rows = [
        f"{_instant(days[i // bars_per_day], i % bars_per_day, bars_per_day)},"
        f"{opened[i]:.4f},{high[i]:.4f},{low[i]:.4f},{close[i]:.4f},{volume[i]}\n"
        for i in range(count)
    ]
    directory = root / symbol / interval
    directory.mkdir(parents=True, exist_ok=True)
    if not file_per_day:
        (directory / f"{days[0]}_to_{days[-1]}.csv").write_text(HEADER + "".join(rows))
        return
    for number, day in enumerate(days):
        first = number * bars_per_day
        (directory / f"{day}.csv").write_text(HEADER + "".join(rows[first : first + bars_per_day]))


def _instant(day: dt.date, bar: int, bars_per_day: int) -> str:
    if bars_per_day == 1:
        return f"{day}T00:00:00{OFFSET}"
    moment = dt.datetime.combine(day, SESSION_START) + dt.timedelta(minutes=5 * bar)
    return f"{moment.isoformat()}{OFFSET}"


def write_batch(
    directory: Path,
    *,
    symbol_count: int = 36,
    start: dt.date = dt.date(2022, 1, 1),
    end: dt.date = dt.date(2024, 12, 31),
    interval: str = "1d",
    bars_per_day: int = 1,
    file_per_day: bool = False,
) -> Path:
    """Write `data/` and `symbols.txt` below `directory`; return the symbols file."""
    days = trading_days(start, end)
    names = symbols(symbol_count)
    for symbol in names:
        write_symbol(
            directory / "data", symbol, days, interval=interval, bars_per_day=bars_per_day, file_per_day=file_per_day
        )
    path = directory / "symbols.txt"
    path.write_text("".join(f"{name}\n" for name in names))
    return path
