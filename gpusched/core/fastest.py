"""Which type of device has a batch done first: from what a window took on each to the makespan of all of them.

Windows are expected to take what the one that was timed took, in proportion to their rows. A timing may be a lower
bound: where even that is more than another type needs, nothing is left to find out. Pure: windows are timed elsewhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import msgspec

from gpusched.core.estimates import Estimates, bucket_of
from gpusched.core.model import CPU, Choice, Device, DeviceType, Expected, PlannedWindow

#: windows of a type that have to be known before what they took answers instead of a timing
ENOUGH = 8
#: seconds that a timing may always take; and at most, where that is a small part of the batch
LEAST_S, MOST_S = 0.5, 10.0
#: windows for each slot from which on one more is a small part
MANY = 4.0

_NAMES: dict[DeviceType, str] = {"cpu": "CPU", "cuda": "CUDA", "gpu": "OpenCL"}
#: where nothing is known
_PREFERRED: tuple[DeviceType, ...] = ("cuda", "gpu", "cpu")


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """The devices of one model, which train with one device type."""

    device_type: DeviceType
    model: str
    #: GPUs, or slots of the processors
    devices: int
    slots: int


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What a window took on a slot of a model while its neighbours were at work."""

    workload: str
    #: digest of the workload's settings
    settings: str
    model: str
    device_type: DeviceType
    #: see `gpusched.core.estimates`
    bucket: int
    rows: int
    seconds: float
    #: it was stopped after `seconds`
    at_least: bool = False


