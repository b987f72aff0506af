"""From a request to windows: date ranges, batch identity, plans. Pure; files are read elsewhere."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from gpusched.core.model import BatchSpec, DataNotes, Limits, PlannedWindow, Window
from gpusched.core.states import Failed, Failure, Outcome, Reused, Skipped
from gpusched.core.wording import counted

#: a tail of the date range that is shorter than this is not a window of its own
MIN_TAIL_DAYS = 7

#: name of the index in a batch's output directory
INDEX = "teacher_runs.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+&-]{0,159}")


def name_problem(name: str) -> str | None:
    """The reason why `name` cannot be a batch's name, which is also a directory's name; None if it can."""
    if _NAME.fullmatch(name):
        return None
    return "a name has 1 to 80 letters, digits, dots, dashes and underscores, and starts with a letter or a digit"


def label_problem(label: str) -> str | None:
    """The reason why `label` cannot be a window's label, which is also a directory's name; None if it can."""
    if label.startswith(INDEX):
        return f"{INDEX} is the index of the batch"
    if _LABEL.fullmatch(label):
        return None
    return "a label has 1 to 160 letters, digits and characters of . _ - = , + &, and starts with a letter or a digit"


def date_ranges(
    start: dt.date, end: dt.date, window_days: int, stride_days: int = 0, *, anchored: bool = False
) -> list[tuple[dt.date, dt.date]]:
    """Ranges of `window_days` calendar days, both ends inclusive, each `stride_days` after the one before it.

    Without a stride they lie side by side. `anchored` ranges all begin at `start`, so each is a stride longer. The
    first that reaches `end` is clipped to it and is the last one; it is dropped if it adds less than `MIN_TAIL_DAYS` to
    the range before it (unless whole strides or windows do).
    """
    stride = stride_days or window_days
    ranges: list[tuple[dt.date, dt.date]] = []
    # Ordinals, because a window may reach beyond the last date that Python knows.
    origin, final, covered = start.toordinal(), end.toordinal(), start.toordinal() - 1
    for first in range(origin, final + 1, stride):
        last = min(first + window_days - 1, final)
        if last - max(first - 1, covered) >= min(MIN_TAIL_DAYS, window_days, stride):
            ranges.append((start if anchored else dt.date.fromordinal(first), dt.date.fromordinal(last)))
        covered = last
        if covered == final:
            break
    return ranges


def ranges_of(spec: BatchSpec) -> list[tuple[dt.date, dt.date]]:
    """The date ranges of the windows of each symbol."""
    return date_ranges(spec.start, spec.end, spec.window_days, spec.stride_days, anchored=spec.anchored)


def windows(spec: BatchSpec) -> Iterator[Window]:
    """The windows of a batch: symbol-major, and by date before by point, unless they were asked for one by one."""
    if spec.windows:
        yield from spec.windows
        return
    ranges = ranges_of(spec)
    for symbol in spec.symbols:
        for first, last in ranges:
            for point in spec.points or ("",):
                yield Window(symbol, first, last, point)


def accepted(spec: BatchSpec) -> BatchSpec:
    """The specification as its batch keeps it: windows that were asked for one by one have rows of their own."""
    return msgspec.structs.replace(spec, windows=())


def windows_problem(spec: BatchSpec) -> str | None:
    """The reason why the windows that a batch asks for one by one cannot be; None if they can."""
    symbols, labels = frozenset(spec.symbols), set[str]()
    for window in spec.windows:
        label = window.label
        if window.symbol not in symbols:
            return f"window {label[:200]!r} is of a symbol that the batch does not name"
        if window.name and (problem := label_problem(window.name)):
            return f"{window.name[:200]!r} is not a label: {problem}"
        if window.end < window.start:
            return f"window {label} ends on {window.end}, before it starts on {window.start}"
        if window.point and window.point not in spec.points:
            return f"window {label} is at a point {window.point[:200]!r} that the batch does not have"
        if not (0 <= window.expected_seconds < math.inf and window.expected_memory_bytes >= 0):
            return f"window {label} expects a duration or a memory that cannot be"
        if label in labels:
            return f"two windows have the label {label}"
        labels.add(label)
    return None


def most_windows(spec: BatchSpec) -> int:
    """An upper bound of the number of a batch's windows, found without making them."""
    days = (spec.end - spec.start).days + 1
    strides = -(-days // (spec.stride_days or spec.window_days))
    return len(spec.windows) or strides * len(spec.symbols) * max(1, len(spec.points))


#: the fields of a request in version 0.1, and of its limits. Later ones count only where they differ from their
#: defaults, so that batches keep their ids after an upgrade
_FIRST_FIELDS = (
    *("symbols", "start", "end", "window_days", "data_root", "workload", "settings", "device", "workers", "priority"),
    "limits",
)
_FIRST_LIMITS = (
    *("max_attempts", "timeout_s", "grace_s", "backoff_s", "backoff_max_s", "memory_limit_bytes", "max_failure_rate"),
    "breaker_failures",
)


def digest(spec: BatchSpec, output_dir: str | None) -> str:
    """The hex digest that identifies a request: the same digest means the same batch. `output_dir`: None if not given.

    Limits, workers, priority and the batches before it do not count: they only say how and when a batch is run.
    """
    first = BatchSpec(**{name: getattr(spec, name) for name in _FIRST_FIELDS})
    identity = {
        name: value
        for name, value in msgspec.to_builtins(spec, order="deterministic").items()
        if name in _FIRST_FIELDS or getattr(spec, name) != getattr(first, name)
    }
    limits = {name: getattr(Limits(), name) for name in _FIRST_LIMITS}
    identity.pop("after", None)
    identity |= {"workers": 0, "priority": 0, "limits": limits}
    return hashlib.sha256(msgspec.json.encode([identity, output_dir])).hexdigest()


def settings_digest(spec: BatchSpec) -> str:
    """The hex digest of a batch's terms of training: its data root, workload, settings, points and device.

    Symbols and dates do not count. Batches with the same digest make the same model of a window that they share.
    """
    which = {"start": dt.date.min, "end": dt.date.min, "window_days": 1, "stride_days": 0, "anchored": False}
    return digest(msgspec.structs.replace(spec, symbols=(), windows=(), **which), None)


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
        notes.append(f"{counted(results, 'result')} of other parameters, data or versions will be replaced")
    if strangers:
        things = counted(strangers, "thing that is not a result", "things that are not results")
        notes.append(f"{things} will be moved aside")
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
        """The number of results of other parameters, data or versions that new ones will replace."""
        return self._trained_over("result")

    @property
    def to_replace_others(self) -> int:
        """How many of the results to be replaced are of other parameters."""
        return sum(window.replaces_others and action(window) in ("train", "reuse") for window in self.windows)

    @property
    def to_move_aside(self) -> int:
        """The number of results' places that are taken by something else."""
        return self._trained_over("stranger")

    def _trained_over(self, replaces: str) -> int:
        return sum(window.replaces == replaces and action(window) in ("train", "reuse") for window in self.windows)

    def _that(self, wanted: Action) -> tuple[PlannedWindow, ...]:
        return tuple(window for window in self.windows if action(window) == wanted)
