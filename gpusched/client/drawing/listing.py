"""A listing: a table on a terminal, tab-separated lines below their names in a pipe, an object for `--json`."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

#: cells between columns
GAP = 2
#: cells that the first column has where it needs them and the line has them
LONG_CELLS = 40
#: cells down to which columns of text give way to the others; with fewer they say nothing
FEWEST_CELLS = 12
#: cells down to which a text that a listing is printed for gives way, after columns beside it were left out
CHIEF_CELLS = 24

#: names of mappings in which a workload or a sweep has named things, or by which `results --by` has values: a metric
#: `recall_at` is no instant. `a` and `b` are the metrics of a window that `compare` compares
_NAMED_BY_USERS = frozenset(
    {"metrics", "sample_counts", "phases", "parameters", "settings", "points", "values", "a", "b"}
)

#: cells that are aligned to the right
_NUMBER = re.compile(r"(-?[\d.,]*\d[%M]?)?")

Cell = str | int | float | None


def print_listing(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, styles: dict[str, str], chief: str = ""
) -> None:
    """Print rows of cells. `styles` colours a row by the text of any of its cells. None is an empty cell.

    Where a terminal is narrow, columns are left out from the right, but never the one called `chief`.
    """
    if on_terminal():
        _print_table(columns, [[_for_people(cell) for cell in row] for row in rows], styles, chief)
        return
    from gpusched.client.drawing.plain import clean

    lines = ["\t".join(map(clean, columns)), *("\t".join(clean(_for_programs(cell)) for cell in row) for row in rows)]
    print("\n".join(lines))  # noqa: T201


def print_json(value: Any) -> None:
    """Print a value of the protocol, or a container of such, with its instants as ISO 8601."""
    print(json.dumps(_with_dates(msgspec.to_builtins(value))))  # noqa: T201


def on_terminal() -> bool:
    """Whether people read stdout, which may also be closed."""
    return sys.stdout is not None and sys.stdout.isatty()


def device_cell(device_id: str | None) -> str | None:
    """A device: whole for programs; for people its start, which commands take, too."""
    from gpusched.client.drawing.text import device_name

    return device_name(device_id) if device_id and on_terminal() else device_id


def ago(at: float | None, now: float | None = None) -> str:
    """How long ago a Unix time was, for people; by the clock of the daemon where `now` is its instant."""
    from gpusched.client.drawing.text import duration

    return "" if at is None else f"{duration(max(0.0, (now or time.time()) - at))} ago"


def iso(at: float) -> str:
    """A Unix time as ISO 8601, in UTC."""
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds")


def _print_table(columns: Sequence[str], rows: list[list[str]], styles: dict[str, str], chief: str) -> None:
    """Print columns that have something in any row, and as many of them as the terminal has room for."""
    from rich.cells import cell_len
    from rich.console import Group
    from rich.text import Text

    from gpusched.client.drawing.terminal import open_console
    from gpusched.client.drawing.text import glyphs

    console = open_console()
    draw = glyphs(ascii_only=console.options.ascii_only)
    filled = [number for number in range(len(columns)) if number == 0 or not rows or any(row[number] for row in rows)]
    table = [[draw.clean(row[number]) for number in filled] for row in (columns, *rows)]
    by_column = list(zip(*table, strict=True))
    numeric = [bool(rows) and all(map(_NUMBER.fullmatch, texts[1:])) for texts in by_column]
    widths = _fitted(
        [max(map(cell_len, texts)) for texts in by_column],
        numeric,
        console.width,
        chief=next((place for place, number in enumerate(filled) if columns[number] == chief), None),
    )

    def line(texts: Sequence[str]) -> str:
        # A label that is longer than the line is told from others by its ends.
        cells = [draw.crop_middle(texts[0], widths[0])]
        for place, width in list(widths.items())[1:]:
            cells.append(texts[place].rjust(width) if numeric[place] else draw.crop(texts[place], width))
        return (" " * GAP).join(cells).rstrip()

    lines = [Text(line(table[0]), "bold", no_wrap=True)]
    for row, texts in zip(rows, table[1:], strict=True):
        style = next((styles[text] for text in row if text in styles), "")
        lines.append(Text(line(texts), style, no_wrap=True))
    console.print(Group(*lines))


def _fitted(widths: list[int], numeric: Sequence[bool], room: int, *, chief: int | None) -> dict[int, int]:
    """The widths of those columns that fit into `room` cells side by side: from the left, and the one called `chief`.

    The first, which tells the rows apart, is shortened only where it is long and would leave less than half of
    the line: the label of a window of a sweep names all its parameters. Other texts are shortened, the widest first.
    """
    longest = room if len(widths) == 1 else min(room, max(LONG_CELLS, room // 2))
    fitting = dict(enumerate([min(widths[0], longest), *widths[1:]]))
    least = {
        place: width if place == 0 or numeric[place] else min(width, CHIEF_CELLS if place == chief else FEWEST_CELLS)
        for place, width in fitting.items()
    }
    while sum(least.values()) + GAP * (len(least) - 1) > room:
        spare = [place for place in least if place not in (0, chief)] or [place for place in least if place]
        if not spare:
            break
        del least[spare[-1]], fitting[spare[-1]]
    for _ in range(sum(fitting.values()) + GAP * (len(fitting) - 1) - room):
        loose = [place for place, width in fitting.items() if width > least[place]]
        if not loose:
            break
        fitting[max(loose, key=fitting.__getitem__)] -= 1
    return fitting


def _for_people(cell: Cell) -> str:
    if not isinstance(cell, float):
        return "" if cell is None else str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"


def _for_programs(cell: Cell) -> str:
    """A number without an exponent, always in the same form."""
    if not isinstance(cell, float):
        return "" if cell is None else str(cell)
    return f"{round(cell, 6) + 0.0:.6f}".rstrip("0").rstrip(".")  # not -0


def _with_dates(value: Any) -> Any:
    """Numbers under `at` and `…_at` are instants everywhere in the protocol, but not where names are the user's own."""
    if isinstance(value, dict):
        return {key: item if key in _NAMED_BY_USERS else _dated(str(key), item) for key, item in value.items()}
    return [_with_dates(item) for item in value] if isinstance(value, list | tuple) else value


def _dated(name: str, value: Any) -> Any:
    is_instant = isinstance(value, int | float) and (name == "at" or name.endswith("_at"))
    return iso(value) if is_instant else _with_dates(value)
