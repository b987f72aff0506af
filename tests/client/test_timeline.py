"""`plan --timeline`, compared with what has been looked at."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from gpusched.client.drawing.timeline import Timeline, boundary
from gpusched.core.model import PlannedWindow, Window
from gpusched.core.planning import Plan, windows
from tests.client.support import drawn
from tests.client.test_screens import check
from tests.core.support import batch

SETTINGS = {"split": "chronological", "validation_fraction": 0.2}


def plan(*symbols: str, skipped: str = "", **fields: object) -> Plan:
    spec = msgspec.structs.replace(
        batch().spec,
        **{"symbols": symbols, "start": dt.date(2022, 1, 1), "end": dt.date(2023, 12, 31), "window_days": 180} | fields,
    )
    return Plan(
        windows=tuple(
            PlannedWindow(window=window, skip_reason="no data" if window.symbol == skipped else None)
            for window in windows(spec)
        )
    )


@pytest.mark.parametrize(("width", "encoding"), [(80, "utf-8"), (80, "ascii"), (200, "utf-8")])
def test_rolling_windows_of_symbols_that_are_alike(width: int, encoding: str) -> None:
    shown = drawn(
        Timeline(
            plan=plan("AAPL", "MSFT", "TCS", "M&M", "NONE", skipped="NONE", stride_days=90),
            boundary=boundary({**SETTINGS, "validation_days": 30}),
        ),
        width,
        40,
        encoding=encoding,
    )
    assert shown.isascii() == (encoding == "ascii")
    check(f"timeline-{'' if encoding == 'utf-8' else 'ascii-'}rolling", width, shown)


def test_expanding_windows_at_many_points_are_drawn_once() -> None:
    points = {f"x={number}": {"workload.x": number} for number in range(50)}
    shown = drawn(Timeline(plan=plan("AAPL", anchored=True, points=points), boundary=boundary(SETTINGS)), 80, 40)
    check("timeline-anchored", 80, shown)


def test_many_windows_are_counted_and_short_ones_seen() -> None:
    shown = drawn(Timeline(plan=plan("A", window_days=2), boundary=boundary(SETTINGS)), 80, 200).splitlines()
    assert "… and 305 more" in shown
    assert "2022-01-01 2022-01-02  █" in shown


def test_nothing_and_edges_of_the_calendar() -> None:
    assert drawn(Timeline(plan=Plan(windows=()), boundary=boundary(SETTINGS)), 80, 10) == ""
    edge = PlannedWindow(window=Window("A", dt.date(9999, 12, 1), dt.date.max))
    assert "█" in drawn(Timeline(plan=Plan(windows=(edge,)), boundary=boundary({})), 80, 10)


@pytest.mark.parametrize("settings", [{}, {"split": "random", "validation_fraction": 0.2}, {"split": "chronological"}])
def test_what_validates_is_not_always_known(settings: dict[str, object]) -> None:
    assert boundary(settings)(Window("A", dt.date(2022, 1, 1), dt.date(2022, 1, 10))) is None
