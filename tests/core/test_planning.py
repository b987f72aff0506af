"""Date ranges, and the identity of batches."""

from __future__ import annotations

import datetime as dt
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from gpusched.core.model import BatchSpec, Limits, Parameters, Window
from gpusched.core.planning import (
    Plan,
    accepted,
    batch_id,
    date_ranges,
    digest,
    most_windows,
    name_problem,
    settings_digest,
    windows,
    windows_problem,
)
from tests.core.support import batch, planned

dates = st.dates(dt.date(1990, 1, 1), dt.date(2030, 1, 1))
SPEC = batch().spec


def ranges(start: str, end: str, days: int) -> list[str]:
    found = date_ranges(dt.date.fromisoformat(start), dt.date.fromisoformat(end), days)
    return [f"{first} {last}" for first, last in found]


def test_three_years_by_half_years() -> None:
    assert ranges("2022-01-01", "2024-12-31", 180) == [
        "2022-01-01 2022-06-29",
        "2022-06-30 2022-12-26",
        "2022-12-27 2023-06-24",
        "2023-06-25 2023-12-21",
        "2023-12-22 2024-06-18",
        "2024-06-19 2024-12-15",
        "2024-12-16 2024-12-31",
    ]


def test_one_year_by_half_years_has_a_tail_too_short() -> None:
    assert ranges("2022-01-01", "2022-12-31", 180) == ["2022-01-01 2022-06-29", "2022-06-30 2022-12-26"]


@pytest.mark.parametrize(("tail", "count"), [(0, 1), (1, 1), (6, 1), (7, 2), (9, 2)])
def test_tails(tail: int, count: int) -> None:
    assert len(ranges("2022-01-01", f"2022-01-{10 + tail}", 10)) == count


@pytest.mark.parametrize("days", [1, 3, 6, 7])
def test_whole_windows_are_never_too_short(days: int) -> None:
    assert ranges("2022-01-01", f"2022-01-0{days}", days) == [f"2022-01-01 2022-01-0{days}"]
    assert len(ranges("2022-01-01", "2022-01-07", days)) == 7 // days


def test_edges_of_the_calendar() -> None:
    assert ranges("2022-01-01", "2022-01-01", 1) == ["2022-01-01 2022-01-01"]
    assert ranges("2022-01-01", "2022-01-01", 180) == []
    assert ranges("2022-01-02", "2022-01-01", 1) == []
    assert ranges("9999-12-20", "9999-12-31", 180) == ["9999-12-20 9999-12-31"]
    assert ranges("2022-01-01", "2022-12-31", 10**18) == ["2022-01-01 2022-12-31"]
    assert ranges("2024-02-28", "2024-03-01", 1) == [
        "2024-02-28 2024-02-28",
        "2024-02-29 2024-02-29",
        "2024-03-01 2024-03-01",
    ]
    with pytest.raises(ValueError):
        ranges("2022-01-01", "2022-01-01", 0)


def strided(end: str, days: int, stride: int, *, anchored: bool = False) -> list[str]:
    found = date_ranges(dt.date(2022, 1, 1), dt.date.fromisoformat(end), days, stride, anchored=anchored)
    return [f"{first:%m-%d} {last:%m-%d}" for first, last in found]


def test_rolling_ranges_end_with_the_first_that_reaches_the_end() -> None:
    assert strided("2022-03-01", 30, 10) == ["01-01 01-30", "01-11 02-09", "01-21 02-19", "01-31 03-01"]
    assert strided("2022-03-08", 30, 10)[-1] == "02-10 03-08", "it adds seven days"
    assert strided("2022-03-07", 30, 10)[-1] == "01-31 03-01", "six days are too few"
    assert strided("2022-03-03", 30, 1)[-1] == "02-02 03-03"
    assert strided("2022-01-20", 30, 10) == ["01-01 01-20"]


def test_anchored_ranges_grow() -> None:
    assert strided("2022-03-01", 30, 10, anchored=True) == ["01-01 01-30", "01-01 02-09", "01-01 02-19", "01-01 03-01"]
    assert strided("2022-03-01", 30, 0, anchored=True) == ["01-01 01-30", "01-01 03-01"]


def test_a_stride_longer_than_a_window_leaves_days_out() -> None:
    assert strided("2022-03-01", 10, 30) == ["01-01 01-10", "01-31 02-09"]
    assert strided("2022-03-08", 10, 30) == ["01-01 01-10", "01-31 02-09", "03-02 03-08"]


