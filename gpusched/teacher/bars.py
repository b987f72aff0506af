"""Bars: the prices and volumes of one symbol as columns, one row per bar, in order of time.

`sift` makes `Bars` of parsed rows and drops those that cannot be bars; `window` selects a range of dates. Timestamps
are kept as they were written, wall clock and UTC offset: the date of a bar is the date at its exchange.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Literal

import numpy as np
import numpy.typing as npt

from gpusched.workload import DataNote

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: the offset of timestamps that were written without one
NAIVE = int(np.iinfo(np.int32).min)
PRICES = ("open", "high", "low", "close")
VALUES = (*PRICES, "volume")
#: reasons why a row was dropped, one bit each; bits 0 to 4 mean that open, high, low, close or volume is missing
UNPRICED, INFINITE, NEGATIVE_VOLUME, DUPLICATE, CONFLICTING = (1 << bit for bit in range(5, 10))
_INVALID = (1 << 8) - 1

DAY_US = 24 * 3600 * 1_000_000
_EPOCH = dt.date(1970, 1, 1)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """n bars in ascending order of their instants, which are all different, and the m rows that were dropped."""

    #: (n,) microseconds of the wall clock since 1970-01-01, as written
    local: Integers
    #: (n,) seconds east of UTC; all of them `NAIVE` if the timestamps have no offset
    offset: npt.NDArray[np.int32]
    #: (n,) each; prices are finite and positive, volumes finite and not negative
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    #: (m,) like `local`
    dropped_local: Integers
    #: (m,) the reasons why rows were dropped, as bits
    dropped_code: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.local)

    def window(self, start: dt.date, end: dt.date) -> Bars:
        """The bars of the calendar dates `start` to `end`, both included, by the date that their timestamps show."""
        # Counted in days: an open end is written as 9999-12-31, and no date follows that.
        first, last = (start - _EPOCH).days * DAY_US, ((end - _EPOCH).days + 1) * DAY_US
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

    def first_from(self, day: dt.date) -> int:
        """The index of the first bar of `day` or a later date; `len(self)` if there is none."""
        late = self.local >= (day - _EPOCH).days * DAY_US
        return int(late.argmax()) if late.any() else len(self)

    def columns(self) -> tuple[Integers, npt.NDArray[np.int32], Floats, Floats, Floats, Floats, Floats]:
        """The columns of the bars, in the order of the fields."""
        return self.local, self.offset, self.open, self.high, self.low, self.close, self.volume

    def quality(self) -> dict[str, int]:
        """The number of dropped rows by kind of reason."""
        kinds = {"invalid_rows": _INVALID, "duplicate_rows": DUPLICATE, "conflicting_rows": CONFLICTING}
        return {name: int(np.count_nonzero(self.dropped_code & bits)) for name, bits in kinds.items()}

    def instants(self) -> Integers:
        """(n,) microseconds since 1970-01-01 UTC, or of the wall clock where there are no offsets."""
        return _instants(self.local, self.offset)

    def dates(self) -> tuple[dt.date, dt.date] | None:
        """The first and the last date that has a bar."""
        if not len(self):
            return None
        first, last = int(self.local.min()) // DAY_US, int(self.local.max()) // DAY_US
        return _EPOCH + dt.timedelta(days=first), _EPOCH + dt.timedelta(days=last)

    def days(self) -> list[int]:
        """The days that have bars, as ordinals of the proleptic Gregorian calendar; some may be repeated."""
        days = self.local // DAY_US
        changes = np.append(True, days[1:] != days[:-1])[: len(days)]
        ordinals: list[int] = (days[changes] + _EPOCH.toordinal()).tolist()
        return ordinals

    def timestamps(self, rows: slice) -> list[str]:
        """ISO 8601 texts with `T`, to the second (all to the microsecond if any bar has a fraction), and the offset."""
        unit: Literal["us", "s"] = "us" if (self.local % 1_000_000).any() else "s"
        texts: list[str] = np.datetime_as_string(self.local[rows].astype("M8[us]"), unit=unit).tolist()
        offset = self.offset[rows].tolist()
        suffixes = {seconds: _suffix(seconds) for seconds in set(offset)}
        return [text + suffixes[seconds] for text, seconds in zip(texts, offset, strict=True)]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sifted:
    """Bars, and the numbers of the rows that they come from."""

    bars: Bars
    #: (n,) the number of each bar's row
    rows: Integers
    #: (c,) rows that were dropped for a later row of the same instant with different values, and those later rows
    conflicts: Integers
    winners: Integers


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class History:
    """Every bar of a symbol at one interval, and notes on the quality of the data."""

    bars: Bars
    #: the interval's name: that of its directory, or as requested, or as measured
    interval: str
    notes: tuple[DataNote, ...] = ()


def sift(local: Integers, offset: npt.NDArray[np.int32], values: Floats, *, daily: bool = False) -> Sifted:
    """Make bars of rows, which are in the order in which they were read.

    `values` is (5, n): open, high, low, close, volume; NaN for an empty field. Rows without usable prices and a usable
    volume are dropped. Of several rows at the same instant (for `daily` bars: on the same date) the last one read is
    kept; the others are dropped as duplicates (the same values) or conflicts (different values).
    """
    codes = _invalid(values)
    instant = local // DAY_US if daily else _instants(local, offset)
    rows = np.flatnonzero(codes == 0)
    order = rows[np.argsort(instant[rows], kind="stable")]
    ordered = instant[order]
    last_of_run = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
    kept = order[last_of_run]
    repeated = order[~last_of_run]
    winners = kept[np.searchsorted(instant[kept], instant[repeated])]
    same = (values[:, repeated] == values[:, winners]).all(axis=0)
    codes[repeated] = np.where(same, DUPLICATE, CONFLICTING)

    dropped = np.concatenate([np.flatnonzero(codes & _INVALID), repeated])
    opened, high, low, close, volume = values[:, kept]
    bars = Bars(
        local=local[kept],
        offset=offset[kept],
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        dropped_local=local[dropped],
        dropped_code=codes[dropped],
    )
    return Sifted(bars, kept, repeated[~same], winners[~same])


def _instants(local: Integers, offset: npt.NDArray[np.int32]) -> Integers:
    return np.where(offset == NAIVE, local, local - offset.astype(np.int64) * 1_000_000)


def _invalid(values: Floats) -> npt.NDArray[np.int16]:
    """(n,) reasons why rows cannot be bars, as bits; zero for rows that can."""
    codes = np.zeros(values.shape[1], np.int16)
    with np.errstate(invalid="ignore"):
        sound = ((values[:4] > 0) & (values[:4] < np.inf)).all(axis=0) & (values[4] >= 0) & (values[4] < np.inf)
        if sound.all():
            return codes
        for bit, column in enumerate(values):
            codes |= np.isnan(column).astype(np.int16) << bit
        codes |= np.where((values[:4] <= 0).any(axis=0), UNPRICED, 0).astype(np.int16)
        codes |= np.where((values == np.inf).any(axis=0), INFINITE, 0).astype(np.int16)
        codes |= np.where(values[4] < 0, NEGATIVE_VOLUME, 0).astype(np.int16)
    return codes


def drop_reason(code: int) -> str:
    """Put the reasons why a row was dropped as invalid into words."""
    missing = [name for bit, name in enumerate(VALUES) if code >> bit & 1]
    reasons = [f"{_listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    reasons += ["a price is zero or negative"] if code & UNPRICED else []
    reasons += ["a price or the volume is infinite"] if code & INFINITE else []
    reasons += ["volume is negative"] if code & NEGATIVE_VOLUME else []
    return ", ".join(reasons)


def _listed(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _suffix(offset_s: int) -> str:
    if offset_s == NAIVE:
        return ""
    # Python's own spelling: +05:30, and seconds only where an offset has them.
    return dt.datetime(2000, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=offset_s))).isoformat()[19:]
