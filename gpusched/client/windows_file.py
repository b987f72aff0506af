"""A windows file: the windows of a batch one by one, each a JSON object in a line of its own, or all in an array."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import msgspec

from gpusched.client.text_files import json_objects, name_given_twice
from gpusched.config.schema import MEGABYTE, Count, Priority, Seconds
from gpusched.core.model import Parameters, Window
from gpusched.core.planning import label_problem
from gpusched.core.points import point_name
from gpusched.core.symbols import symbol_problem
from gpusched.errors import InputError, did_you_mean, reworded


class BadWindow(InputError):
    problem = "{why}"
    remedy = 'mend or remove that line: {{"symbol": "AAPL", "start": "2022-01-01", "end": "2022-06-30"}} is one'


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of a file, in the order of their symbols, and the points that they are at by name."""

    windows: tuple[Window, ...] = ()
    points: dict[str, Parameters] = {}


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a line; the other fields of `Window` follow from them."""

    symbol: str
    start: dt.date
    end: dt.date
    label: str | None = None
    parameters: dict[str, Any] = {}
    priority: Priority = 0
    expected_seconds: Seconds = 0.0
    expected_memory_mb: Count = 0


_decode = msgspec.json.Decoder(_Line).decode


def parse_windows(text: str, place: str) -> Asked:
    """The windows of a file; `place` names it in errors. Raises BadWindow for the first line that cannot be used."""
    by_symbol: dict[str, list[Window]] = {}
    points: dict[str, Parameters] = {}
    lines: dict[str, int] = {}
    for number, source in _objects(text, place):
        where = f"{place}:{number}"
        entry = _decoded(source, where)
        window = _window(entry)
        if why := _problem(entry):
            raise BadWindow(place=where, why=why)
        if window.label in lines:
            raise BadWindow(place=where, why=f"line {lines[window.label]} has the label {window.label}, too")
        lines[window.label] = number
        if window.point:
            points[window.point] = entry.parameters
        by_symbol.setdefault(window.symbol, []).append(window)
    if not lines:
        raise BadWindow(place=place, why="it has no windows")
    return Asked(windows=tuple(window for windows in by_symbol.values() for window in windows), points=points)


def _objects(text: str, place: str) -> Iterator[tuple[int, str]]:
    try:
        yield from json_objects(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadWindow(place=place, why=reworded(error)) from None


def _decoded(source: str, where: str) -> _Line:
    try:
        names = msgspec.json.decode(source, type=dict[str, Any])
        for name in names:
            if name not in _Line.__struct_fields__:
                nearest = did_you_mean(name, _Line.__struct_fields__)
                raise BadWindow(place=where, why=f"a window has no field {name!r}{nearest}")
        entry = _decode(source)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadWindow(place=where, why=reworded(error)) from None
    # Of 100,000 lines, nearly none is worth a closer look.
    if source.count(":") > len(names) + len(entry.parameters) and (twice := name_given_twice(source)):
        raise BadWindow(place=where, why=f"{twice!r} is given twice")
    return entry


def _window(entry: _Line) -> Window:
    return Window(
        symbol=entry.symbol,
        start=entry.start,
        end=entry.end,
        point=point_name(entry.parameters),
        name=entry.label or "",
        priority=entry.priority,
        expected_seconds=float(entry.expected_seconds),
        expected_memory_bytes=entry.expected_memory_mb * MEGABYTE,
    )


def _problem(entry: _Line) -> str | None:
    if why := symbol_problem(entry.symbol):
        return f"{entry.symbol!r} cannot be a symbol: {why}"
    if entry.label is not None and (why := label_problem(entry.label)):
        return f"{entry.label!r} cannot be a label: {why}"
    if entry.end < entry.start:
        return f"the window ends on {entry.end}, before it starts on {entry.start}"
    return None
