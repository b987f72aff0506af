"""The windows of a plan as bars over time: `plan --timeline`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from gpusched.client.drawing.text import glyphs
from gpusched.core.model import Window
from gpusched.core.planning import Plan, action
from gpusched.core.wording import counted, first_few

#: bars of a group of symbols; the others are counted
SHOWN_BARS = 60
#: cells of the dates before a bar: `2022-01-01 2022-06-29  `
_DATES = 23

#: the first day of a window that validates; None: not known
Boundary = Callable[[Window], dt.date | None]


class _Bar(msgspec.Struct, frozen=True):
    """A date range of a symbol, whose points of a sweep share it."""

    start: dt.date
    end: dt.date
    boundary: dt.date | None
    #: at least one window of it is trained or reused
    runs: bool


class _Marks(msgspec.Struct, frozen=True):
    """The characters of bars."""

    train: str
    validate: str
    idle: str


_FANCY = _Marks("█", "▒", "·")
_PLAIN = _Marks("#", "=", ".")


def boundary(settings: Mapping[str, Any]) -> Boundary:
    """Where the validation of a window begins by the settings of the built-in workload.

    A share of the rows is drawn as that share of the days. It is None for a random split and for other workloads.
    """
    days, share = settings.get("validation_days", 0), settings.get("validation_fraction")
    if settings.get("split") != "chronological" or share is None:
        return lambda window: None

    def first_day(window: Window) -> dt.date:
        length = (window.end - window.start).days + 1
        return window.end - dt.timedelta(min(length, days or max(1, round(length * share))) - 1)

    return first_day


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of each symbol by date; symbols whose windows are alike share their bars."""

    plan: Plan
    boundary: Boundary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        windows = [planned.window for planned in self.plan.windows]
        if not windows:
            return
        draw = glyphs(ascii_only=options.ascii_only)
        marks = _PLAIN if options.ascii_only else _FANCY
        first, last = min(window.start for window in windows), max(window.end for window in windows)
        width = max(20, options.max_width - _DATES)
        legend = f"{marks.train} train  {marks.validate} validate  {marks.idle} neither: skipped or refused"
        for bars, symbols in self._groups().items():
            heading = f"{first_few([*map(draw.clean, symbols)], 3)}: {counted(len(bars), 'date range')}"
            yield Text(draw.crop(heading, options.max_width).rstrip(), "bold", no_wrap=True)
            yield Text(" " * _DATES + f"{first}{str(last).rjust(width - len(str(first)))}", "dim", no_wrap=True)
            for bar in bars[:SHOWN_BARS]:
                cells = _drawn(bar, first, last, width, marks)
                yield Text(f"{bar.start} {bar.end}  {cells}".rstrip(), no_wrap=True, overflow="crop")
            if (more := len(bars) - SHOWN_BARS) > 0:
                yield Text(f"{draw.ellipsis} and {more:,} more", "dim")
            yield Text()
        yield Text(legend, "dim")

    def _groups(self) -> dict[tuple[_Bar, ...], list[str]]:
        """The bars of each symbol → the symbols that have them."""
        ranges: dict[str, dict[tuple[dt.date, dt.date], _Bar]] = {}
        for planned in self.plan.windows:
            window, runs = planned.window, action(planned) in ("train", "reuse")
            bars = ranges.setdefault(window.symbol, {})
            earlier = bars.get((window.start, window.end))
            if earlier is None or (runs and not earlier.runs):
                bars[window.start, window.end] = _Bar(window.start, window.end, self.boundary(window), runs)
        groups: dict[tuple[_Bar, ...], list[str]] = {}
        for symbol, bars in ranges.items():
            groups.setdefault(tuple(bars.values()), []).append(symbol)
        return groups


def _drawn(bar: _Bar, first: dt.date, last: dt.date, width: int, marks: _Marks) -> str:
    """A bar in `width` cells that stand for the days from `first` to `last`."""
    days = (last - first).days + 1

    def cell(day: dt.date) -> int:
        return round((day - first).days * width / days)

    begin = min(cell(bar.start), width - 1)
    end = max(begin + 1, cell(bar.end + dt.timedelta(1)) if bar.end < dt.date.max else width)
    if not bar.runs:
        return " " * begin + marks.idle * (end - begin)
    middle = end
    if bar.boundary is not None and end - begin > 1:
        middle = min(max(begin + 1, cell(max(bar.boundary, bar.start))), end - 1)
    return " " * begin + marks.train * (middle - begin) + marks.validate * (end - middle)
