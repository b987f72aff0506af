"""Bars: the prices and volumes of one symbol as columns, one row a bar, in order of time.

Parsed files become `Bars` by `clean`, which decides what is a bar; `window` selects a range of dates. Timestamps are
kept as they were written, wall clock and UTC offset: the date of a bar is the one at its exchange.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: offset of timestamps that were written without one
NAIVE = int(np.iinfo(np.int32).min)
PRICES = ("open", "high", "low", "close")
#: why a row was dropped; a code is its place here
DROPS = ("invalid_rows", "duplicate_rows", "conflicting_rows")
_INVALID, _DUPLICATE, _CONFLICTING = range(len(DROPS))

_DAY_US = 24 * 3600 * 1_000_000
_EPOCH = dt.date(1970, 1, 1)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """n bars in order of their instants, which are all different, and the m rows that were dropped."""

    #: (n,) microseconds of the wall clock since 1970-01-01, as written
    local: Integers
    #: (n,) seconds east of UTC, all of them `NAIVE` if there were none
    offset: npt.NDArray[np.int32]
    #: (n,) each; prices are finite and positive, volumes finite and not negative
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    #: (m,) like `local`
    dropped_local: Integers
    #: (m,) codes of `DROPS`
    dropped_code: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.local)

    def window(self, start: dt.date, end: dt.date) -> Bars:
        """The bars of the calendar dates `start` to `end`, both included, by the date that their timestamps show."""
        first, last = ((date - _EPOCH).days * _DAY_US for date in (start, end + dt.timedelta(days=1)))
        kept = (self.local >= first) & (self.local < last)
        dropped = (self.dropped_local >= first) & (self.dropped_local < last)
        return Bars(
            local=self.local[kept],
            offset=self.offset[kept],
            open=self.open[kept],
            high=self.high[kept],
            low=self.low[kept],
            close=self.close[kept],
            volume=self.volume[kept],
            dropped_local=self.dropped_local[dropped],
            dropped_code=self.dropped_code[dropped],
        )

    def columns(self) -> tuple[Integers, npt.NDArray[np.int32], Floats, Floats, Floats, Floats, Floats]:
        """The columns of the bars, in the order of the fields."""
        return self.local, self.offset, self.open, self.high, self.low, self.close, self.volume

    def quality(self) -> dict[str, int]:
        """How many rows were dropped, by reason."""
        counts = np.bincount(self.dropped_code, minlength=len(DROPS)).tolist()
        return dict(zip(DROPS, counts, strict=True))

    def dates(self) -> tuple[dt.date, dt.date] | None:
        """The first and the last date that has a bar."""
        if not len(self):
            return None
        first, last = int(self.local.min()) // _DAY_US, int(self.local.max()) // _DAY_US
        return _EPOCH + dt.timedelta(days=first), _EPOCH + dt.timedelta(days=last)

    def days(self) -> list[int]:
        """The days that have bars, as ordinals of the proleptic Gregorian calendar; some may be there twice."""
        days = self.local // _DAY_US
        changes = np.append(True, days[1:] != days[:-1])[: len(days)]
        ordinals: list[int] = (days[changes] + _EPOCH.toordinal()).tolist()
        return ordinals

    def timestamps(self, rows: slice) -> list[str]:
        """ISO-8601 with `T`, to the second (or microsecond where one bar has any), with the offset if there was one."""
        unit: Literal["us", "s"] = "us" if (self.local % 1_000_000).any() else "s"
        texts: list[str] = np.datetime_as_string(self.local[rows].astype("M8[us]"), unit=unit).tolist()
        offset = self.offset[rows].tolist()
        suffixes = {seconds: _suffix(seconds) for seconds in set(offset)}
        return [text + suffixes[seconds] for text, seconds in zip(texts, offset, strict=True)]


def clean(
    local: Integers,
    offset: npt.NDArray[np.int32],
    values: Floats,
) -> Bars:
    """Bars from rows in the order in which they were read.

    `values` is (5, n): open, high, low, close, volume; NaN where there was nothing. Rows without a usable price and
    volume are dropped; of several with the same instant the last read is kept, the others are dropped as duplicates
    (the same values) or conflicts (other values).
    """
    prices, volume = values[:4], values[4]
    with np.errstate(invalid="ignore"):
        valid = ((prices > 0) & (prices < np.inf)).all(axis=0) & (volume >= 0) & (volume < np.inf)
    instant = np.where(offset == NAIVE, local, local - offset.astype(np.int64) * 1_000_000)

    rows = np.flatnonzero(valid)
    order = rows[np.argsort(instant[rows], kind="stable")]
    ordered = instant[order]
    last_of_run = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
    kept = order[last_of_run]
    repeated = order[~last_of_run]
    keeper = kept[np.searchsorted(instant[kept], instant[repeated])]
    same = (values[:, repeated] == values[:, keeper]).all(axis=0)

    invalid = np.flatnonzero(~valid)
    codes = np.concatenate([np.full(len(invalid), _INVALID), np.where(same, _DUPLICATE, _CONFLICTING)])
    opened, high, low, close, volume = values[:, kept]
    return Bars(
        local=local[kept],
        offset=offset[kept],
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        dropped_local=np.concatenate([local[invalid], local[repeated]]),
        dropped_code=codes.astype(np.int8),
    )


def _suffix(offset_s: int) -> str:
    if offset_s == NAIVE:
        return ""
    # Python's own spelling: +05:30, and seconds only where an offset has them.
    return dt.datetime(2000, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=offset_s))).isoformat()[19:]
