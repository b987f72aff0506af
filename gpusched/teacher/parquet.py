"""Bars from a Parquet file, by way of pandas and the engine that it finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from gpusched.teacher.bars import NAIVE, Bars, clean
from gpusched.teacher.parsing import TIMESTAMPS, column_places, parse_timestamp
from gpusched.workload import BadData


def parse_parquet(path: Path) -> Bars:
    """The bars of a file with the columns of the CSV ones; the timestamp may be its index. Raises BadData."""
    frame = _read(path)
    names = [str(name) for name in frame.columns]
    if not any(name.strip().lower() in TIMESTAMPS for name in names):
        frame = frame.reset_index(names=TIMESTAMPS[0])
        names = [TIMESTAMPS[0], *names]
    try:
        timestamp, *values = (frame.iloc[:, place] for place in column_places(names))
    except KeyError as error:
        raise BadData(f"{path}: there is no column {error.args[0]!r} (there are: {', '.join(names)})") from None
    try:
        numbers = np.array([column.to_numpy(np.float64, na_value=np.nan) for column in values])
    except (ValueError, TypeError) as error:
        raise BadData(f"{path}: a price or volume is not a number: {error}") from None
    local, offset = _instants(path, timestamp)
    if len(set((offset == NAIVE).tolist())) > 1:
        raise BadData(f"{path}: some timestamps have a UTC offset and some have none")
    return clean(local, offset, numbers)


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise BadData(f"{path}: reading Parquet needs pyarrow (pip install pyarrow), or convert it to CSV") from None
    except (ValueError, OSError) as error:  # every error of pyarrow's is one of them
        raise BadData(f"{path}: cannot be read as Parquet: {error}") from None


def _instants(path: Path, timestamp: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Wall clock in microseconds since 1970-01-01 and offset in seconds."""
    if timestamp.dtype.kind != "M":
        pairs = [parse_timestamp(f"{path}: row {row}", str(text)) for row, text in enumerate(timestamp, start=1)]
        table = np.array(pairs, np.int64).reshape(-1, 2)
        return table[:, 0], table[:, 1].astype(np.int32)
    if timestamp.isna().any():
        raise BadData(f"{path}: row {int(timestamp.isna().argmax()) + 1} has no timestamp")
    wall = timestamp.dt.tz_localize(None).to_numpy("M8[us]").astype(np.int64)
    if timestamp.dt.tz is None:
        return wall, np.full(len(wall), NAIVE, np.int32)
    utc = timestamp.dt.tz_convert(None).to_numpy("M8[us]").astype(np.int64)
    return wall, ((wall - utc) // 1_000_000).astype(np.int32)
