"""The time at which the last window ends: `python -m benchmarks.makespan [--json]`, simulated, without devices.

252 windows whose durations spread by a factor of 10 are placed by the real scheduler, and compared with plain scripts:
`round robin` gives window i to device i % n, `FIFO` gives the next window to the next free slot. The scheduler knows
the rows of a window, which predict its seconds only to within a quarter. `bound`: no schedule can end before the sum of
all seconds divided by the slots, nor before its longest window. Windows that share a device do not slow each other.
"""

from __future__ import annotations

import argparse
import datetime as dt
import heapq
import json
import math
import random
from collections.abc import Callable, Sequence

import msgspec

from gpusched.core.commands import CheckResults, Command, Launch
from gpusched.core.estimates import Estimates
from gpusched.core.events import AttemptEnded, AttemptStarted, BatchSubmitted, Event, NodeJoined, ResultsChecked
from gpusched.core.model import CPU, Batch, BatchSpec, Device, Instant, PlannedWindow, Window, WindowKey, WindowResult
from gpusched.core.scheduler import Scheduler

WINDOWS, SPREAD, SYMBOLS = 252, 10.0, 36
#: rows ÷ seconds is within this factor of `ROWS_PER_SECOND`
UNCERTAINTY = 1.25
ROWS_PER_SECOND = 100
SEEDS = 20
DEVICES = (2, 8)
SHAPES = ("shuffled", "by symbol", "shortest first")
BUDGET = 1.05

_DAY = dt.date(2022, 1, 1)


class Makespans(msgspec.Struct, frozen=True):
    """Each relative to the bound."""

    gpusched: float
    fifo: float
    round_robin: float