def kinds(devices: Iterable[Device], workers: int = 0) -> tuple[Kind, ...]:
    """What a batch of at most `workers` windows at once (0: any number) may be trained on."""
    found: dict[tuple[DeviceType, str], list[Device]] = {}
    for device in devices:
        found.setdefault((device.device_type, device.name), []).append(device)
    made = []
    for (device_type, model), some in found.items():
        slots = sum(device.tuned_from or device.capacity for device in some)
        slots = min(slots, workers) if workers else slots
        count = slots if some[0].id == CPU else len(some)
        made.append(Kind(device_type=device_type, model=model, devices=count, slots=slots))
    return tuple(kind for kind in made if kind.slots)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch has to train."""

    #: of each window, the most first
    rows: tuple[int, ...]
    #: the window to time: half of all rows are in windows that have no fewer
    typical: PlannedWindow


def load(windows: Sequence[PlannedWindow]) -> Load:
    """Of the windows that are to be trained, one at least. Takes a quarter of a second for 100,000."""
    by_rows = sorted(windows, key=_rows, reverse=True)
    rows = tuple(map(_rows, by_rows))
    half = sum(rows) / 2
    typical = next(window for window, so_far in zip(by_rows, accumulate(rows), strict=True) if so_far >= half)
    return Load(rows=rows, typical=typical)


def waves(work: Load, kind: Kind) -> float:
    """How many windows like the typical one each slot has to train, at least one."""
    return max(1.0, sum(work.rows) / _rows(work.typical) / kind.slots)


def patience_s(work: Load, kind: Kind, best_s: float | None) -> float:
    """How long a window may be timed on `kind`, where another type would have the batch done in `best_s`.

    A quarter of what the batch takes there, and no longer than it can still be the faster one: beyond that a timing
    costs more than it can bring. Half a second is always well spent, since its result is kept.
    """
    each = waves(work, kind)
    longest = MOST_S if each >= MANY else LEAST_S
    return longest if best_s is None else min(longest, max(LEAST_S, best_s / each))


def learned(estimates: Estimates, workload: str, found: Sequence[Kind], rows: int) -> dict[Kind, Timing]:
    """What windows like these took on each kind; nothing unless that is well known of all."""
    told = {}
    for kind in found:
        seen = estimates.well_known(workload, kind.device_type, rows, ENOUGH)
        if seen is None:
            return {}
        told[kind] = Timing(
            workload=workload,
            settings="",
            model=kind.model,
            device_type=kind.device_type,
            bucket=seen.bucket,
            rows=round(seen.rows_mean),
            seconds=seen.seconds_mean,
        )
    return told


def remembered(timings: Iterable[Timing], found: Sequence[Kind], rows: int) -> dict[Kind, Timing]:
    """Earlier timings of windows like this one."""
    by_model = {(timing.device_type, timing.model): timing for timing in timings if timing.bucket == bucket_of(rows)}
    return {kind: by_model[key] for kind in found if (key := (kind.device_type, kind.model)) in by_model}


def expected(work: Load, found: Sequence[Kind], timings: Mapping[Kind, Timing]) -> tuple[Expected, ...]:
    """How long the batch takes on each device type of which anything is known."""
    told = []
    for device_type in sorted({kind.device_type for kind in found}):  # the processors first
        known = [kind for kind in found if kind.device_type == device_type and kind in timings]
        exact = [kind for kind in known if not timings[kind].at_least]
        if known:
            told.append(
                Expected(
                    device_type=device_type,
                    devices=sum(kind.devices for kind in exact or known),
                    seconds=_makespan(work.rows, [_pace(timings[kind], kind) for kind in exact or known]),
                    at_least=not exact,
                )
            )
    return tuple(told)


def fastest(work: Load, found: Sequence[Kind], timings: Mapping[Kind, Timing], *, pending: int = 0) -> Choice:
    """The type that has the batch done first, as far as is known; `pending` GPUs may turn out to train, too."""
    told = expected(work, found, timings)
    exact = [one for one in told if not one.at_least]
    if not exact:
        return Choice(device=preferred(found), expected=told, reason=_reason(told, preferred(found), None, pending))
    best = min(exact, key=lambda one: one.seconds)
    mixed = None
    if len(exact) == len(told) > 1:
        mixed = _makespan(work.rows, [_pace(timings[kind], kind) for kind in found if kind in timings])
    return Choice(
        device=best.device_type,
        expected=told,
        mixed_seconds=mixed,
        reason=_reason(told, best.device_type, mixed, pending),
    )


def is_certain(choice: Choice, found: Sequence[Kind]) -> bool:
    """Whether no further timing could change the choice."""
    types = {one.device_type: one for one in choice.expected}
    best = types.get(choice.device)
    if best is None or best.at_least or types.keys() != {kind.device_type for kind in found}:
        return False
    return all(one.seconds >= best.seconds for one in choice.expected if one.at_least)


def preferred(found: Iterable[Kind]) -> DeviceType:
    """The device type to take where nothing is known."""
    types = {kind.device_type for kind in found}
    return next((device_type for device_type in _PREFERRED if device_type in types), "cpu")


def _rows(window: PlannedWindow) -> int:
    return max(1, window.usable_rows)


def _pace(timing: Timing, kind: Kind) -> tuple[float, int]:
    """Seconds for each row, and slots."""
    return timing.seconds / max(1, timing.rows), kind.slots


def _makespan(rows: Sequence[int], paces: Sequence[tuple[float, int]]) -> float:
    """Seconds until the last window has ended, the largest first, each where it ends first."""
    ends = [[0.0] * slots for _, slots in paces]
    last = 0.0
    for count in rows:
        ended, number = min((ends[n][0] + count * pace, n) for n, (pace, _) in enumerate(paces))
        heapq.heapreplace(ends[number], ended)
        last = max(last, ended)
    return last


def _reason(told: Sequence[Expected], device: DeviceType, mixed_s: float | None, pending: int) -> str:
    """`CPU: 4 s on 16 cores; CUDA: 28 s on 2 GPUs; both: 3.8 s. Training on the CPU; --device cuda to insist`."""
    parts = [
        f"{_NAMES[one.device_type]}: {'over ' if one.at_least else ''}{_duration(one.seconds)} on {_devices(one)}"
        for one in told
    ]
    if mixed_s is not None:
        parts.append(f"{'both' if len(told) == 2 else 'all'}: {_duration(mixed_s)}")
    if pending:
        parts.append(f"{pending} GPU{'s are' if pending > 1 else ' is'} still being tried")
    others = [one.device_type for one in told if one.device_type != device]
    insist = f"; --device {others[0]} to insist" if others else "; --device mixed waits for them" if pending else ""
    where = "the CPU" if device == "cpu" else f"the GPUs with {_NAMES[device]}"
    return f"{'; '.join(parts)}. Training on {where}{insist}" if parts else f"Training on {where}{insist}"


def _devices(one: Expected) -> str:
    noun = "core" if one.device_type == "cpu" else "GPU"
    return f"{one.devices} {noun}" if one.devices == 1 else f"{one.devices} {noun}s"


def _duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"
