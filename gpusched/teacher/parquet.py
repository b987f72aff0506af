"""Bars from a Parquet file, by way of pandas and the engine that it finds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gpusched.teacher.bars import NAIVE, Bars, clean
from gpusched.teacher.parsing import TIMESTAMPS, VALUES, column_places, parse_timestamp
from gpusched.workload import BadData


def parse_parquet(path: str) -> Bars:
    """The bars of a file with the columns of the CSV ones; the timestamp may be its index. Raises BadData."""
    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise BadData(f"{path}: reading Parquet needs pyarrow: pip install pyarrow (or convert the file to CSV)") from None
    except (ValueError, OSError) as error:  # pyarrow's own errors are one or the other
        raise BadData(f"{path}: cannot be read as Parquet: {error}") from None
    names = [str(name) for name in frame.columns]
    if not any(name.strip().lower() in TIMESTAMPS for name in names):
        frame = frame.reset_index(names=TIMESTAMPS[0])
        names = [TIMESTAMPS[0], *names]
    try:
        stamps, *values = (frame.iloc[:, place] for place in column_places(names))
    except KeyError as error:
        raise BadData(f"{path}: there is no column {error.args[0]!r} (there are: {', '.join(names)})") from None
    try:
        numbers = np.array([column.to_numpy(np.float64, na_value=np.nan) for column in values])
    except (ValueError, TypeError) as error:
        raise BadData(f"{path}: a price or volume is not a number: {error}") from None
    if not isinstance(stamps.dtype, pd.DatetimeTZDtype | np.dtype) or stamps.dtype.kind != "M":
        parsed = [parse_timestamp(f"{path}: row {row}", str(text)) for row, text in enumerate(stamps, start=1)]
        local, offset = (np.array(column) for column in zip(*parsed, strict=True)) if parsed else (np.array([]),) * 2
        if len({seconds == NAIVE for seconds in offset.tolist()}) > 1:
            raise BadData(f"{path}: some timestamps have a UTC offset and some have none")
        return clean(local.astype(np.int64), offset.astype(np.int32), numbers)
    if stamps.isna().any():
        raise BadData(f"{path}: row {int(stamps.isna().argmax()) + 1} has no timestamp")
    wall = stamps.dt.tz_localize(None).to_numpy("M8[us]").astype(np.int64)
    if stamps.dt.tz is None:
        return clean(wall, np.full(len(wall), NAIVE, np.int32), numbers)
    utc = stamps.dt.tz_convert(None).to_numpy("M8[us]").astype(np.int64)
    return clean(wall, ((wall - utc) // 1_000_000).astype(np.int32), numbers)