@given(dates, st.integers(0, 2000), st.integers(1, 400), st.integers(0, 500), st.booleans())
def test_the_number_of_windows_is_bounded_before_they_are_made(
    start: dt.date, length: int, days: int, stride: int, anchored: bool
) -> None:
    end = start + dt.timedelta(length)
    spec = msgspec.structs.replace(
        SPEC, symbols=("A", "B"), start=start, end=end, window_days=days, stride_days=stride, anchored=anchored
    )
    found = [window.label for window in windows(spec)]
    assert len(set(found)) == len(found) <= most_windows(spec)


@given(dates, st.integers(0, 2000), st.integers(1, 400))
def test_ranges_lie_side_by_side(start: dt.date, length: int, days: int) -> None:
    end = start + dt.timedelta(length)
    found = date_ranges(start, end, days)
    first = start
    for n, (a, b) in enumerate(found):
        assert a == first
        assert a <= b <= end
        assert (b - a).days + 1 == days or n == len(found) - 1
        first = b + dt.timedelta(1)
    assert (end - first).days + 1 < min(7, days), "what is left over is too short to be a window"


def test_windows_are_symbol_major() -> None:
    spec = msgspec.structs.replace(SPEC, symbols=("B", "A"), end=dt.date(2022, 1, 2))
    one, two = dt.date(2022, 1, 1), dt.date(2022, 1, 2)
    assert list(windows(spec)) == [
        Window("B", one, one),
        Window("B", two, two),
        Window("A", one, one),
        Window("A", two, two),
    ]
    assert next(windows(spec)).label == "B_2022-01-01_to_2022-01-01"


def test_a_batch_keeps_its_points_and_not_its_windows() -> None:
    spec = msgspec.structs.replace(SPEC, windows=(Window("A", DAY, DAY),), points={"x=1": {"workload.x": 1}})
    assert accepted(spec) == msgspec.structs.replace(spec, windows=())


def test_a_sweep_has_each_range_at_each_point() -> None:
    points: dict[str, Parameters] = {"x=1": {"workload.x": 1}, "x=2": {"workload.x": 2}}
    spec = msgspec.structs.replace(SPEC, symbols=("B", "A"), end=dt.date(2022, 1, 2), points=points)
    found = [window.label for window in windows(spec)]
    assert found[:2] == ["B_2022-01-01_to_2022-01-01_x=1", "B_2022-01-01_to_2022-01-01_x=2"]
    assert found[2] == "B_2022-01-02_to_2022-01-02_x=1"
    assert len(found) == most_windows(spec) == 8


DAY = dt.date(2022, 1, 1)


def test_windows_that_are_asked_for_one_by_one_are_the_windows() -> None:
    asked = (Window("A", DAY, DAY, name="first"), Window("A", DAY, DAY), Window("A", DAY, DAY, "x=1"))
    spec = msgspec.structs.replace(SPEC, symbols=("A",), windows=asked, points={"x=1": {}})
    assert tuple(windows(spec)) == asked
    assert most_windows(spec) == 3
    assert windows_problem(spec) is None
    dates = "2022-01-01_to_2022-01-01"
    assert [window.label for window in asked] == ["first", f"A_{dates}", f"A_{dates}_x=1"]


@pytest.mark.parametrize(
    ("window", "why"),
    [
        (Window("B", DAY, DAY), "of a symbol that the batch does not name"),
        (Window("A", DAY, DAY, name="../up"), "'../up' is not a label: a label has 1 to 160 letters"),
        (Window("A", DAY, DAY, name="teacher_runs.json"), "teacher_runs.json is the index of the batch"),
        (Window("A", DAY, dt.date(2021, 1, 1)), "ends on 2021-01-01, before it starts on 2022-01-01"),
        (Window("A", DAY, DAY, "y=1"), "is at a point 'y=1' that the batch does not have"),
        (Window("A", DAY, DAY, expected_seconds=-1.0), "expects a duration or a memory that cannot be"),
        (Window("A", DAY, DAY, expected_memory_bytes=-1), "expects a duration or a memory that cannot be"),
        (Window("A", DAY, DAY, name="first"), "two windows have the label first"),
    ],
)
def test_windows_that_cannot_be(window: Window, why: str) -> None:
    spec = msgspec.structs.replace(SPEC, symbols=("A",), windows=(Window("A", DAY, DAY, name="first"), window))
    assert why in (windows_problem(spec) or "")


