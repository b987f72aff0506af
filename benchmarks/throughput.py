"""How fast the supervisor turns windows over: `python -m benchmarks.throughput [--json] [--slots N] …`.

Windows that do nothing pass through the whole supervisor: the scheduler, the store with its fsyncs, the launcher, a
process and committed artifacts for each. A slot's refill is the time in which it has no process: from the last
instruction of one window's process to the first of the next one's, by the clocks of the two.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import anyio
import msgspec

from benchmarks.service import processor_seconds
from gpusched.config import Cache, Config, Devices
from gpusched.core.estimates import Estimate
from gpusched.core.events import BatchFinished, Record, WindowMoved
from gpusched.core.model import Batch, BatchSpec, Limits, PlannedWindow, Window
from gpusched.core.samples import Sample
from gpusched.core.states import Finished, Starting, Succeeded
from gpusched.devices.kind import Discovery
from gpusched.devices.slots import PoolRules
from gpusched.engines.local.engine import LocalEngine
from gpusched.engines.local.launcher import WINDOWS_EACH
from gpusched.store.store import Store
from gpusched.supervisor.followers import News
from gpusched.supervisor.runtime import Runtime

REPOSITORY = Path(__file__).parents[1]
START, END = dt.date(2022, 1, 1), dt.date(2022, 6, 29)
#: share of the windows at either end of a run that do not count: the slots are still filling, or emptying
UNCOUNTED = 0.02
TIMEOUT_S = 600.0


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    windows: int
    slots: int
    #: from the submission to the batch's end
    windows_per_second: float
    #: percentiles of the seconds in which a slot had no process, between two windows
    refill_p50_s: float
    refill_p99_s: float
    #: from the first instruction of a window's process to its last
    process_p50_s: float
    #: transactions of the store for each window
    commits_per_window: float
    #: processor seconds of the supervisor's process, and of the launcher's, for each window
    supervisor_s: float
    launcher_s: float
    #: launcher processes at the end, and the share of the busiest, which bounds the windows that can start in a second
    launchers: int
    busiest_s: float


class CountingStore(Store):
    """A store that counts its commits."""

    commits = 0

    def record(
        self,
        records: Sequence[Record],
        learned: Iterable[Estimate] = (),
        histories: Mapping[str, Sequence[Sample]] = {},  # it is not changed
    ) -> None:
        self.commits += 1
        super().record(records, learned, histories)


def measure(
    windows: int, slots: int = 2, workload: str = "benchmarks.stamps:nothing", each: int = WINDOWS_EACH
) -> Throughput:
    """Run windows on CPU slots, with another launcher process for every `each` of those that run at a time."""
    with tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name:
        return anyio.run(_measure, windows, slots, workload, each, Path(name))


async def _measure(windows: int, slots: int, workload: str, each: int, directory: Path) -> Throughput:
    stamps = directory / "stamps"
    seen = Seen()
    with anyio.fail_after(TIMEOUT_S), CountingStore.open(directory / "state" / "state.db") as store:
        config = Config(devices=Devices(cpu_slots=slots), cache=Cache(dir=directory / "cache"))
        async with LocalEngine(config, directory, Discovery(devices=(), notes=())) as engine:
            engine.launcher.windows_each = each
            runtime = Runtime(PoolRules(config), store, engine, seen)
            supervisor = runtime.supervisor
            batch = _batch(directory, workload, stamps)
            await engine.preload(batch.spec)
            async with runtime.working():
                began = time.perf_counter()
                await supervisor.submit(batch, plan(windows))
                before, cpu, launcher_cpu = store.commits, time.process_time(), _launchers_s(engine, workload)
                await seen.finished.wait()
                seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
                launchers = _launchers_s(engine, workload)
                commits = store.commits - before
                supervisor.shut_down(drain=True)
                await supervisor.stopped()
    assert seen.succeeded == windows, f"{seen.succeeded} of {windows} windows succeeded"
    processes = [(label, float(start), float(end)) for label, start, end in map(str.split, stamps.open())]
    gaps = refills(processes, seen.slot_of)
    return Throughput(
        windows=windows,
        slots=slots,
        windows_per_second=windows / seconds,
        refill_p50_s=percentile(gaps, 50),
        refill_p99_s=percentile(gaps, 99),
        process_p50_s=statistics.median(end - start for _, start, end in processes),
        commits_per_window=commits / windows,
        supervisor_s=cpu_s / windows,
        launcher_s=(sum(launchers.values()) - sum(launcher_cpu.values())) / windows,
        launchers=len(launchers),
        busiest_s=max(seconds - launcher_cpu.get(pid, 0.0) for pid, seconds in launchers.items()) / windows,
    )


def _launchers_s(engine: LocalEngine, workload: str) -> dict[int, float]:
    """Processor seconds of each launcher process so far, by its PID."""
    return {pid: processor_seconds(pid) for pid in engine.launcher.pids(workload)}


class Seen:
    """The slots of windows by label, and how many succeeded."""

    def __init__(self) -> None:
        self.slot_of: dict[str, int] = {}
        self.succeeded = 0
        self.finished = anyio.Event()

    def follow(self, news: News) -> None:
        match news:
            case WindowMoved(key=key, new=Starting(slot=slot)):
                self.slot_of[key.label] = slot.index
            case WindowMoved(new=Finished(outcome=outcome)):
                self.succeeded += isinstance(outcome, Succeeded)
            case BatchFinished():
                self.finished.set()


def refills(processes: Iterable[tuple[str, float, float]], slot_of: dict[str, int]) -> list[float]:
    """Seconds between the processes (label, first instant, last instant) of each slot, without the ends of the run."""
    by_slot: dict[int, list[tuple[float, float]]] = {}
    for label, start, end in processes:
        by_slot.setdefault(slot_of[label], []).append((start, end))
    gaps = []
    for spans in by_slot.values():
        spans.sort()
        edge = math.ceil(UNCOUNTED * len(spans))
        gaps += [later[0] - earlier[1] for earlier, later in itertools.pairwise(spans[edge:-edge])]
    # A negative gap would mean two windows in one slot at a time.
    assert min(gaps) > 0
    return gaps


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that `percent` % of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def plan(windows: int) -> tuple[PlannedWindow, ...]:
    """Windows of many sizes, since those with the most rows go first."""
    return tuple(PlannedWindow(window=Window(f"S{n}", START, END), usable_rows=20 + n % 3000) for n in range(windows))


def _batch(directory: Path, workload: str, stamps: Path) -> Batch:
    spec = BatchSpec(
        symbols=("S",),
        start=START,
        end=END,
        window_days=180,
        data_root=str(directory),
        workload=workload,
        settings={"stamps": str(stamps)},
        limits=Limits(backoff_s=0.0),
    )
    return Batch(id="b", digest="", output_dir=str(directory / "output"), submitted_at=0.0, spec=spec)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=3000)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--each", type=int, default=WINDOWS_EACH, help="windows at a time for each launcher process")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = measure(options.windows, options.slots, each=options.each)
    if options.json:
        print(json.dumps(msgspec.to_builtins(measured)))
        return
    print(f"{measured.windows} windows that do nothing, {measured.slots} slots")
    print(f"{'windows/s, durable':<42} {measured.windows_per_second:8.0f}")
    print(f"{'a slot without a process (median)':<42} {1e3 * measured.refill_p50_s:8.1f} ms")
    print(f"{'a slot without a process (p99)':<42} {1e3 * measured.refill_p99_s:8.1f} ms")
    print(f"{'a process, first instruction to last':<42} {1e3 * measured.process_p50_s:8.1f} ms")
    print(f"{'commits of the store for each window':<42} {measured.commits_per_window:8.2f}")
    print(f"{'CPU of the supervisor for each window':<42} {1e3 * measured.supervisor_s:8.2f} ms")
    print(f"{'CPU of the launcher for each window':<42} {1e3 * measured.launcher_s:8.2f} ms")
    if measured.launchers > 1:
        print(f"{f'of that, the busiest of {measured.launchers}':<42} {1e3 * measured.busiest_s:8.2f} ms")


if __name__ == "__main__":
    main()
