"""What windows cost, as learned from finished ones: estimates and timings, kept longer than their batches.

They can be read without opening the store, beside the process that writes to it: a plan needs them, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from gpusched.core.estimates import Estimate
from gpusched.core.fastest import Timing
from gpusched.store import statements
from gpusched.store.database import Database
from gpusched.store.opening import peeked


def learned(database: Database) -> list[Estimate]:
    """The costs of windows, by workload and by point."""
    return [*_estimates(database.query(statements.LEARNED)), *_estimates(database.query(statements.LEARNED_POINTS))]


def timings(database: Database, workload: str, settings: str) -> list[Timing]:
    """The timings of windows of a workload with these settings."""
    return _timings(database.query(statements.TIMINGS, (workload, settings)))


def peek_learned(path: Path) -> list[Estimate]:
    """Read the estimates of the store at `path`; none if it does not exist or cannot be read. Changes nothing."""
    workloads = peeked(path, lambda execute: _estimates(execute(statements.LEARNED).fetchall()))
    # apart, since a store of 0.1 has no points
    return [*workloads, *peeked(path, lambda execute: _estimates(execute(statements.LEARNED_POINTS).fetchall()))]


def peek_timings(path: Path, workload: str, settings: str) -> list[Timing]:
    """Read the timings of a workload with these settings, as `peek_learned` does."""
    return peeked(path, lambda execute: _timings(execute(statements.TIMINGS, (workload, settings)).fetchall()))


def _estimates(rows: Iterable[tuple[Any, ...]]) -> list[Estimate]:
    named = (dict(zip(Estimate.__struct_fields__, row, strict=False)) for row in rows)
    return [msgspec.convert(fields, Estimate) for fields in named]


def _timings(rows: Iterable[tuple[Any, ...]]) -> list[Timing]:
    named = (dict(zip(Timing.__struct_fields__, row, strict=True)) for row in rows)
    return [msgspec.convert(fields, Timing, strict=False) for fields in named]