def durations(shape: str, seed: int) -> list[float]:
    """Seconds of each window in the order of submission, from 1 to `SPREAD`."""
    draw = random.Random(seed)
    if shape == "by symbol":
        symbols = [draw.uniform(1.2, SPREAD) for _ in range(SYMBOLS)]
        # the last window of a symbol is cut short by the end of the data
        return [max(1.0, seconds * (1 if i < 6 else 1 / 6)) for seconds in symbols for i in range(WINDOWS // SYMBOLS)]
    seconds = [1.0, SPREAD, *(draw.uniform(1.0, SPREAD) for _ in range(WINDOWS - 2))]
    draw.shuffle(seconds)
    return sorted(seconds) if shape == "shortest first" else seconds


def compare(seconds: Sequence[float], devices: int, slots: int, seed: int = 0) -> Makespans:
    """All contenders on the same windows."""
    draw = random.Random(seed)
    rows = [round(ROWS_PER_SECOND * s * draw.uniform(1 / UNCERTAINTY, UNCERTAINTY)) for s in seconds]
    limit = max(sum(seconds) / (devices * slots), *seconds)
    return Makespans(
        gpusched=scheduled(seconds, rows, devices, slots) / limit,
        fifo=next_free(seconds, devices * slots) / limit,
        round_robin=max(next_free(seconds[device::devices], slots) for device in range(devices)) / limit,
    )


def next_free(seconds: Sequence[float], slots: int) -> float:
    """The time at which the last window ends if each goes to the slot that is free first."""
    ends = [0.0] * slots
    for duration in seconds:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def scheduled(seconds: Sequence[float], rows: Sequence[int], devices: int, slots: int) -> float:
    """The time at which the last window ends if the real scheduler places them."""
    gpus = tuple(Device(id=f"GPU-{number}", name="", lightgbm_type="cuda", capacity=slots) for number in range(devices))
    return simulate(gpus, rows, lambda number, device_id: seconds[number])


def simulate(
    devices: tuple[Device, ...],
    rows: Sequence[int],
    seconds: Callable[[int, str], float],
    estimates: Estimates | None = None,
) -> float:
    """The time at which the last window ends if the real scheduler places them.

    `seconds` gives the duration by the window's number and its device's id.
    """
    scheduler = Scheduler(estimates)
    numbers = {f"W{number}": number for number in range(len(rows))}
    running: list[tuple[float, WindowKey]] = []
    now = 0.0

    def send(event: Event) -> None:
        _, commands = scheduler.handle(event, Instant(monotonic=now, wall=now))
        for command in commands:
            if isinstance(command, CheckResults):
                send(ResultsChecked(batch_id=command.batch_id, check=command.check, missing=()))
            else:
                start(command)

    def start(command: Command) -> None:
        assert isinstance(command, Launch)
        number = numbers[command.key.label.partition("_")[0]]
        heapq.heappush(running, (now + seconds(number, command.slot.device_id), command.key))
        send(AttemptStarted(key=command.key, attempt=1, pid=1))

    send(NodeJoined(devices=devices))
    windows = (
        PlannedWindow(window=Window(symbol, _DAY, _DAY), usable_rows=count)
        for symbol, count in zip(numbers, rows, strict=True)
    )
    send(BatchSubmitted(batch=BATCH, windows=tuple(windows)))
    while running:
        now, key = heapq.heappop(running)
        send(AttemptEnded(key=key, attempt=1, ending=RESULT))
    assert scheduler.unfinished == 0
    return now


# -- processors beside GPUs --------------------------------------------------------------------------------------------

MIXED_ROWS = (50, 10_000)


def on_gpu(rows: int) -> float:
    """Seconds of an imaginary GPU: slow to start, fast per row."""
    return 0.3 + 2e-4 * rows


def on_cpu(rows: int) -> float:
    """Seconds of an imaginary core."""
    return 0.05 + 1e-3 * rows


class Mixed(msgspec.Struct, frozen=True):
    """Seconds until the last window ends."""

    gpus_alone: float
    #: any free slot takes the next window
    any_slot: float
    gpusched: float


def mixed(seed: int, gpus: int = 2, cores: int = 4) -> Mixed:
    """The same windows on GPUs and CPU slots together, with durations that the scheduler has learned."""
    draw = random.Random(seed)
    rows = sorted((round(math.exp(draw.uniform(*map(math.log, MIXED_ROWS)))) for _ in range(WINDOWS)), reverse=True)
    estimates = Estimates()
    for count in (2**power for power in range(5, 15)):
        estimates.observe("w:w", "cuda", count, on_gpu(count), None)
        estimates.observe("w:w", "cpu", count, on_cpu(count), None)
    cards = tuple(Device(id=f"GPU-{number}", name="", lightgbm_type="cuda", capacity=1) for number in range(gpus))
    cpu = Device(id=CPU, name="", kind="host", lightgbm_type="cpu", capacity=cores)

    def seconds(number: int, device_id: str) -> float:
        return (on_cpu if device_id == CPU else on_gpu)(rows[number])

    ends = [(0.0, device_id) for device_id in [*(card.id for card in cards), *[CPU] * cores]]
    heapq.heapify(ends)
    for number in range(WINDOWS):
        at, device_id = ends[0]
        heapq.heapreplace(ends, (at + seconds(number, device_id), device_id))
    return Mixed(
        gpus_alone=simulate(cards, rows, seconds, estimates),
        any_slot=max(at for at, _ in ends),
        gpusched=simulate((*cards, cpu), rows, seconds, estimates),
    )


_SPEC = BatchSpec(
    symbols=("W",), start=_DAY, end=_DAY, window_days=1, data_root="/", workload="w:w", settings={}
)  # fmt: skip
BATCH = Batch(id="b", digest="", output_dir="/", submitted_at=0.0, spec=_SPEC)
RESULT = WindowResult(
    artifacts_path="/", metrics={}, sample_counts={}, fingerprint=None, device_type="cuda", device="", phases={},
    seconds=1.0,
)  # fmt: skip


def table(slots: int = 1) -> list[dict[str, float | int | str]]:
    """The worst of `SEEDS` draws of each contender, for each shape and number of devices."""
    lines: list[dict[str, float | int | str]] = []
    for devices in DEVICES:
        for shape in SHAPES:
            draws = [compare(durations(shape, seed), devices, slots, seed) for seed in range(SEEDS)]
            worst = {name: max(getattr(draw, name) for draw in draws) for name in Makespans.__struct_fields__}
            lines.append({"devices": devices, "slots": slots, "order": shape, **worst})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=1, help="slots on each device")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lines = table(options.slots)
    together = [msgspec.to_builtins(mixed(seed)) for seed in range(SEEDS)]
    means = {name: sum(line[name] for line in together) / SEEDS for name in Mixed.__struct_fields__}
    if options.json:
        print(json.dumps({"lines": lines, "mixed": means}))
        return
    print(f"{WINDOWS} windows, {options.slots} slot(s) a device; makespan ÷ lower bound, the worst of {SEEDS} draws")
    print(f"{'devices':>7}  {'submitted':<14}  {'gpusched':>8}  {'FIFO':>8}  {'round robin':>11}")
    for line in lines:
        print(
            f"{line['devices']:>7}  {line['order']:<14}  {line['gpusched']:>8.3f}  {line['fifo']:>8.3f}"
            f"  {line['round_robin']:>11.3f}"
        )

    print(
        f"\n2 GPUs and 4 CPU slots, small windows faster on the CPU, mean seconds of {SEEDS} draws: GPUs alone"
        f" {means['gpus_alone']:.1f}, any free slot {means['any_slot']:.1f}, gpusched {means['gpusched']:.1f}"
    )


if __name__ == "__main__":
    main()
