"""The speed of everything against its budgets: `python -m benchmarks.speed [--only PART …] [--quick] [--json]`.

Each part is a benchmark of its own, run as a command with `--json`, whose figures are medians. It takes a quarter of an
hour on an idle machine, and its figures mean nothing on one that is not: the load average is printed below the table.
`--quick` measures each part once, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import ceiling, warm
from benchmarks.bars import write_batch
from benchmarks.contenders import BARE_FORK, CONTENDERS, CORES, DEFAULT_SLOTS, Order
from gpusched.config import Config
from gpusched.config.batch import run_state_dir
from gpusched.store.store import Store

RUN = f"gpusched run, {DEFAULT_SLOTS} slots"
(_RUN,) = [contender for contender in CONTENDERS if contender.name == RUN]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    quantity: str
    measured: float
    #: the least value that `measured` may have, or the greatest
    least: float | None = None
    most: float | None = None
    unit: str = ""

    @property
    def holds(self) -> bool:
        return (self.least is None or self.measured >= self.least) and (self.most is None or self.measured <= self.most)


def _run(module: str, *arguments: str) -> Any:
    """The JSON of a benchmark."""
    command = [sys.executable, "-m", f"benchmarks.{module}", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _batch(quick: bool, *arguments: str) -> dict[str, dict[str, float]]:
    """The medians of `gpusched run` and of the bare fork, by name."""
    repeat = "1" if quick else "3"
    only = [f"--only={contender.name}" for contender in (_RUN, BARE_FORK)]
    medians: dict[str, dict[str, float]] = _run("batch", *only, f"--repeat={repeat}", *arguments)["median"]
    return medians


# -- the parts ---------------------------------------------------------------------------------------------------------


def of_batch(quick: bool) -> Iterator[Row]:
    of_run = _batch(quick)[RUN]
    yield Row(quantity="252 windows of daily bars, cold", measured=of_run["seconds"], most=2.6, unit="s")
    yield Row(quantity="the same: of an in-process loop's limit", measured=of_run["of_limit"], least=0.6)
    yield Row(quantity="of the bare fork, start excluded", measured=of_run["of_fork_inside"], least=0.95)
    yield Row(quantity="of the bare fork, start included", measured=of_run["of_fork"], least=0.88)


def of_bars(quick: bool) -> Iterator[Row]:
    of_run = _batch(quick, "--bars", "75")[RUN]
    yield Row(quantity="252 windows of 5-minute bars, of the bare fork", measured=of_run["of_fork"], least=0.97)


def of_slow_disk(quick: bool) -> Iterator[Row]:
    of_run = _batch(quick, "--flush-ms", "2")[RUN]
    yield Row(quantity="252 windows, 2 ms more for each flush", measured=of_run["seconds"], most=3.4, unit="s")


def of_split(quick: bool) -> Iterator[Row]:
    window = _run("split", "--windows", "20" if quick else "200")["whole window"]
    most = 17.0 if sys.version_info < (3, 12) else 14.5
    yield Row(quantity="a bare forked window, CPU", measured=window["cpu_ms"], most=most, unit="ms")
    yield Row(quantity="page faults of a window", measured=window["faults"], most=1300)


def of_start(quick: bool) -> Iterator[Row]:
    seconds = statistics.median(_start_s() for _ in range(1 if quick else 7))
    yield Row(quantity="from exec to the batch submitted, `run`", measured=seconds, most=0.28, unit="s")


def _start_s() -> float:
    """Seconds from the start of a cold `gpusched run` of the batch to its submission."""
    with tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name:
        order = Order(Path(name), write_batch(Path(name)), "1d")
        order.cache.mkdir()
        began = time.time()
        subprocess.run(_RUN.command(order), check=True, capture_output=True)
        with Store.peek(run_state_dir(Config(), order.output) / "state.db") as store:
            (batch,) = store.batches()
        return batch.submitted_at - began


def of_ceiling(quick: bool) -> Iterator[Row]:
    for each in _run("ceiling", "--windows", "500" if quick else str(ceiling.WINDOWS)):
        launcher = f"a launcher that answers at once, {each['slots']} slots"
        least = ceiling.LEAST[each["slots"]]
        yield Row(quantity=f"windows/s by the supervisor's CPU, {launcher}", measured=1 / each["cpu_s"], least=least)


def of_throughput(quick: bool) -> Iterator[Row]:
    windows = "300" if quick else "3000"
    measured = _run("throughput", "--windows", windows)
    cpu_ms = 1e3 * measured["supervisor_s"]
    yield Row(quantity="supervisor, CPU a window, 2 slots", measured=cpu_ms, most=1.0, unit="ms")
    yield Row(quantity="launcher, CPU a window", measured=1e3 * measured["launcher_s"], most=1.2, unit="ms")
    usual = _run("throughput", "--windows", windows, "--slots", str(DEFAULT_SLOTS))
    for each in (measured, usual):
        quantity = f"windows that do nothing, durable, {each['slots']} slots"
        yield Row(quantity=quantity, measured=each["windows_per_second"], least=300, unit="/s")


def of_warm(quick: bool) -> Iterator[Row]:
    measured = _run("warm", "--repeat", "2" if quick else str(warm.REPEAT))
    quantity = "first window's start after `submit --wait`, daemon.warm"
    yield Row(quantity=quantity, measured=1e3 * measured["warm_s"], most=1e3 * warm.MOST_S, unit="ms")


PARTS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "batch": of_batch,
    "split": of_split,
    "start": of_start,
    "ceiling": of_ceiling,
    "throughput": of_throughput,
    "warm": of_warm,
    "slow-disk": of_slow_disk,
    "bars": of_bars,
}


def line(row: Row) -> str:
    """A row of the table, in Markdown."""
    bound = f"≥ {row.least:,g}" if row.least is not None else f"≤ {row.most:,g}"
    measured, budget = (f"{figure} {row.unit}".rstrip() for figure in (_figure(row.measured), bound))
    return f"| {row.quantity} | {measured} | {budget} | {'met' if row.holds else '**not met**'} |"


def _figure(value: float) -> str:
    """Three digits that count: 0.873, 17.2, 1,480."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.json:
        print("| | measured | budget | |\n|---|---|---|---|")
    missed = 0
    for name in options.only or PARTS:
        for row in PARTS[name](options.quick):
            missed += not row.holds
            print(json.dumps(msgspec.to_builtins(row)) if options.json else line(row), flush=True)
    if not options.json:
        print(f"\nPython {platform.python_version()}, {CORES} cores; load average {os.getloadavg()[0]:.1f}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
