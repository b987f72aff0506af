"""The cost of an event when 1,000 and when 100,000 windows wait: `python -m benchmarks.event_cost [--json]`.

It is measured for the scheduler alone, and for the supervisor with its store. In the latter a window ends as soon as it
is launched, without a process, so only the supervisor's own processor time counts, the store's included.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import msgspec

from benchmarks.instant import InstantEngine
from benchmarks.makespan import BATCH, RESULT
from benchmarks.throughput import plan
from gpusched.config import Config, Devices
from gpusched.core.commands import Launch
from gpusched.core.events import AttemptEnded, AttemptStarted, BatchSubmitted, NodeJoined, WindowMoved
from gpusched.core.model import Device, Instant
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Finished
from gpusched.devices.slots import PoolRules
from gpusched.store.store import Store
from gpusched.supervisor.followers import News
from gpusched.supervisor.runtime import Runtime

SIZES = (1_000, 10_000, 100_000)
#: windows that are launched and end in one measurement
EVENTS = 400
#: repetitions; sizes take turns, so that a busy moment of the machine does not fall on one of them; the fastest counts
REPEAT = 3
SLOTS = 8


def full(count: int) -> tuple[Scheduler, list[Launch]]:
    """A scheduler of eight busy slots and `count` windows that wait."""
    scheduler, now = Scheduler(), Instant(monotonic=0.0, wall=0.0)
    cards = (Device(id=f"GPU-{n}", name="", lightgbm_type="cuda", capacity=1) for n in range(SLOTS))
    scheduler.handle(NodeJoined(devices=tuple(cards)), now)
    _, commands = scheduler.handle(BatchSubmitted(batch=BATCH, windows=plan(count + SLOTS)), now)
    return scheduler, [command for command in commands if isinstance(command, Launch)]


def of_scheduler(count: int) -> float:
    """Seconds of an event, the median over starts and ends; each end places the next window."""
    with no_collections():
        scheduler, launches = full(count)
        taken = []
        for number in range(EVENTS):
            launch, at = launches.pop(0), float(number)
            for event in (
                AttemptStarted(key=launch.key, attempt=launch.attempt, pid=1),
                AttemptEnded(key=launch.key, attempt=launch.attempt, ending=RESULT),
            ):
                begun = time.perf_counter()
                _, commands = scheduler.handle(event, Instant(monotonic=at, wall=at))
                _ = scheduler.deadline
                taken.append(time.perf_counter() - begun)
                launches += [command for command in commands if isinstance(command, Launch)]
    assert scheduler.unfinished == count + SLOTS - EVENTS
    return statistics.median(taken)


def of_supervisor(count: int) -> float:
    """Seconds of the supervisor's thread for a window from its launch to its end, the median."""
    with no_collections(), tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name:
        return anyio.run(_of_supervisor, count, Path(name))


async def _of_supervisor(count: int, directory: Path) -> float:
    ends = _Ends()
    with Store.open(directory / "state" / "state.db") as store:
        runtime = Runtime(PoolRules(Config(devices=Devices(cpu_slots=1))), store, InstantEngine(), ends)
        supervisor = runtime.supervisor
        async with runtime.working():
            batch = msgspec.structs.replace(BATCH, output_dir=str(directory / "output"))
            await supervisor.submit(batch, plan(count + EVENTS))
            await ends.enough.wait()
            supervisor.shut_down(drain=False)
            await supervisor.stopped()
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(ends.instants))


class _Ends:
    """The instants, in the thread's processor time, at which windows finished."""

    def __init__(self) -> None:
        self.instants: list[float] = []
        self.enough = anyio.Event()

    def follow(self, news: News) -> None:
        if isinstance(news, WindowMoved) and isinstance(news.new, Finished):
            self.instants.append(time.thread_time())
            if len(self.instants) == EVENTS:
                self.enough.set()


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Switch garbage collection off: it looks at all windows, and would be charged to the event that it falls on."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def by_size(cost: Callable[[int], float], sizes: tuple[int, ...] = SIZES) -> dict[int, float]:
    """Seconds by the number of waiting windows, each the best of `REPEAT`."""
    taken = [{size: cost(size) for size in sizes} for _ in range(REPEAT)]
    return {size: min(each[size] for each in taken) for size in sizes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = {
        "an event of the scheduler": by_size(of_scheduler),
        "a window in the supervisor": by_size(of_supervisor),
    }
    if options.json:
        print(json.dumps(measured))
        return
    print(f"{'windows that wait':<28}" + "".join(f"{size:>12,}" for size in SIZES))
    for name, costs in measured.items():
        print(f"{name:<28}" + "".join(f"{1e6 * cost:>9.0f} µs" for cost in costs.values()))


if __name__ == "__main__":
    main()
