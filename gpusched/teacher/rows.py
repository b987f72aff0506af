"""Rows of bars as they stand in files of any format: the result of parsing, and the input of cleaning."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from gpusched.core.wording import first_few
from gpusched.teacher import intervals
from gpusched.teacher.bars import NAIVE, Floats, Integers
from gpusched.teacher.layout import Layout
from gpusched.teacher.nearest import SHOWN, plain
from gpusched.workload import BadData, DataNote

#: note on a file without volumes
NO_VOLUMES = DataNote("volume", "there is no column of volumes: they are read as 0")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `data` that change how the files of a symbol are understood."""

    symbol: str
    columns: Mapping[str, str] = {}
    #: the IANA name of the exchange's time zone; empty: as the timestamps say
    timezone: str = ""
    #: format of the timestamps for `strptime`; empty: only unambiguous forms are read
    date_format: str = ""
    decimal: str = "."


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """n rows in the order in which they were read; see `Bars`."""

    local: Integers
    offset: npt.NDArray[np.int32]
    #: (5, n) open, high, low, close, volume
    values: Floats
    #: (n,) the number of the row's file, and of its line (or row, in Parquet) there
    file: Integers
    line: Integers
    notes: tuple[DataNote, ...] = ()
    #: names in the symbol column of the rows, each with the number of a file that has it
    symbols: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.local)


def join(parts: Sequence[Rows]) -> Rows:
    """Join parts in the order of their files. Of notes with the same kind and text one is kept."""
    if len(parts) == 1:
        return parts[0]
    file = np.concatenate([part.file for part in parts])
    order = np.argsort(file, kind="stable")
    return Rows(
        local=np.concatenate([part.local for part in parts])[order],
        offset=np.concatenate([part.offset for part in parts])[order],
        values=np.concatenate([part.values for part in parts], axis=1)[:, order],
        file=file[order],
        line=np.concatenate([part.line for part in parts])[order],
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        symbols={name: number for part in parts for name, number in part.symbols.items()},
    )


def require_one_clock(paths: Sequence[Path], rows: Rows) -> None:
    """Raise BadData if some timestamps have a UTC offset and others have none: they cannot be put in order."""
    naive = rows.offset == NAIVE
    if naive.all() or not naive.any():
        return
    other = int((naive != naive[0]).argmax())
    one, another = (f"{paths[int(rows.file[row])]}:{rows.line[row]}" for row in (other, 0))
    which, has = ("no UTC offset", "one") if naive[other] else ("a UTC offset", "none")
    raise BadData(
        f"{one}: the timestamp has {which}, and that of {another} has {has}",
        remedy='set data.timezone to the zone of the exchange, such as "Asia/Kolkata"',
    )


def require_one_symbol(paths: Sequence[Path], rows: Rows) -> None:
    """Raise BadData if the symbol columns of several files name different symbols."""
    if len({plain(name) for name in rows.symbols}) > 1:
        (one, first), (other, second) = list(rows.symbols.items())[:2]
        raise BadData(
            f"{paths[second]}: the symbol is {other}, and {one} in {paths[first]}",
            remedy="give each symbol files of its own",
        )


def of_heading(heading: str, symbol: str) -> tuple[DataNote, ...]:
    """A note on headings that name another symbol."""
    if not heading or plain(heading) == plain(symbol):
        return ()
    return (DataNote("symbol_column", f"the headings say {heading}"),)


def require_one_interval(path: Path, name: str, values: Iterable[str]) -> None:
    """Raise BadData if a column names several intervals, since then bars of several series are mixed."""
    named = sorted(values)
    if len(named) > 1 and all(value.isdigit() or intervals.span(value) for value in named):
        raise BadData(
            f"{path}: column {name.strip()!r} has {len(named)} values: {', '.join(named)}",
            remedy="give each interval a directory of its own",
        )


def require_symbols(place: str, name: str, empty: int, total: int) -> None:
    """Raise BadData if some rows name a symbol and `empty` others, the first of them at `place`, name none.

    A spreadsheet writes the symbol of many rows once, in a merged cell: whose the others are is not known.
    """
    if 0 < empty < total:
        others = f", and in {empty - 1} more of {total} rows" if empty > 1 else ""
        raise BadData(f"{place}: column {name!r} is empty here{others}", remedy="write the symbol into each row")


def own_rows(
    path: Path, name: str, texts: Mapping[str, int], total: int, symbol: str
) -> tuple[str | None, tuple[DataNote, ...]]:
    """Find the value of a symbol column that stands for `symbol`; None: all rows are used.

    `texts` maps the column's values to their numbers of rows. Also returns notes about the column. Raises BadData if it
    has several values, and none of them stands for the symbol.
    """
    values = list(texts)
    alike = [value for value in values if plain(value) == plain(symbol)]
    mine = symbol if symbol in texts else alike[0] if len(alike) == 1 else None
    if not values:
        return None, ()
    if len(values) == 1:
        if mine or not values[0]:
            return None, ()
        return None, (DataNote("symbol_column", f"column {name!r} says {values[0]}"),)
    shown = first_few(values, SHOWN)
    if mine is None:
        raise BadData(
            f"{path}: column {name!r} has {len(values)} values, and none of them is {symbol}: {shown}: use such a value"
            " as the symbol, or give it a file of its own"
        )
    text = f"column {name!r} has {len(values)} values: the {texts[mine]} rows of {mine} are read, of {total}"
    return mine, (DataNote("symbol_column", text),)


def other_column(layout: Layout, pairs: Sequence[tuple[Sequence[str], Sequence[str]]], symbol: str) -> str | None:
    """A sentence about the column that tells the rows of each pair apart; None if there is none.

    The two rows of a pair have one instant and different values. A column of numbers proves nothing: it differs as
    prices do.
    """
    for column in layout.unused:
        values = {row[column].strip() for pair in pairs for row in pair}
        if not all(one[column].strip() != other[column].strip() for one, other in pairs):
            continue
        name = layout.names[column].strip()
        if not name:
            return f"a column without a name has {len(values)} values: name it symbol, or what it is"
        if all(re.fullmatch(r"\d{1,2}:\d\d(:\d\d)?", value) for value in values):
            return f'{name} is a column of its own: set data.columns = {{time = "{name}"}}'
        if re.search(r"time|hour|minute", name.lower()):
            return f"{name} is a column of its own: write it into the timestamps"
        if any(plain(value) == plain(symbol) for value in values):
            return f'column {name} has {len(values)} values: set data.columns = {{symbol = "{name}"}}'
        if not all(re.fullmatch(r"[-+$]?[\d.,]*([eE][-+]?\d+)?%?", value) for value in values):
            return f"column {name} has {len(values)} values: {first_few(sorted(values), SHOWN)}"
    return None
