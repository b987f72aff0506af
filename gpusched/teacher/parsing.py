"""Parse the text of files into rows.

Files with the same header are parsed together: 860 files of one row take hardly longer than one file of 860. All forms
that are understood take the same path through this module, so that no file is read differently because of its
neighbours.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpusched.teacher.bars import PRICES, Integers
from gpusched.teacher.contents import read_file, require_text, require_utf8
from gpusched.teacher.layout import Layout, read_layout
from gpusched.teacher.numbers import floats
from gpusched.teacher.rows import (
    NO_VOLUMES,
    Reading,
    Rows,
    join,
    of_heading,
    other_column,
    own_rows,
    require_one_interval,
    require_symbols,
)
from gpusched.teacher.tables import Table, as_bytes, cut
from gpusched.teacher.timestamps import instants
from gpusched.workload import BadData, DataNote

#: the header has to be within this many lines, comments included
_HEAD_LINES = 50
_HEAD_BYTES = 8192


def parse(paths: Sequence[Path], reading: Reading) -> Rows:
    """Parse files in this order. Raises BadData with `file:line`, OSError."""
    groups: dict[Layout, list[int]] = {}
    bodies: list[bytes] = []
    layouts: dict[bytes, Layout] = {}
    unfinished: list[str] = []
    for number, path in enumerate(paths):
        layout, body = _split(path, read_file(path), reading, layouts)
        if layout is not None and body and not body.endswith(b"\n"):
            body = _finished(path, body, layout, unfinished)
        bodies.append(body)
        if layout is not None and body:
            groups.setdefault(layout, []).append(number)
    parts = [_rows(paths, bodies, members, layout, reading) for layout, members in groups.items()]
    rows = join(parts) if parts else _no_rows()
    if unfinished:
        more = f", and {len(unfinished) - 1} more such files" if len(unfinished) > 1 else ""
        note = DataNote("unfinished", unfinished[0] + more)
        rows = dataclasses.replace(rows, notes=(*rows.notes, note))
    return rows


def _no_rows() -> Rows:
    integers = np.zeros(0, np.int64)
    return Rows(integers, integers.astype(np.int32), np.zeros((5, 0)), integers, integers)


def _split(path: Path, content: bytes, reading: Reading, layouts: dict[bytes, Layout]) -> tuple[Layout | None, bytes]:
    """Split a file into its layout and its body, the bytes below the header; the layout is None if there is neither.

    `layouts` maps headers of one line that were seen before to their layouts; a new one is added.
    """
    first, _, body = content.partition(b"\n")
    if layout := layouts.get(first):
        return layout, body
    require_text(path, content)
    if b"\0" in content[:_HEAD_BYTES]:
        require_utf8(path, content)
    end = content.find(b"\n", _HEAD_BYTES)  # up to the end of a line, however wide the table is
    start = content[: end if end >= 0 else len(content)].removeprefix(codecs.BOM_UTF8)
    lines = start.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    try:
        texts = [line.decode() for line in lines[:_HEAD_LINES]]
    except UnicodeDecodeError:
        require_utf8(path, content)
        raise BadData(f"{path}:1: not text of lines") from None
    layout = read_layout(path, texts, reading.symbol, reading.columns)
    if layout is None:
        require_utf8(path, content)
        if any(line.strip() for line in lines[_HEAD_LINES:]) or end >= 0:
            raise BadData(f"{path}: there is no header in its first {_HEAD_LINES} lines")
        return None, b""
    if layout.lines == 1 and not (first.count(b"\r") > first.endswith(b"\r")):
        layouts[first] = layout
        return layout, body
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return layout, b"".join(content.split(b"\n", layout.lines)[layout.lines :])


def _finished(path: Path, body: bytes, layout: Layout, unfinished: list[str]) -> bytes:
    """Return the body with a line end at its end, without a last row that was cut off.

    `unfinished` gets a note on such a row, and on a last row without a line end, which may have been cut off.
    """
    start = max(body.rfind(b"\n"), body.rfind(b"\r")) + 1
    last = body[start:]
    if not last.strip():
        return body + b"\n"
    line = body.count(b"\n") + layout.lines + 1
    if last.count(layout.separator.encode()) + 1 < len(layout.names) and last[:1] in b'0123456789"':
        unfinished.append(f"{path.name}:{line}: the last line is incomplete and not read")
        return body[:start]
    unfinished.append(f"{path.name}:{line}: the last line has no line end, it may have been cut off")
    return body + b"\n"


def _rows(paths: Sequence[Path], bodies: Sequence[bytes], members: list[int], layout: Layout, reading: Reading) -> Rows:
    """Parse files that have the same layout."""
    table = cut([paths[number] for number in members], [bodies[number] for number in members], layout)
    notes = of_heading(layout.heading, reading.symbol)
    symbols = {layout.heading: members[0]} if layout.heading else {}
    if layout.symbol is not None and len(table):
        table, more = _own(table, layout.symbol, layout.names[layout.symbol].strip(), reading.symbol)
        notes += more
        if symbol := table.field(0, layout.symbol):
            symbols[symbol] = members[int(table.file[0])]
    if layout.interval is not None and len(table):
        require_one_interval(paths[members[0]], layout.names[layout.interval], _values(table, layout.interval)[0])
    local, offset = instants(table, layout.timestamp, layout.time, reading.date_format)
    columns = [*zip(layout.prices, PRICES, strict=True)]
    if layout.volume is not None:
        columns.append((layout.volume, "volume"))
    values = np.concatenate([floats(block, columns, reading.decimal) for block in table.blocks()], axis=1)
    if layout.volume is None:
        values = np.vstack([values, np.zeros(len(table))])
        notes += (NO_VOLUMES,)
    return Rows(local, offset, values, np.array(members, np.int64)[table.file], table.line, notes, symbols)


def _own(table: Table, column: int, name: str, symbol: str) -> tuple[Table, tuple[DataNote, ...]]:
    """Keep the rows of the symbol, if a column names several symbols."""
    counts, which = _values(table, column)
    if "" in counts:
        first = int((which == list(counts).index("")).argmax())
        require_symbols(table.place(first), name, counts[""], len(table))
    mine, notes = own_rows(table.path(0), name, counts, len(table), symbol)
    if mine is None:
        return table, notes
    return table.only(which == list(counts).index(mine)), notes


def _values(table: Table, column: int) -> tuple[dict[str, int], Integers]:
    """The values of a column with their numbers of rows, and the number of each row's value among them."""
    characters = table.characters(column)
    if not len(characters) or (characters == characters[:, :1]).all():
        counts = {table.field(0, column): len(table)}
        return counts, np.zeros(len(table), np.int64)
    values, which, numbers = np.unique(as_bytes(characters), return_inverse=True, return_counts=True)
    counts = {
        bytes(value).decode(errors="replace"): number
        for value, number in zip(values.tolist(), numbers.tolist(), strict=True)
    }
    return counts, which


def explain(path: Path, pairs: Sequence[tuple[int, int]], reading: Reading) -> str | None:
    """A sentence about the column that tells pairs of lines apart, which have one instant and different values."""
    layout, body = _split(path, read_file(path), reading, {})
    if layout is None:
        return None
    lines = {line for pair in pairs for line in pair}
    rows = {}
    before = 0
    reader = csv.reader(io.StringIO(body.decode(), newline=""), delimiter=layout.separator)
    for fields in reader:
        line = before + layout.lines + 1
        before = reader.line_num
        if line in lines and len(fields) == len(layout.names):
            rows[line] = fields
    complete = [(rows[one], rows[other]) for one, other in pairs if one in rows and other in rows]
    return other_column(layout, complete, reading.symbol) if complete else None
