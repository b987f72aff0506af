"""Beyond one machine: `python -m benchmarks.scaling [--only PART …] [--windows N] [--ray] [--json]`.

- `nodes`: windows that do nothing, and windows that sleep for half a second, here and on one, two and three nodes with
  as many slots together. The nodes are processes of this machine, without Ray; with `--ray` a cluster of this machine
  alone, which must have Ray, comes last. What counts are ratios to the first row. A window's share is measured after a
  first batch, by which nodes have started and have their inputs; the cost that comes but once stands beside it.
- `supervisor`: 100 nodes of 64 slots, on which windows end at once, through the real scheduler, supervisor and store.
- `store`: a batch of 1,000,000 windows, accepted and read back.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import msgspec

from benchmarks.ceiling import Ends
from benchmarks.instant import InstantEngine
from benchmarks.makespan import BATCH
from benchmarks.process_tree import adopt_orphans, processor_s
from benchmarks.throughput import END, START, Seen, plan
from gpusched.config import Cache, Config, Devices, Engine
from gpusched.core.model import Batch, BatchSpec, Limits, PlannedWindow, Window
from gpusched.devices.kind import Discovery
from gpusched.devices.processors import Machine
from gpusched.devices.slots import PoolRules
from gpusched.engines.engine import Found
from gpusched.engines.local.engine import LocalEngine
from gpusched.engines.ray.engine import RayEngine
from gpusched.store.store import Store
from gpusched.supervisor.followers import News
from gpusched.supervisor.runtime import Runtime
from tests.engines.clusters import loopback

NODES, NODE_SLOTS = 100, 64
SLOTS = 6
SYMBOLS = 8
#: windows of the first batch
FIRST = 48
NOTHING = Discovery(devices=(), notes=())


class Row(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    where: str
    windows: int
    windows_per_second: float
    #: processor milliseconds of everything together for each window; of this process alone in `supervisor` and `store`
    cpu_ms: float
    #: of `cpu_ms`, all but the windows' own processes
    beside_ms: float | None = None
    #: processor seconds that are spent once, however many windows there are
    start_s: float | None = None
    note: str = ""

    @property
    def remarks(self) -> str:
        said = [self.note] if self.note else []
        if self.beside_ms is not None and self.start_s is not None:
            said += [f"{self.beside_ms:.1f} ms beside the windows' own processes", f"{self.start_s:.1f} s once"]
        return ", ".join(said)


class Latest:
    """Follows for whoever waits for the batch that is at work."""

    seen = Seen()

    def follow(self, news: News) -> None:
        self.seen.follow(news)


# -- windows on nodes --------------------------------------------------------------------------------------------------


def of_nodes(options: argparse.Namespace) -> Iterator[Row]:
    """The same windows with the same number of slots in each place."""
    places = ["local", "1 node", "2 nodes", "3 nodes"] + (["Ray"] if options.ray else [])
    # Kept to the end: ext4 reuses no file for minutes after it was removed, and each new one searches among those.
    with tempfile.TemporaryDirectory(prefix="gpusched-", ignore_cleanup_errors=True) as name:
        for kind, seconds, windows in (("nothing", 0.0, options.windows or 600), ("half a second", 0.5, 240)):
            for where in places:
                directory = Path(tempfile.mkdtemp(dir=name))
                yield anyio.run(_on, directory, kind, where, seconds, min(windows, options.windows or windows))


def _engine(config: Config, directory: Path, where: str) -> tuple[Config, LocalEngine | RayEngine]:
    if where == "local":
        config = msgspec.structs.replace(config, devices=Devices(cpu_slots=SLOTS))
        return config, LocalEngine(config, directory, NOTHING)
    nodes = 1 if where == "Ray" else int(where.split()[0])
    there = Engine(kind="ray", address="local", scratch=str(directory / "scratch"))
    if where != "Ray":
        there = loopback(directory, *(f"n{number}" for number in range(nodes)))
    config = msgspec.structs.replace(config, devices=Devices(cpu_slots=SLOTS // nodes), engine=there)
    return config, RayEngine(config, directory / "engine")


async def _on(directory: Path, kind: str, where: str, seconds: float, windows: int) -> Row:
    for number in range(SYMBOLS):
        (directory / "data" / f"S{number}").mkdir(parents=True)
        (directory / "data" / f"S{number}" / "bars.csv").write_bytes(bytes(60_000))
    config, opened = _engine(Config(cache=Cache(dir=directory / "cache")), directory, where)
    spec = BatchSpec(
        symbols=("S",),
        start=START,
        end=END,
        window_days=180,
        data_root=str(directory / "data"),
        workload="benchmarks.stamps:sleep",
        settings={"stamps": str(directory / "stamps"), "seconds": seconds},
        limits=Limits(backoff_s=0.0),
        device="cpu",
    )
    follower = Latest()
    with Store.open(directory / "state" / "state.db") as store:
        at_first = _processor_s()
        async with opened as engine:
            runtime = Runtime(PoolRules(config), store, engine, follower)
            await engine.preload(spec)
            async with runtime.working():
                spent = {}
                for name, number in (("first", FIRST), ("b", windows)):
                    cpu, began = _processor_s(), time.perf_counter()
                    output = str(directory / name)
                    batch = Batch(id=name, digest="", output_dir=output, submitted_at=0.0, spec=spec)
                    seen = follower.seen = Seen()
                    await runtime.supervisor.submit(batch, _plans(number))
                    await seen.finished.wait()
                    assert seen.succeeded == number, f"{seen.succeeded} of {number} windows succeeded"
                    spent[name], took = _processor_s() - cpu, time.perf_counter() - began
                started = _processor_s() - at_first - spent["b"]
                runtime.supervisor.shut_down(drain=True)
                await runtime.supervisor.stopped()
        own = sum(window.usage.cpu_seconds for window in store.finished_windows("b") if window.usage is not None)
    each = spent["b"] / windows
    return Row(
        kind=kind, where=where, windows=windows, windows_per_second=windows / took, cpu_ms=1e3 * each,
        beside_ms=1e3 * (spent["b"] - own) / windows, start_s=started - FIRST * each,
    )  # fmt: skip


def _processor_s() -> float:
    """Processor seconds of this process and of all that it has started."""
    return time.process_time() + processor_s()


def _plans(windows: int) -> tuple[PlannedWindow, ...]:
    return tuple(
        PlannedWindow(
            window=Window(f"S{number % SYMBOLS}", START - dt.timedelta(days=number // SYMBOLS), END),
            usable_rows=20 + number % 3000,
        )
        for number in range(windows)
    )


# -- simulated nodes, and the store ------------------------------------------------------------------------------------


def of_supervisor(options: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name:
        yield anyio.run(_simulated, Path(name), options.windows or 50_000)


async def _simulated(directory: Path, windows: int) -> Row:
    ends, engine = Ends(windows), InstantEngine()
    engine.machines = tuple(
        Found(Machine(cores=NODE_SLOTS, processor="none", host=f"n{number}"), NOTHING) for number in range(NODES)
    )
    with Store.open(directory / "state" / "state.db") as store:
        config = Config(devices=Devices(cpu_slots=NODE_SLOTS))
        runtime = Runtime(PoolRules(config), store, engine, ends)
        async with runtime.working():
            batch = msgspec.structs.replace(BATCH, output_dir=str(directory / "output"))
            began, cpu = time.perf_counter(), time.thread_time()
            runtime.supervisor.hand_over(batch, plan(windows))
            await ends.last.wait()
            took, cpu = time.perf_counter() - began, time.thread_time() - cpu
            slots = len(runtime.supervisor.scheduler.pool.devices) * NODE_SLOTS
            runtime.supervisor.shut_down(drain=False)
            await runtime.supervisor.stopped()
    return Row(
        kind="windows that end at once", where=f"{NODES} simulated nodes, {slots:,} slots", windows=windows,
        windows_per_second=windows / took, cpu_ms=1e3 * cpu / windows,
        note=f"{_bytes_in(directory / 'state') / windows:,.0f} bytes of store a window",
    )  # fmt: skip


def _bytes_in(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


def of_store(options: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name:
        yield from anyio.run(_stored, Path(name), options.windows or 1_000_000)


async def _stored(directory: Path, windows: int) -> list[Row]:
    path = directory / "state" / "state.db"
    spec = msgspec.structs.replace(BATCH.spec, device="cuda")  # for which there is no device: nothing starts
    batch = msgspec.structs.replace(BATCH, output_dir=str(directory / "output"), spec=spec)
    plans = plan(windows)
    with Store.open(path) as store:
        runtime = Runtime(PoolRules(Config()), store, InstantEngine(), Seen())
        async with runtime.working():
            began, cpu = time.perf_counter(), time.process_time()
            await runtime.supervisor.submit(batch, plans)
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            runtime.supervisor.shut_down(drain=False)
            await runtime.supervisor.stopped()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = _bytes_in(path.parent) / 2**20
    accepted = Row(
        kind="accepted", where="the store", windows=windows, windows_per_second=windows / took,
        cpu_ms=1e3 * cpu / windows, note=f"{size:.0f} MiB on disk, at most {peak:.0f} MiB of memory",
    )  # fmt: skip
    with Store.open(path) as store:
        began, cpu = time.perf_counter(), time.process_time()
        assert sum(len(recovered.windows) for recovered in store.unfinished()) == windows
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    read = Row(
        kind="read back", where="the store", windows=windows, windows_per_second=windows / took,
        cpu_ms=1e3 * cpu / windows,
    )  # fmt: skip
    return [accepted, read]


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "nodes": of_nodes,
    "supervisor": of_supervisor,
    "store": of_store,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--windows", type=int, help="so many windows in each, for a quick look")
    parser.add_argument("--ray", action="store_true", help="also a Ray cluster of this machine alone")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    adopt_orphans()
    if not options.json:
        print("| windows | where | number | windows/s | CPU a window | |\n|---|---|---|---|---|---|")
    for name in options.only or PARTS:
        for row in PARTS[name](options):
            shown = (
                f"| {row.kind} | {row.where} | {row.windows:,} | {row.windows_per_second:,.1f} | {row.cpu_ms:.3g} ms"
                f" | {row.remarks} |"
            )
            print(json.dumps(msgspec.to_builtins(row)) if options.json else shown, flush=True)
    if not options.json:
        print(f"\n{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
