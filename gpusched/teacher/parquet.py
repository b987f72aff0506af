"""Rows of Parquet files, read with pandas and the Parquet engine that it finds."""

from __future__ import annotations

import functools
import io
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gpusched.teacher.bars import NAIVE, PRICES, Floats
from gpusched.teacher.contents import read_file
from gpusched.teacher.layout import SYMBOLS, TIMESTAMPS, Layout, heading_symbol, joined_names, layout_of
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
from gpusched.teacher.tables import column_of
from gpusched.teacher.timestamps import Instants, instants
from gpusched.workload import BadData

#: most rows of a file; a text file of `contents.MOST_BYTES` has no more
MOST_ROWS = 40_000_000
#: attribute of a frame: the only symbol in its headings
_HEADING = "heading"


def parse(paths: Sequence[Path], reading: Reading) -> Rows:
    """Read files that have the columns of CSV files, some perhaps in their index. Raises BadData, OSError."""
    return join([_rows(number, path, reading) for number, path in enumerate(paths)])


def explain(path: Path, pairs: Sequence[tuple[int, int]], reading: Reading) -> str | None:
    """A sentence about the column that tells pairs of rows apart, which have one instant and different values."""
    frame = _frame(path, reading.symbol)
    layout = layout_of(str(path), list(frame.columns), reading.columns)
    fields = {row: [str(value) for value in frame.iloc[row - 1]] for pair in pairs for row in pair}
    return other_column(layout, [(fields[one], fields[other]) for one, other in pairs], reading.symbol)


def _rows(number: int, path: Path, reading: Reading) -> Rows:
    frame = _frame(path, reading.symbol)
    layout = layout_of(str(path), list(frame.columns), reading.columns)
    line = np.arange(1, len(frame) + 1)
    heading = frame.attrs.get(_HEADING, "")
    notes = of_heading(heading, reading.symbol)
    named = {heading: number} if heading else {}
    if layout.symbol is not None and len(frame):
        symbols = frame.iloc[:, layout.symbol]
        symbols = symbols.astype(str).where(symbols.notna(), "")
        empty = (symbols == "").to_numpy(bool)
        place = f"{path}: row {line[empty.argmax()]}"
        require_symbols(place, layout.names[layout.symbol], int(empty.sum()), len(frame))
        counts = {str(value): int(count) for value, count in symbols.value_counts(sort=False).items() if count}
        mine, more = own_rows(path, layout.names[layout.symbol], counts, len(frame), reading.symbol)
        notes += more
        if mine is not None:
            kept = (symbols == mine).to_numpy(bool)
            frame, line = frame[kept], line[kept]
        named |= {str(name): number for name in frame.iloc[:1, layout.symbol].dropna()}
    if layout.interval is not None:
        intervals = frame.iloc[:, layout.interval].dropna()
        require_one_interval(path, layout.names[layout.interval], {str(value) for value in intervals.unique()})
    local, offset = _instants(path, frame, layout, line, reading)
    numbers = functools.partial(_numbers, path, frame, line, reading)
    values = [numbers(column, name) for column, name in zip(layout.prices, PRICES, strict=True)]
    if layout.volume is None:
        values.append(np.zeros(len(frame)))
        notes += (NO_VOLUMES,)
    else:
        values.append(numbers(layout.volume, "volume"))
    return Rows(local, offset, np.array(values), np.full(len(frame), number), line, notes, named)


