"""Timestamps at the exchange: `data.timezone` says in which zone it is."""

from __future__ import annotations

import dataclasses
import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np

from gpusched.teacher.bars import NAIVE, Integers
from gpusched.teacher.rows import Rows

_QUARTER_US = 900 * 1_000_000
_EPOCH = dt.datetime(1970, 1, 1)


def at_exchange(rows: Rows, timezone: str) -> Rows:
    """The rows with the wall clock and the offset of a zone.

    Timestamps with an offset are converted to it; those without one are taken to be of its wall clock already, the
    earlier of two where an hour occurs twice.
    """
    zone = ZoneInfo(timezone)
    naive = rows.offset == NAIVE
    local, offset = rows.local.copy(), rows.offset.copy()
    offset[naive] = _offsets(rows.local[naive], zone, of_utc=False)
    utc = rows.local[~naive] - rows.offset[~naive].astype(np.int64) * 1_000_000
    offset[~naive] = _offsets(utc, zone, of_utc=True)
    local[~naive] = utc + offset[~naive].astype(np.int64) * 1_000_000
    return dataclasses.replace(rows, local=local, offset=offset)


def _offsets(instants: Integers, zone: ZoneInfo, *, of_utc: bool) -> Integers:
    """Seconds east of UTC at instants of UTC, or of the zone's wall clock. They change at quarters of an hour only."""
    quarters, which = np.unique(instants // _QUARTER_US, return_inverse=True)
    found = []
    for quarter in quarters.tolist():
        moment = _EPOCH + dt.timedelta(minutes=15 * quarter)
        at = moment.replace(tzinfo=dt.UTC).astimezone(zone) if of_utc else moment.replace(tzinfo=zone)
        found.append(round((at.utcoffset() or dt.timedelta()).total_seconds()))
    return np.array(found, np.int64)[which] if found else np.zeros(0, np.int64)
