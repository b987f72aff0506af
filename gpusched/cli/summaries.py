"""Results summed up: by symbol, by the values of a parameter, and the best of each group."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from gpusched.client.drawing.listing import Cell
from gpusched.core.merit import merit
from gpusched.results import as_number

#: a flat result: column → value
Row = dict[str, Cell]

#: columns of `--by-symbol`
SYMBOL_COLUMNS = ("symbol", "windows", "mean", "spread", "best", "worst", "best_window", "worst_window")
#: columns of `--by`, after those by which the results are grouped
VALUE_COLUMNS = ("windows", "mean", "median", "spread", "best", "worst")

_Group = tuple[Cell, ...]


def by_symbol(rows: list[Row], metric: str) -> list[Row]:
    """For each symbol: the number of windows with the metric, its mean and standard deviation, the best and worst."""
    summaries = []
    for (symbol,), members in _groups(rows, ["symbol"]).items():
        measured = [
            (merit(metric, value), str(row["window_label"]))
            for row in members
            if (value := _number(row, metric)) is not None
        ]
        numbers = _numbers(members, metric)
        del numbers["median"]
        windows: Row = {
            "best_window": max(measured)[1] if measured else None,
            "worst_window": min(measured)[1] if measured else None,
        }
        summaries.append({"symbol": symbol} | numbers | windows)
    return summaries


def by_values(rows: list[Row], keys: Sequence[str], metric: str) -> list[Row]:
    """For each combination of values of the columns `keys`, in order: a metric's mean, median, spread and extremes."""
    groups = sorted(_groups(rows, keys).items(), key=lambda item: tuple(map(_rank, item[0])))
    return [dict(zip(keys, group, strict=True)) | _numbers(members, metric) for group, members in groups]


def best(rows: list[Row], metric: str, per: Sequence[str], *, worst: bool = False) -> list[int]:
    """The numbers of the rows with the best (or the worst) value of a metric, one for each group `per` columns."""
    chosen: dict[_Group, tuple[float, int]] = {}
    for number, row in enumerate(rows):
        value = _number(row, metric)
        if value is None:
            continue
        group = tuple(row.get(name) for name in per)
        rank = merit(metric, -value if worst else value)
        if group not in chosen or rank > chosen[group][0]:
            chosen[group] = rank, number
    return [number for _, number in chosen.values()]


def _groups(rows: list[Row], keys: Sequence[str]) -> dict[_Group, list[Row]]:
    groups: dict[_Group, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return groups


def _numbers(rows: list[Row], metric: str) -> Row:
    values = [value for row in rows if (value := _number(row, metric)) is not None]
    ranked = sorted(values, key=lambda value: merit(metric, value))
    return {
        "windows": len(values),
        "mean": round(statistics.fmean(values), 6) if values else None,
        "median": round(statistics.median(values), 6) if values else None,
        "spread": round(statistics.stdev(values), 6) if len(values) > 1 else None,
        "best": round(ranked[-1], 6) if ranked else None,
        "worst": round(ranked[0], 6) if ranked else None,
    }


def _number(row: Row, metric: str) -> float | None:
    return as_number(row.get(metric))


def _rank(value: Cell) -> tuple[int, float, str]:
    """Numbers before text, missing values last."""
    if isinstance(value, int | float):
        return 0, value, ""
    return (2, 0.0, "") if value is None else (1, 0.0, str(value))
