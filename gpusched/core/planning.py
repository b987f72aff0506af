"""From what was asked for to windows: date ranges, batch identity, plans. Pure; files are read elsewhere."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from gpusched.core.model import (
    BatchSpec,
    DataNotes,
    Failed,
    Failure,
    Limits,
    Outcome,
    PlannedWindow,
    Reused,
    Skipped,
    Window,
)

#: a tail of the date range that is shorter than this is not a window of its own
MIN_TAIL_DAYS = 7

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def name_problem(name: str) -> str | None:
    """Why `name` cannot name a batch, or None. It names a directory, too."""
    if _NAME.fullmatch(name):
        return None
    return "a name has 1 to 80 letters, digits, dots, dashes and underscores, and starts with a letter or a digit"


def date_ranges(start: dt.date, end: dt.date, window_days: int) -> list[tuple[dt.date, dt.date]]:
    """Ranges of `window_days` calendar days, side by side, both ends inclusive.

    The last one is clipped to `end`, and dropped if it is shorter than `MIN_TAIL_DAYS` (unless whole windows are).
    """
    ranges = []
    # Ordinals, because a window may reach beyond the last date that there is.
    for first in range(start.toordinal(), end.toordinal() + 1, window_days):
        last = min(first + window_days - 1, end.toordinal())
        if last - first + 1 >= min(MIN_TAIL_DAYS, window_days):
            ranges.append((dt.date.fromordinal(first), dt.date.fromordinal(last)))
    return ranges


def windows(spec: BatchSpec) -> Iterator[Window]:
    """The windows of a batch, symbol-major."""
    ranges = date_ranges(spec.start, spec.end, spec.window_days)
    for symbol in spec.symbols:
        for first, last in ranges:
            yield Window(symbol, first, last)


#: a limit that the first version did not have: a batch keeps its id when gpusched is upgraded
_LATER = b',"log_limit_bytes":%d' % Limits().log_limit_bytes


def digest(spec: BatchSpec, output_dir: str | None) -> str:
    """Identifies what was asked for: the same digest is the same batch. `output_dir` is None where it was not given.

    Limits, workers and priority say how a batch is run, not what it is, and do not count.
    """
    asked = msgspec.structs.replace(spec, limits=Limits(), workers=0, priority=0)
    encoded = msgspec.json.encode([asked, output_dir], order="deterministic")
    return hashlib.sha256(encoded.replace(_LATER, b"")).hexdigest()


def batch_id(source: str, digest_hex: str) -> str:
    """A batch's id where none was given: the stem of its symbols file and the start of its digest."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", source).strip("-._")[:40] or "batch"
    return f"{stem}-{digest_hex[:8]}"


Action = Literal["train", "reuse", "skip", "fail"]


def action(planned: PlannedWindow) -> Action:
    """A batch's way with a window; one that fails does so at once, without a launch."""
    if planned.refusal is not None:
        return "fail"
    if planned.skip_reason is not None:
        return "skip"
    return "train" if planned.committed is None else "reuse"


def reason_of_plan(planned: PlannedWindow) -> str:
    """The reason for which a window is not simply trained or reused; empty if it is."""
    return planned.refusal or planned.skip_reason or planned.doubt or ""


def with_remedy(reason: str, remedy: str) -> str:
    """A reason, and what would help."""
    return f"{reason}; {remedy}" if remedy else reason


def planned_outcome(planned: PlannedWindow) -> Outcome | None:
    """The outcome of a window that needs no launch; None for one that is to be trained."""
    if planned.refusal is not None:
        return Failed(failure=Failure(kind="bad_data", message=with_remedy(planned.refusal, planned.remedy)))
    if planned.skip_reason is not None:
        return Skipped(reason=planned.skip_reason)
    return None if planned.committed is None else Reused(result=planned.committed)


def replacing(results: int, strangers: int) -> list[str]:
    """What has to be said about the output directory before a batch starts."""
    told = []
    if results:
        told.append(f"{results} {'result' if results == 1 else 'results'} of other parameters or data will be replaced")
    if strangers:
        what = "thing that is no result" if strangers == 1 else "things that are no results"
        told.append(f"{strangers} {what} will be moved aside")
    return told


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A batch, window by window as it would go, and notes on its data."""

    windows: tuple[PlannedWindow, ...]
    notes: DataNotes = {}

    @property
    def to_train(self) -> tuple[PlannedWindow, ...]:
        return self._that("train")

    @property
    def to_reuse(self) -> tuple[PlannedWindow, ...]:
        return self._that("reuse")

    @property
    def to_skip(self) -> tuple[PlannedWindow, ...]:
        return self._that("skip")

    @property
    def to_fail(self) -> tuple[PlannedWindow, ...]:
        return self._that("fail")

    @property
    def to_replace(self) -> int:
        """Results of other parameters or data that the new ones take the place of."""
        return sum(window.replaces == "result" for window in self.to_train)

    @property
    def to_move_aside(self) -> int:
        """Things that stand in the place of a result, and are none."""
        return sum(window.replaces == "stranger" for window in self.to_train)

    def _that(self, wanted: Action) -> tuple[PlannedWindow, ...]:
        return tuple(window for window in self.windows if action(window) == wanted)
