"""The scores of windows, as numbers by name, from the lines of a daemon or of an index."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gpusched.errors import UsageError, did_you_mean
from gpusched.protocol import WindowLine
from gpusched.results import NoResults, as_number, flat_metrics, read_index

#: metrics in the order in which they are shown first; the first that a batch has is its main one
FIRST = ("validation_auc", "validation_accuracy", "validation_f1", "validation_precision", "validation_recall")


class NoMetric(UsageError):
    problem = "these results have no metric {name!r}{nearest}"
    remedy = "they have {known}"


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """A window that has a model, and the metrics of it that are defined."""

    label: str
    symbol: str
    start: dt.date
    end: dt.date
    #: name of its point in a sweep; empty: no sweep
    point: str = ""
    #: by name: `validation_auc` for `{"validation": {"auc": …}}`
    metrics: dict[str, float]
    #: whether its model predicts a constant; None: not told
    constant: bool | None = None


def of_lines(lines: Iterable[WindowLine]) -> list[Scored]:
    """The windows with a model among the results of a daemon or a store."""
    return [
        Scored(
            label=line.key.label,
            symbol=line.symbol,
            start=line.start,
            end=line.end,
            point=line.point,
            metrics=numbers(line.result.metrics),
            constant=line.result.constant,
        )
        for line in lines
        if line.result is not None
    ]


def of_index(index: Path) -> list[Scored]:
    """The windows with a model in an index; of several lines of one, as in indexes put together, the last counts.

    Raises NoResults.
    """
    try:
        return list(
            {window.label: window for window in map(_of_line, read_index(index)) if window is not None}.values()
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NoResults(path=index, why=f"a line of it is none of an index ({type(error).__name__}: {error})") from None


def _of_line(line: Mapping[str, Any]) -> Scored | None:
    """The window of a line; None without a model."""
    if line.get("status") != "success" or not isinstance(line.get("metrics"), dict):
        return None
    start, end = (dt.date.fromisoformat(line["date_range"][name]) for name in ("start", "end"))
    return Scored(
        label=str(line["window_label"]),
        symbol=str(line["symbol"]),
        start=start,
        end=end,
        point=str(line.get("point") or ""),
        metrics=numbers(line["metrics"]),
        constant=line.get("constant"),
    )


def constants(scored: Iterable[Scored]) -> int | None:
    """How many models predict a constant; None if no result tells, as those of 0.1 do not."""
    flags = [window.constant for window in scored if window.constant is not None]
    return sum(flags) if flags else None


def numbers(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """Metrics on one level, those that are defined numbers."""
    flat = flat_metrics(metrics or {})
    return {name: number for name, value in flat.items() if (number := as_number(value)) is not None}


def metric_names(scored: Iterable[Scored]) -> list[str]:
    """The names of all metrics, the main one first."""
    names = dict.fromkeys(name for window in scored for name in window.metrics)
    return [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]


def require_metric(name: str, names: Sequence[str]) -> str:
    """Return `name`; raise NoMetric if it is not among those that are known."""
    if name not in names:
        raise NoMetric(name=name, nearest=did_you_mean(name, names), known=", ".join(names) or "none")
    return name
