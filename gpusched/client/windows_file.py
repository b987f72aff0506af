"""A windows file: the windows of a batch one by one, each a JSON object in a line of its own."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import msgspec

from gpusched.client.text_files import name_given_twice
from gpusched.config.schema import MEGABYTE, Count, Priority, Seconds
from gpusched.core.model import Parameters, Window
from gpusched.core.planning import label_problem
from gpusched.core.points import point_name
from gpusched.core.symbols import symbol_problem
from gpusched.errors import InputError, did_you_mean


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


def is_windows_file(text: str) -> bool:
    """Whether a text is that of a windows file: no symbol starts with a brace."""
    return text.lstrip("\ufeff \t\r\n").startswith("{")


def parse_windows(text: str, place: str) -> Asked:
    """The windows of a file; `place` names it in errors. Raises BadWindow for the first line that cannot be used."""
    by_symbol: dict[str, list[Window]] = {}
    points: dict[str, Parameters] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(io.StringIO(text.removeprefix("\ufeff"), newline=None), start=1):
        if not line.strip():
            continue
        where = f"{place}:{number}"
        entry = _decoded(line, where)
        window = _window(entry)
        if why := _problem(entry):
            raise BadWindow(place=where, why=why)
        if window.label in lines:
            raise BadWindow(place=where, why=f"line {lines[window.label]} has the label {window.label}, too")
        lines[window.label] = number
        if window.point:
            points[window.point] = entry.parameters
        by_symbol.setdefault(window.symbol, []).append(window)
    return Asked(windows=tuple(window for windows in by_symbol.values() for window in windows), points=points)


def _decoded(line: str, where: str) -> _Line:
    try:
        names = msgspec.json.decode(line, type=dict[str, Any])
        for name in names:
            if name not in _Line.__struct_fields__:
                nearest = did_you_mean(name, _Line.__struct_fields__)
                raise BadWindow(place=where, why=f"a window has no field {name!r}{nearest}")
        entry = _decode(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        expected, _, field = str(error).replace("`", "").partition(" - at $.")
        why = f"{field}: {expected[:1].lower()}{expected[1:]}" if field else expected
        raise BadWindow(place=where, why=why) from None
    # Of 100,000 lines, nearly none is worth a closer look.
    if line.count(":") > len(names) + len(entry.parameters) and (twice := name_given_twice(line)):
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