def _frame(path: Path, symbol: str) -> pd.DataFrame:
    """A file's columns, including its index; every column has a name."""
    frame = _read(path)
    heading = ""
    index = [] if isinstance(frame.index, pd.RangeIndex) else [str(name or "") for name in frame.index.names]
    if frame.columns.nlevels > 1:
        levels = [["", *map(str, frame.columns.get_level_values(level))] for level in (0, 1)]
        names = joined_names([*levels, [""]], symbol)[1:]
        heading = heading_symbol([*levels, [""]])
    else:
        names = [str(name) for name in frame.columns]
    frame.columns = pd.Index(names)
    if not any(name.strip().lower() in TIMESTAMPS for name in (*index, *names)):
        # Dates in an index of any other name are the timestamps.
        dated = [frame.index.get_level_values(level).dtype.kind == "M" for level in range(len(index))]
        index = [TIMESTAMPS[0] if is_dated else name for name, is_dated in zip(index, dated, strict=True)]
        if index == [""] and frame.index.dtype.kind in "iu" and len(frame):
            # Row numbers, days or epochs: in CSV a header at least shows that pandas wrote an index there.
            raise BadData(
                f"{path}: its index holds whole numbers ({frame.index[0]}, …) and has no name: if these are timestamps,"
                " write the file with the index named timestamp (or as dates)"
            )
    for key, value in _partitions(path).items():
        if key.lower() in SYMBOLS and key not in names:
            frame[key] = value
            names.append(key)
    if index:
        levels_of_index = [frame.index.get_level_values(level) for level in range(frame.index.nlevels)]
        columns = [pd.Series(level, index=range(len(frame))) for level in levels_of_index]
        frame = pd.concat([*columns, frame.reset_index(drop=True)], axis=1)
        frame.columns = pd.Index([*index, *names])
    frame.attrs[_HEADING] = heading
    return frame


def _read(path: Path) -> pd.DataFrame:
    content = read_file(path)
    _require_few_rows(path, content)
    try:
        return pd.read_parquet(io.BytesIO(content))
    except ImportError:
        raise BadData(f"{path}: reading Parquet needs pyarrow (pip install pyarrow), or convert it to CSV") from None
    except MemoryError:
        raise
    except Exception as error:  # of many classes for a damaged file; the disk has delivered its bytes
        why = str(error).partition("\n")[0]  # some list all columns
        raise BadData(f"{path}: cannot be read as Parquet: {why}") from None


def _require_few_rows(path: Path, content: bytes) -> None:
    """Raise BadData for more rows than a text file can have: a megabyte of equal ones unpacks to all of the memory."""
    try:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_metadata(io.BytesIO(content)).num_rows
    except MemoryError:
        raise
    except Exception:  # pandas finds another engine, or tells what is wrong
        return
    if rows > MOST_ROWS:
        raise BadData(f"{path}: has {rows:,} rows, more than {MOST_ROWS:,}: give the symbol several smaller files")


def _partitions(path: Path) -> dict[str, str]:
    """The columns that the directories of a partitioned data set name, as `symbol=AAPL`."""
    values = {}
    for parent in path.parents:
        key, equals, value = parent.name.partition("=")
        if not equals:
            break
        values[key] = urllib.parse.unquote(value)
    return values


def _numbers(path: Path, frame: pd.DataFrame, line: np.ndarray, reading: Reading, place: int, name: str) -> Floats:
    column = frame.iloc[:, place]
    if pd.api.types.infer_dtype(column) == "string":  # the same texts are the same numbers as in a text file
        texts = ["" if pd.isna(value) else str(value) for value in column]
        numbers: Floats = floats(column_of(path, [texts], line), [(0, name)], reading.decimal)[0]
        return numbers
    try:
        return column.to_numpy(np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise BadData(f"{path}: {name} is not a number: {error}") from None


def _instants(path: Path, frame: pd.DataFrame, layout: Layout, line: np.ndarray, reading: Reading) -> Instants:
    timestamp = frame.iloc[:, layout.timestamp]
    if timestamp.isna().any():
        raise BadData(f"{path}: row {int(line[timestamp.isna().argmax()])} has no timestamp")
    if timestamp.dtype.kind != "M" or layout.time is not None:
        columns = [timestamp] if layout.time is None else [timestamp, frame.iloc[:, layout.time]]
        texts = [["" if pd.isna(value) else str(value) for value in column] for column in columns]
        table = column_of(path, texts, line)
        return instants(table, 0, None if layout.time is None else 1, reading.date_format)
    wall = timestamp.dt.tz_localize(None).to_numpy("M8[us]").astype(np.int64)
    if timestamp.dt.tz is None:
        return wall, np.full(len(wall), NAIVE, np.int32)
    utc = timestamp.dt.tz_convert(None).to_numpy("M8[us]").astype(np.int64)
    return wall, ((wall - utc) // 1_000_000).astype(np.int32)
