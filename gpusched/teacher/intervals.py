"""Intervals: the distances that their names stand for, and the distances that bars really have."""

from __future__ import annotations

import re

import numpy as np

from gpusched.core.wording import counted
from gpusched.teacher.bars import Integers

#: the interval if none is requested and none can be measured
DEFAULT = "1d"

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
#: the least and the greatest distance between two bars, in seconds; they differ for months only
Span = tuple[int, int]
DAY: Span = (DAY_S, DAY_S)

#: a unit with a number before it (5min) or after it (M5)
_NAME = re.compile(r"(\d*)[ _-]?([A-Za-z]+)|([A-Za-z]+)(\d+)")
_UNITS: dict[str, Span] = {
    **dict.fromkeys(("s", "sec", "second"), (1, 1)),
    **dict.fromkeys(("m", "min", "minute", "t"), (MINUTE_S, MINUTE_S)),
    **dict.fromkeys(("h", "hr", "hour", "hourly"), (HOUR_S, HOUR_S)),
    **dict.fromkeys(("d", "day", "daily", "eod"), DAY),
    **dict.fromkeys(("w", "wk", "week", "weekly"), (7 * DAY_S, 7 * DAY_S)),
    **dict.fromkeys(("mn", "mo", "mon", "month", "monthly"), (28 * DAY_S, 31 * DAY_S)),
}

#: least share of the distances between bars that equal their interval; the others bridge nights and gaps
_SHARE = 0.2
#: least share of the distances that the commonest one must have to count as the interval; rarely traded bars have none
_COMMON = 0.4
#: between the last days of trade of two months, and the first ones
_MONTHLY_S = (27 * DAY_S, 34 * DAY_S)
#: least number of equal distances that prove anything
_FEW = 3


def span(name: str) -> Span | None:
    """The distance that an interval's name (5m, 5min, M5, 1d, daily, 1D, …) stands for; None for any other name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    count = int(match[1] or match[4] or 1)
    unit = match[2] or match[3]
    if unit == "M" and match[3] is None:  # Binance's and pandas' month; MetaTrader writes minutes as M5
        unit = "month"
    bounds = _UNITS.get(unit.lower()) or _UNITS.get(unit.lower().removesuffix("s"))
    return (count * bounds[0], count * bounds[1]) if bounds and count else None


def same(one: str, other: str) -> bool:
    """Whether two names mean the same interval."""
    return one == other or (span(one) is not None and span(one) == span(other))


def measured_span(instants: Integers) -> Span | None:
    """The commonest distance between bars at these instants (in microseconds, ascending); None if none is common."""
    if len(instants) <= _FEW:
        return None
    distances = np.diff(instants)
    monthly = (distances >= _MONTHLY_S[0] * 1_000_000) & (distances <= _MONTHLY_S[1] * 1_000_000)
    if np.count_nonzero(monthly) >= max(_FEW, _COMMON * len(distances)):
        return _UNITS["month"]
    values, counts = np.unique(distances, return_counts=True)
    most = int(counts.max())
    if most < max(_FEW, _COMMON * len(distances)):
        return None
    seconds = int(values[counts.argmax()]) // 1_000_000
    return seconds, seconds


def contradiction(instants: Integers, wanted: Span) -> Span | None:
    """The measured distance between bars at these instants, if it clearly is not the wanted one."""
    if len(instants) <= _FEW:
        return None
    distances = np.diff(instants)
    fits = (distances >= wanted[0] * 1_000_000) & (distances <= wanted[1] * 1_000_000)
    return measured_span(instants) if fits.mean() < _SHARE else None


def short_name(bounds: Span) -> str:
    """The usual short name of an interval: 1d, 15m, 1h, 1mo."""
    count, unit = _counted(bounds)
    return f"{count}{'mo' if unit == 'month' else unit[0]}"


def worded(bounds: Span) -> str:
    """An interval in words: `15 minutes`, `1 day`."""
    count, unit = _counted(bounds)
    return counted(count, unit) if count else "less than a second"


def _counted(bounds: Span) -> tuple[int, str]:
    """An interval as a number of the largest unit that it is a multiple of."""
    if bounds[0] != bounds[1]:
        return bounds[0] // _UNITS["month"][0], "month"
    for unit, length in (("day", DAY_S), ("hour", HOUR_S), ("minute", MINUTE_S)):
        if bounds[0] and bounds[0] % length == 0:
            return bounds[0] // length, unit
    return bounds[0], "second"
