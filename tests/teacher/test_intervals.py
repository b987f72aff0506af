from __future__ import annotations

import numpy as np
import pytest

from gpusched.teacher import intervals

DAY, HOUR, MINUTE = 86_400, 3600, 60


@pytest.mark.parametrize(
    ("seconds", "names"),
    [
        (DAY, ["1d", "1day", "day", "daily", "1D", "D1", "d", "1_day", "24h", "eod"]),
        (5 * MINUTE, ["5m", "5min", "5minute", "5minutes", "M5", "5T", "5-min", "300s"]),
        (HOUR, ["1h", "60min", "hourly", "H1", "1hour", "60m", "hour"]),
        (4 * HOUR, ["4h", "H4", "240min"]),
        (MINUTE, ["1m", "minute", "M1", "1min", "m"]),
        (7 * DAY, ["1w", "weekly", "W1", "7d", "1wk"]),
    ],
)
def test_names(seconds: int, names: list[str]) -> None:
    assert {name: intervals.span(name) for name in names} == dict.fromkeys(names, (seconds, seconds))
    assert all(intervals.same(name, names[0]) for name in names)


@pytest.mark.parametrize("name", ["1M", "1mo", "monthly", "MN1", "1month"])
def test_months(name: str) -> None:
    assert intervals.span(name) == (28 * DAY, 31 * DAY)


@pytest.mark.parametrize("name", ["", "bars", "60", "renko10", "0d", "1x", "tick", "2023", "1d-adjusted"])
def test_names_that_mean_nothing(name: str) -> None:
    assert intervals.span(name) is None
    assert intervals.same(name, name)
    assert not intervals.same(name, "other")


@pytest.mark.parametrize(
    ("seconds", "short", "worded"),
    [
        (DAY, "1d", "1 day"),
        (7 * DAY, "7d", "7 days"),
        (HOUR, "1h", "1 hour"),
        (90 * MINUTE, "90m", "90 minutes"),
        (15 * MINUTE, "15m", "15 minutes"),
        (1, "1s", "1 second"),
    ],
)
def test_what_they_are_called(seconds: int, short: str, worded: str) -> None:
    bounds = (seconds, seconds)
    assert (intervals.short_name(bounds), intervals.worded(bounds)) == (short, worded)
    assert intervals.span(short) == bounds


def test_the_commonest_distance() -> None:
    days = np.array([0, 1, 2, 3, 4, 7, 8, 9, 10, 11]) * DAY * 1_000_000
    assert intervals.measured_span(days) == (DAY, DAY)
    assert intervals.measured_span(days[:3]) is None
    months = np.array([0, 31, 59, 90, 120, 151]) * DAY * 1_000_000
    assert intervals.measured_span(months) == intervals.span("1M")
    assert intervals.short_name((28 * DAY, 31 * DAY)) == "1mo"
    assert intervals.worded((28 * DAY, 31 * DAY)) == "1 month"
