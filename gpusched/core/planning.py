"""From a request to windows: date ranges, batch identity, plans. Pure; files are read elsewhere."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from gpusched.core.model import BatchSpec, DataNotes, Limits, PlannedWindow, Window
from gpusched.core.states import Failed, Failure, Outcome, Reused, Skipped

#: a tail of the date range that is shorter than this is not a window of its own
MIN_TAIL_DAYS = 7

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def name_problem(name: str) -> str | None:
    """The reason why `name` cannot be a batch's name, which is also a directory's name; None if it can."""
    if _NAME.fullmatch(name):
        return None
    return "a name has 1 to 80 letters, digits, dots, dashes and underscores, and starts with a letter or a digit"


def date_ranges(start: dt.date, end: dt.date, window_days: int) -> list[tuple[dt.date, dt.date]]:
    """Ranges of `window_days` calendar days, side by side, both ends inclusive.

    The last one is clipped to `end`, and dropped if it is shorter than `MIN_TAIL_DAYS` (unless whole windows are).
    """
    ranges = []
    # Ordinals, because a window may reach beyond the last date that Python knows.
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


#: a limit that the first version lacked; left out of the digest, so that batches keep their ids after an upgrade
_LATER = b',"log_limit_bytes":%d' % Limits().log_limit_bytes


def digest(spec: BatchSpec, output_dir: str | None) -> str:
    """The hex digest that identifies a request: the same digest means the same batch. `output_dir`: None if not given.

    Limits, workers and priority do not count: they only say how a batch is run.
    """
    identity = msgspec.structs.replace(spec, limits=Limits(), workers=0, priority=0)
    encoded = msgspec.json.encode([identity, output_dir], order="deterministic")
    return hashlib.sha256(encoded.replace(_LATER, b"")).hexdigest()


def batch_id(source: str, digest_hex: str) -> str:
    """The id of a batch without a given name: the stem of its symbols file and the start of its digest."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", source).strip("-._")[:40] or "batch"
    return f"{stem}-{digest_hex[:8]}"


Action = Literal["train", "reuse", "skip", "fail"]


def action(planned: PlannedWindow) -> Action:
    """The plan's action for a window; "fail" takes effect at once, without a launch."""
    if planned.refusal is not None:
        return "fail"
    if planned.skip_reason is not None:
        return "skip"
    return "train" if planned.committed is None else "reuse"


def reason_of_plan(planned: PlannedWindow) -> str:
    """The reason why a window is skipped, refused or doubtful; empty if it is simply trained or reused."""
    return planned.refusal or planned.skip_reason or planned.doubt or ""


def with_remedy(reason: str, remedy: str) -> str:
    """Join a reason and the advice that would help, if there is any."""
    return f"{reason}; {remedy}" if remedy else reason


def planned_outcome(planned: PlannedWindow) -> Outcome | None:
    """The outcome of a window that needs no launch; None for a window to be trained."""
    if planned.refusal is not None:
        return Failed(failure=Failure(kind="bad_data", message=with_remedy(planned.refusal, planned.remedy)))
    if planned.skip_reason is not None:
        return Skipped(reason=planned.skip_reason)
    return None if planned.committed is None else Reused(result=planned.committed)


def replacing(results: int, strangers: int) -> list[str]:
    """Notes on the output directory, for people, before a batch starts."""
    notes = []
    if results:
        noun = "result" if results == 1 else "results"
        notes.append(f"{results} {noun} of other parameters or data will be replaced")
    if strangers:
        noun = "thing that is not a result" if strangers == 1 else "things that are not results"
        notes.append(f"{strangers} {noun} will be moved aside")
    return notes


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of a batch, each with its action, and notes on the data."""

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
        """The number of results of other parameters or data that new ones will replace."""
        return sum(window.replaces == "result" for window in self.to_train)

    @property
    def to_move_aside(self) -> int:
        """The number of results' places that are taken by something else."""
        return sum(window.replaces == "stranger" for window in self.to_train)

    def _that(self, wanted: Action) -> tuple[PlannedWindow, ...]:
        return tuple(window for window in self.windows if action(window) == wanted)
