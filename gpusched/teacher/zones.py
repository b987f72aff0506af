"""Timestamps in the time zone of the exchange, which `data.timezone` names."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from gpusched.teacher.bars import NAIVE, Integers
from gpusched.teacher.rows import Rows

_QUARTER_US = 900 * 1_000_000
_EPOCH = dt.datetime(1970, 1, 1)


def at_exchange(rows: Rows, timezone: str) -> Rows:
    """Give rows the wall clock and the UTC offset of a zone.

    Timestamps with an offset are converted; those without one are taken as the zone's wall clock already. If the clock
    is put back, an hour occurs twice: of two rows of a file with the same time, one is of the first hour and the other
    of the second, in the order of the file's other rows.
    """
    zone = ZoneInfo(timezone)
    naive = rows.offset == NAIVE
    local, offset = rows.local.copy(), rows.offset.copy()
    offset[naive] = _of_wall_clock(local[naive], rows.file[naive], zone)
    utc = local[~naive] - offset[~naive].astype(np.int64) * 1_000_000
    offset[~naive] = _by_quarters(utc, lambda moment: moment.replace(tzinfo=dt.UTC).astimezone(zone))
    local[~naive] = utc + offset[~naive].astype(np.int64) * 1_000_000
    return dataclasses.replace(rows, local=local, offset=offset)


def _of_wall_clock(local: Integers, file: Integers, zone: ZoneInfo) -> Integers:
    first = _by_quarters(local, lambda moment: moment.replace(tzinfo=zone))
    second = _by_quarters(local, lambda moment: moment.replace(tzinfo=zone, fold=1))
    twice = np.flatnonzero(second < first)
    reading = np.where(_descends(local, file)[twice], -twice, twice)
    order = twice[np.lexsort((reading, local[twice], file[twice]))]
    again = (local[order][1:] == local[order][:-1]) & (file[order][1:] == file[order][:-1])
    first[order[1:][again]] = second[order[1:][again]]
    return first


def _descends(local: Integers, file: Integers) -> npt.NDArray[np.bool_]:
    """For each row: whether its file has the latest row first. The rows of a file stand together."""
    begins = np.flatnonzero(np.diff(file, prepend=-1))
    lengths = np.diff(begins, append=len(file))
    return np.repeat(local[begins + lengths - 1] < local[begins], lengths)


def _by_quarters(instants: Integers, zoned: Callable[[dt.datetime], dt.datetime]) -> Integers:
    """Seconds east of UTC at each instant. Zones change only at quarters of an hour, so each is looked up once."""
    quarters, which = np.unique(instants // _QUARTER_US, return_inverse=True)
    east = [zoned(_EPOCH + dt.timedelta(minutes=15 * quarter)).utcoffset() for quarter in quarters.tolist()]
    return np.array([round(offset.total_seconds()) for offset in east if offset is not None], np.int64)[which]
