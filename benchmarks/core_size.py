"""The core at the size of a cluster: `python -m benchmarks.core_size [--nodes N] [--windows N] [--json]`.

The scheduler alone, with 8 devices of 8 slots on each of 100 nodes, all slots busy and 100,000 windows in one batch:
the cost of a start, of an end (which places the next window), and of a reading with the processes of all windows of its
device; the time from the submission to the last of the first placements; the memory of a window that waits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import tracemalloc

import msgspec

from benchmarks.event_cost import no_collections
from benchmarks.makespan import BATCH, RESULT
from benchmarks.throughput import plan
from gpusched.core.commands import Launch
from gpusched.core.events import AttemptEnded, AttemptStarted, BatchSubmitted, DeviceRead, Event, NodeJoined
from gpusched.core.model import Device, Instant, Reading
from gpusched.core.scheduler import Scheduler

NODES, DEVICES, SLOTS, WINDOWS = 100, 8, 8, 100_000
GIB = 1 << 30
#: events of a series, and series of which the one with the least median counts: another process may take the core away
EVENTS, SERIES = 500, 4
BUDGETS = {"started_us": 20.0, "ended_us": 60.0, "reading_us": 30.0, "submit_s": 1.0, "window_bytes": 1024.0}


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """µs of an event; processor seconds of a submission and the first placements; bytes of a waiting window."""

    started_us: float
    ended_us: float
    reading_us: float
    submit_s: float
    window_bytes: float


def cluster(nodes: int) -> Scheduler:
    """A scheduler that knows the devices of so many nodes."""
    scheduler = Scheduler()
    for node in range(nodes):
        name = f"n{node}"
        cards = tuple(
            Device(
                id=f"GPU-{node}-{n}", host=name, name="", lightgbm_type="cuda", capacity=SLOTS,
                memory_total_bytes=80 * GIB,
            )
            for n in range(DEVICES)
        )  # fmt: skip
        scheduler.handle(NodeJoined(host=name, devices=cards), Instant(monotonic=0.0, wall=0.0))
    return scheduler


def measure(nodes: int = NODES, windows: int = WINDOWS) -> Measured:
    with no_collections():
        scheduler, submission = cluster(nodes), BatchSubmitted(batch=BATCH, windows=plan(windows))
        begun = time.process_time()
        _, commands = _timed(scheduler, submission, 0.0)
        submit_s = time.process_time() - begun
        launches = [command for command in commands if isinstance(command, Launch)]
        assert len(launches) == min(windows, nodes * DEVICES * SLOTS)
        started = [
            _timed(scheduler, AttemptStarted(key=one.key, attempt=1, pid=number), 0.0)[0]
            for number, one in enumerate(launches)
        ]
        by_device: dict[str, dict[int, int]] = {}
        for number, one in enumerate(launches):
            by_device.setdefault(one.slot.device_id, {})[number] = GIB
        readings = [
            _timed(scheduler, DeviceRead(reading=_reading(device_id, used, GIB * (count % 8))), 1.0)[0]
            for count in range(1, 4)
            for device_id, used in by_device.items()
        ]
        ended = [
            _timed(scheduler, AttemptEnded(key=one.key, attempt=1, ending=RESULT), 2.0)[0]
            for one in launches[: EVENTS * SERIES]
        ]
    return Measured(
        started_us=1e6 * _median(started),
        ended_us=1e6 * _median(ended),
        reading_us=1e6 * _median(readings),
        submit_s=submit_s,
        window_bytes=_window_bytes(windows),
    )


def _median(taken: list[float]) -> float:
    """The least of the medians of series of `EVENTS`."""
    return min(statistics.median(taken[first : first + EVENTS]) for first in range(0, len(taken), EVENTS))


def _timed(scheduler: Scheduler, event: Event, at: float) -> tuple[float, list[object]]:
    """Seconds of one event, with the look at the deadline that follows it, and its commands."""
    begun = time.perf_counter()
    _, commands = scheduler.handle(event, Instant(monotonic=at, wall=at))
    _ = scheduler.deadline
    return time.perf_counter() - begun, list(commands)


def _reading(device_id: str, used: dict[int, int], others: int) -> Reading:
    free = 80 * GIB - sum(used.values()) - others
    return Reading(
        device_id=device_id, at=0.0, memory_total_bytes=80 * GIB, memory_free_bytes=free, utilisation=0.5,
        process_memory_bytes=used,
    )  # fmt: skip


def _window_bytes(windows: int) -> float:
    """The growth of the heap by a batch of which no window can be placed yet, for each window and with its plan."""
    scheduler = Scheduler()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    scheduler.handle(BatchSubmitted(batch=BATCH, windows=plan(windows)), Instant(monotonic=0.0, wall=0.0))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert scheduler.unfinished == windows
    return grown / windows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=NODES, help=f"nodes of {DEVICES} devices with {SLOTS} slots")
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = msgspec.structs.asdict(measure(options.nodes, options.windows))
    if options.json:
        print(json.dumps(measured))
    else:
        print(f"{options.nodes * DEVICES} devices of {SLOTS} slots, {options.windows:,} windows")
        for name, value in measured.items():
            print(f"{name:<14}{value:>10.2f}   at most {BUDGETS[name]:g}")
    return int(any(value > BUDGETS[name] for name, value in measured.items()))


if __name__ == "__main__":
    sys.exit(main())
