"""Find the device type on which a batch finishes first: from the timing of a window on each to the makespan of all.

The other windows are expected to take as long as the timed one, in proportion to their rows. A timing may be a lower
bound: if even that is more than another type needs, the type is ruled out. Pure: windows are timed elsewhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import msgspec

from gpusched.core.estimates import Estimates, bucket_of
from gpusched.core.model import Choice, Device, DeviceType, Expected, PlannedWindow
from gpusched.core.wording import counted

#: observed windows of a device type from which on their mean replaces a timing
ENOUGH = 8
#: seconds that a timing may always take, and seconds that it may take at most, in a batch where that is a small part
LEAST_S, MOST_S = 0.5, 10.0
#: windows for each slot from which on the timing of one more is a small part of the batch
MANY = 4.0

_NAMES: dict[DeviceType, str] = {"cpu": "CPU", "cuda": "CUDA", "gpu": "OpenCL"}
#: the order of preference where no timing is known
_PREFERRED: tuple[DeviceType, ...] = ("cuda", "gpu", "cpu")


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """The devices of one model, which train with one device type."""

    device_type: DeviceType
    model: str
    #: GPUs, or cores
    devices: int
    slots: int


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The duration of a window on a slot of a model while neighbouring slots were at work."""

    workload: str
    #: digest of the workload's settings
    settings: str
    model: str
    device_type: DeviceType
    #: see `gpusched.core.estimates`
    bucket: int
    rows: int
    seconds: float
    #: it was stopped after `seconds`, and would have taken longer
    at_least: bool = False


def kinds(devices: Iterable[Device], workers: int = 0) -> tuple[Kind, ...]:
    """The kinds of `devices`, for a batch of at most `workers` windows at once (0: any number)."""
    by_model: dict[tuple[DeviceType, str], list[Device]] = {}
    for device in devices:
        by_model.setdefault((device.lightgbm_type, device.name), []).append(device)
    grouped = []
    for (device_type, model), twins in by_model.items():
        slots = sum(device.tuned_from or device.capacity for device in twins)
        slots = min(slots, workers) if workers else slots
        cores = sum(device.cores or device.capacity for device in twins)
        count = min(slots, cores) if twins[0].kind == "host" else len(twins)
        grouped.append(Kind(device_type=device_type, model=model, devices=count, slots=slots))
    return tuple(kind for kind in grouped if kind.slots)


