"""A listing: a table on a terminal, tab-separated lines below their names in a pipe, an object for `--json`."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

#: a longer listing is not laid out: rich looks at every cell twice
LAID_OUT_ROWS = 2000

Cell = str | int | float | None


def print_listing(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, styles: dict[str, str]) -> None:
    """Print rows of cells. `styles` colours a row by the text of any of its cells. None is an empty cell."""
    texts = [[_text(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and len(texts) <= LAID_OUT_ROWS:
        _print_table(columns, texts, styles)
        return
    from gpusched.client.cells import clean

    out = ["\t".join(columns)]
    out += ["\t".join(clean(text) for text in row) for row in texts]
    sys.stdout.write("\n".join(out) + "\n")


def print_json(value: Any) -> None:
    """Print a value of the protocol, or a container of such, with its instants as ISO 8601."""
    print(json.dumps(_with_dates(msgspec.to_builtins(value))))  # noqa: T201


def ago(at: float | None) -> str:
    """How long ago a Unix time was, for people."""
    from gpusched.client.cells import duration

    return "" if at is None else f"{duration(max(0.0, time.time() - at))} ago"


def iso(at: float) -> str:
    """A Unix time as ISO 8601, in UTC."""
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds")


def _print_table(columns: Sequence[str], rows: list[list[str]], styles: dict[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from gpusched.client.cells import clean
    from gpusched.client.render import open_console

    console = open_console()

    def cell(number: int, text: str) -> Text:
        # The column's own no_wrap would have rich cut from all columns alike where there is little room, not from the
        # widest.
        return Text(clean(text, ascii_only=console.options.ascii_only), no_wrap=number != 0)

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        numeric = bool(rows) and all(_is_number(row[number]) for row in rows)
        # What tells a row from the others is not cut off.
        table.add_column(
            cell(number, name),
            justify="right" if numeric else "left",
            overflow="fold" if number == 0 else "ellipsis",
        )
    for row in rows:
        style = next((styles[text] for text in row if text in styles), "")
        table.add_row(*(cell(number, text) for number, text in enumerate(row)), style=style)
    console.print(table)


def _is_number(text: str) -> bool:
    return not text or text.replace(".", "").replace("-", "").isdigit()


def _text(cell: Cell) -> str:
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _with_dates(value: Any) -> Any:
    """Numbers under `at` and `…_at` are instants everywhere in the protocol."""
    if isinstance(value, dict):
        return {
            key: iso(item)
            if isinstance(item, int | float) and (key == "at" or str(key).endswith("_at"))
            else _with_dates(item)
            for key, item in value.items()
        }
    return [_with_dates(item) for item in value] if isinstance(value, list | tuple) else value