@pytest.mark.parametrize(
    "change",
    [
        {"symbols": ("A", "B")},
        {"symbols": ("B",)},
        {"start": dt.date(2021, 12, 31)},
        {"end": dt.date(2022, 1, 2)},
        {"window_days": 2},
        {"stride_days": 1},
        {"anchored": True},
        {"points": {"x=1": {"workload.x": 1}}},
        {"windows": (Window("A", dt.date(2022, 1, 1), dt.date(2022, 1, 1)),)},
        {"data_root": "/other"},
        {"workload": "w:other"},
        {"settings": {"x": 1}},
        {"device": "cpu"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_digest_follows_what_is_asked_for(change: dict[str, Any]) -> None:
    assert digest(msgspec.structs.replace(SPEC, **change), None) != digest(SPEC, None)


def test_digest_does_not_follow_how_it_is_run() -> None:
    run = msgspec.structs.replace(SPEC, workers=3, priority=9, limits=Limits(max_attempts=9, timeout_s=1))
    assert digest(run, None) == digest(SPEC, None)
    assert len({digest(SPEC, None), digest(SPEC, "/out"), digest(SPEC, "")}) == 3
    ordered = msgspec.structs.replace(SPEC, settings={"a": 1, "b": {"c": 2, "d": 3}})
    other = msgspec.structs.replace(SPEC, settings={"b": {"d": 3, "c": 2}, "a": 1})
    assert digest(ordered, None) == digest(other, None)


def test_digest_is_the_same_in_every_release() -> None:
    """Golden. Batches on disk are known by it: a change makes every resubmission a new batch."""
    assert digest(SPEC, None) == "c1099523c1d9e1cace90b6c23aaf6094cd36c509e0aa17134c80279eec55ba45"
    decoded = msgspec.json.decode(msgspec.json.encode(SPEC), type=BatchSpec)
    assert digest(decoded, None) == digest(SPEC, None)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nifty50", "nifty50-01234567"),
        ("../../etc/passwd", "etc-passwd-01234567"),
        ("..", "batch-01234567"),
        ("", "batch-01234567"),
        ("Ärger im Büro", "rger-im-B-ro-01234567"),
        ("a\0b\nc", "a-b-c-01234567"),
        ("x" * 300, "x" * 40 + "-01234567"),
    ],
)
def test_batch_id(source: str, expected: str) -> None:
    assert batch_id(source, "0123456789abcdef") == expected


@given(st.text())
def test_a_batch_id_is_always_a_name(source: str) -> None:
    assert name_problem(batch_id(source, "0123456789abcdef")) is None


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "9", "x" * 80, "a..b"])
def test_names(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "ä", "x" * 81, "a\0"])
def test_what_is_not_a_name(name: str) -> None:
    assert "1 to 80" in (name_problem(name) or "")


def test_a_plan_in_three_parts() -> None:
    train, skip, reuse, both = (
        planned("A"),
        planned("B", skip="too short"),
        planned("C", committed=True),
        planned("D", skip="too short", committed=True),
    )
    plan = Plan(windows=(train, skip, reuse, both))
    assert (plan.to_train, plan.to_skip, plan.to_reuse) == ((train,), (skip, both), (reuse,))


@pytest.mark.parametrize(
    "which",
    [
        {"symbols": ("OTHER",)},
        {"start": dt.date(1999, 1, 1), "end": dt.date(1999, 2, 1)},
        {"window_days": 7, "stride_days": 3, "anchored": True},
        {"windows": (Window("A", dt.date(2020, 1, 1), dt.date(2020, 1, 2), name="one"),)},
        {"workers": 3, "priority": 1, "limits": Limits(timeout_s=1.0)},
    ],
)
def test_symbols_and_dates_are_no_settings(which: dict[str, Any]) -> None:
    assert settings_digest(msgspec.structs.replace(SPEC, **which)) == settings_digest(SPEC)


@pytest.mark.parametrize(
    "how",
    [
        {"settings": {"lightgbm": {"num_leaves": 7}}},
        {"data_root": "/other"},
        {"workload": "mine:train"},
        {"device": "cpu"},
        {"points": {"horizon=5": {"labels.horizon": 5}}},
    ],
)
def test_settings_are_told_apart(how: dict[str, Any]) -> None:
    assert settings_digest(msgspec.structs.replace(SPEC, **how)) != settings_digest(SPEC)