def slowdown(kind: Kind, at_once: int) -> float:
    """How many times longer a window takes with all slots of a kind at work than with `at_once` of them.

    Slots share the cores if there are more of them. How those of a GPU share it is not known.
    """
    return max(1.0, kind.slots / max(at_once, kind.devices)) if kind.device_type == "cpu" else 1.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The work of a batch: the sizes of its windows."""

    #: rows of each window, the largest first
    rows: tuple[int, ...]
    #: the window to time: half of all rows are in windows of at least its size
    typical: PlannedWindow


def load(windows: Sequence[PlannedWindow]) -> Load:
    """The load of the windows that are to be trained, at least one. Takes a quarter of a second for 100,000 windows."""
    by_rows = sorted(windows, key=_rows, reverse=True)
    rows = tuple(map(_rows, by_rows))
    half = sum(rows) / 2
    typical = next(window for window, so_far in zip(by_rows, accumulate(rows), strict=True) if so_far >= half)
    return Load(rows=rows, typical=typical)


def patience_s(work: Load, kind: Kind, best_s: float | None) -> float:
    """Seconds for which a window may be timed on `kind`, if the best type so far finishes the batch in `best_s`.

    At most a quarter of the batch's time on `kind`, and no longer than `kind` can still be faster: beyond that a timing
    costs more than it can gain. Half a second is always worth it, since its result is kept.
    """
    # windows like the typical one that each slot has to train
    each = max(1.0, sum(work.rows) / _rows(work.typical) / kind.slots)
    longest = MOST_S if each >= MANY else LEAST_S
    return longest if best_s is None else min(longest, max(LEAST_S, best_s / each))


def trial_patience_s(best_s: float) -> float:
    """Seconds to wait for GPUs that are still being tried, if the processors finish the batch in `best_s`.

    The duration of a trial says nothing about a window: it starts the driver, and may compile kernels.
    """
    return min(MOST_S, max(LEAST_S, best_s / MANY))


def learned(estimates: Estimates, workload: str, available: Sequence[Kind], rows: int) -> dict[Kind, Timing]:
    """Timings on each kind from windows of a similar size; empty unless all kinds have been observed often enough."""
    timings = {}
    for kind in available:
        estimate = estimates.well_known(workload, kind.device_type, rows, ENOUGH)
        if estimate is None:
            return {}
        timings[kind] = Timing(
            workload=workload,
            settings="",
            model=kind.model,
            device_type=kind.device_type,
            bucket=estimate.bucket,
            rows=round(estimate.rows_mean),
            seconds=estimate.seconds_mean,
        )
    return timings


def remembered(timings: Iterable[Timing], available: Sequence[Kind], rows: int) -> dict[Kind, Timing]:
    """Earlier timings, by kind, of windows of about `rows` rows."""
    by_model = {(timing.device_type, timing.model): timing for timing in timings if timing.bucket == bucket_of(rows)}
    return {kind: by_model[key] for kind in available if (key := (kind.device_type, kind.model)) in by_model}


def expected(work: Load, available: Sequence[Kind], timings: Mapping[Kind, Timing]) -> tuple[Expected, ...]:
    """The expected duration of the batch on each device type that has timings."""
    durations = []
    for device_type in sorted({kind.device_type for kind in available}):  # the processors first
        timed = [kind for kind in available if kind.device_type == device_type and kind in timings]
        exact = [kind for kind in timed if not timings[kind].at_least]
        if timed:
            durations.append(
                Expected(
                    device_type=device_type,
                    devices=sum(kind.devices for kind in exact or timed),
                    seconds=_makespan(work.rows, [_pace(timings[kind], kind) for kind in exact or timed]),
                    at_least=not exact,
                )
            )
    return tuple(durations)


def fastest(work: Load, available: Sequence[Kind], timings: Mapping[Kind, Timing], *, pending: int = 0) -> Choice:
    """The device type that finishes the batch first, by these timings; `pending` GPUs are still being tried."""
    durations = expected(work, available, timings)
    exact = [one for one in durations if not one.at_least]
    if not exact:
        device = preferred(available)
        return Choice(device=device, expected=durations, reason=_reason(durations, device, None, pending))
    best = min(exact, key=lambda one: one.seconds)
    mixed = None
    if len(exact) == len(durations) > 1:
        mixed = _makespan(work.rows, [_pace(timings[kind], kind) for kind in available if kind in timings])
    return Choice(
        device=best.device_type,
        expected=durations,
        mixed_seconds=mixed,
        reason=_reason(durations, best.device_type, mixed, pending),
    )


def is_certain(choice: Choice, available: Sequence[Kind]) -> bool:
    """Whether no further timing could change the choice."""
    types = {one.device_type: one for one in choice.expected}
    best = types.get(choice.device)
    if best is None or best.at_least or types.keys() != {kind.device_type for kind in available}:
        return False
    return all(one.seconds >= best.seconds for one in choice.expected if one.at_least)


def preferred(available: Iterable[Kind]) -> DeviceType:
    """The device type to use where no timing is known."""
    types = {kind.device_type for kind in available}
    return next((device_type for device_type in _PREFERRED if device_type in types), "cpu")


def _rows(window: PlannedWindow) -> int:
    return max(1, window.usable_rows)


def _pace(timing: Timing, kind: Kind) -> tuple[float, int]:
    """Seconds for each row on one slot, and the number of slots."""
    return timing.seconds / max(1, timing.rows), kind.slots


def _makespan(rows: Sequence[int], paces: Sequence[tuple[float, int]]) -> float:
    """Seconds until the last window has ended, if the largest goes first, and each to the slot where it ends first."""
    ends = [[0.0] * slots for _, slots in paces]
    last = 0.0
    for count in rows:
        ended, number = min((ends[n][0] + count * pace, n) for n, (pace, _) in enumerate(paces))
        heapq.heapreplace(ends[number], ended)
        last = max(last, ended)
    return last


def _reason(durations: Sequence[Expected], device: DeviceType, mixed_s: float | None, pending: int) -> str:
    """`CPU: 4 s on 16 cores; CUDA: 28 s on 2 GPUs; both: 3.8 s. Training on the CPU; --device cuda to insist`."""
    parts = [
        f"{_NAMES[one.device_type]}: {'over ' if one.at_least else ''}{_duration(one.seconds)} on"
        f" {counted(one.devices, 'core' if one.device_type == 'cpu' else 'GPU')}"
        for one in durations
    ]
    if mixed_s is not None:
        parts.append(f"{'both' if len(durations) == 2 else 'all'}: {_duration(mixed_s)}")
    if pending:
        parts.append(f"{pending} GPU{'s are' if pending > 1 else ' is'} still being tried")
    others = [one.device_type for one in durations if one.device_type != device]
    insist = f"; --device {others[0]} to insist" if others else "; --device mixed waits for them" if pending else ""
    where = "the CPU" if device == "cpu" else f"the GPUs with {_NAMES[device]}"
    return f"{'; '.join(parts)}. Training on {where}{insist}" if parts else f"Training on {where}{insist}"


def _duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"
