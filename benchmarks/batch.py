"""The users' batch, side by side in one run: the in-process limit, `gpusched run`, and its alternatives.

    python -m benchmarks.batch                     # 252 windows of daily bars
    python -m benchmarks.batch --bars 75           # the same with 5-minute bars
    python -m benchmarks.batch --file-per-day      # one CSV file per day
    python -m benchmarks.batch --large             # 82,000 of those, 105 symbols
    python -m benchmarks.batch --flush-ms 2        # on a disk whose flushes take that much longer
    python -m benchmarks.batch --peers             # against all that is installed of `pip install gpusched[peers]`,
                                                   # GNU parallel and task-spooler

Contenders take turns; each starts with an empty bars cache and an empty output directory, and the ratios are taken
within a repetition, so that a machine whose speed drifts favours none of them. All seconds are from shell to prompt,
except those of the loops and of the bare fork, which leave out the imports, and, for the bare fork, the windows without
data. `start excluded` compares with the bare fork from a contender's first window to its last. Slow contenders train a
sample of the windows, and their times are scaled up. Every model file must equal the in-process loop's, byte for byte.

A first repetition is not timed: it warms the machine up, and watches the memory of each contender's processes. For
contenders that train a sample, processor time and memory are those of the sample, start included.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks.bars import write_batch
from benchmarks.contenders import BARE_FORK, CONTENDERS, CORES, DEFAULT_SLOTS, LIMIT, Contender, Order
from benchmarks.process_tree import Watched, adopt_orphans, measured, watched
from benchmarks.service import daemon
from benchmarks.slow_disk import slow_down

LARGE_SYMBOLS = 105
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Score:
    """The times of one contender for the batch, once."""

    seconds: float
    #: trained windows each second
    windows_per_s: float
    #: processor seconds of the whole process tree for each trained window
    cpu_s: float
    #: the limit's seconds ÷ these
    of_limit: float
    #: the bare fork's seconds ÷ these, and ÷ those from the first window to the last; 0 if that did not run before it
    of_fork: float = 0.0
    of_fork_inside: float = 0.0


@dataclass(frozen=True)
class Cost:
    """The cost of one contender's process tree, as far as it was seen while it was watched."""

    #: peak of the proportional memory (PSS)
    peak_mb: float
    #: processor seconds for each trained window
    cpu_s: float
    #: the true `cpu_s` is higher: some processes left no processor time behind when they ended
    at_least: bool


class _Done(NamedTuple):
    seconds: float
    #: the part of `seconds` from the first window to the last
    inside_s: float
    cpu_s: float
    windows: int


class Bench:
    def __init__(self, directory: Path, symbols_file: Path, interval: str, sample: int) -> None:
        self.directory = directory
        self.symbols_file = symbols_file
        self.interval = interval
        self.sample = sample
        #: label → digest of the model file, of the windows that can be trained
        self.models: dict[str, str] = {}
        self.limit_s = 0.0
        self.fork_s = 0.0
        self._number = 0

    def watch(self, contender: Contender) -> Cost:
        """Let a contender train, and watch its processes all the time."""
        seen = Watched()
        done = self._train(contender, watched(seen))
        return Cost(
            peak_mb=seen.peak_bytes / 1e6,
            cpu_s=max(seen.seconds, done.cpu_s) / done.windows,
            at_least=seen.seconds > done.cpu_s,
        )

    def score(self, contender: Contender) -> Score:
        """Let a contender train against the clock."""
        done = self._train(contender, nullcontext())
        seconds = done.inside_s if contender.warm else done.seconds
        if contender is LIMIT:
            seconds = self.limit_s = seconds / CORES
            self.fork_s = 0.0  # that of this repetition comes later
        elif contender.sampled:
            seconds += done.inside_s / done.windows * (len(self.models) - done.windows)
        if contender is BARE_FORK:
            self.fork_s = seconds
        return Score(
            seconds=seconds,
            windows_per_s=len(self.models) / seconds,
            cpu_s=done.cpu_s / done.windows,
            of_limit=self.limit_s / seconds,
            of_fork=self.fork_s / seconds,
            of_fork_inside=0.0 if contender.sampled else self.fork_s / done.inside_s,
        )

    def _train(self, contender: Contender, watching: AbstractContextManager[None]) -> _Done:
        """Train once; `LIMIT` has to come first. Raises SystemExit if the contender fails, or trains anything else."""
        most = self.sample or None if contender.sampled else None
        chosen = frozenset(list(self.models)[:most] if contender.sampled or contender.planned else [])
        order = self._order(chosen)
        command = contender.command(order)
        serving = daemon(order.directory, {"devices.cpu_slots": DEFAULT_SLOTS}) if contender.daemon else nullcontext()
        with serving, measured() as used, watching:
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True)
            seconds = time.perf_counter() - began
        if done.returncode:
            sys.exit(f"{contender.name} failed with exit code {done.returncode}:\n{done.stdout}\n{done.stderr}")
        models = _models(order)
        if contender is LIMIT and not self.models:
            self.models = models
        self._check(contender, models, chosen or frozenset(self.models))
        inside_s = _inside_s(order, done.stdout, seconds)
        return _Done(seconds, inside_s, used.seconds, len(models))

    def _order(self, only: frozenset[str]) -> Order:
        """Make an order with new directories. They are removed at the end: ext4 creates slowly after many deletions."""
        self._number += 1
        order = Order(self.directory / str(self._number), self.symbols_file, self.interval, only)
        order.output.mkdir(parents=True)
        order.cache.mkdir()
        return order

    def _check(self, contender: Contender, models: dict[str, str], expected: frozenset[str]) -> None:
        if differing := sorted(label for label in expected & models.keys() if models[label] != self.models[label]):
            sys.exit(f"{contender.name} wrote {len(differing)} models that differ, {differing[0]} among them")
        if wrong := sorted(expected ^ models.keys()):
            sys.exit(f"{contender.name} trained {len(models)} windows, not {len(expected)}: see {wrong[0]}")


def _models(order: Order) -> dict[str, str]:
    """Label → digest of the model file, in the order of the batch."""
    paths = ((job.task.label, order.output / job.task.label / "model.txt") for job in order.jobs())
    return {label: hashlib.sha256(path.read_bytes()).hexdigest() for label, path in paths if path.exists()}


def _inside_s(order: Order, stdout: str, seconds: float) -> float:
    """Seconds of the windows alone, as benchmarks.pools prints them, or as gpusched's index of the results has them."""
    last = (stdout.splitlines() or [""])[-1]
    if last.startswith('{"seconds"'):
        return float(json.loads(last)["seconds"])
    index = order.output / "teacher_runs.json"
    if not index.exists():
        return seconds
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    ran = [line for line in lines if line["status"] == "success"]
    starts = [dt.datetime.fromisoformat(line["started_at"]).timestamp() for line in ran]
    ends = [start + float(line["seconds"]) for start, line in zip(starts, ran, strict=True)]
    return max(ends) - min(starts)


def _machine() -> dict[str, str | int | float]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown model")
    return {
        "cores": CORES,
        "processor": f"{platform.machine()}, {model}",
        "kernel": f"Linux {platform.release()}",
        "python": platform.python_version(),
        "lightgbm": version("lightgbm"),
        "load": round(os.getloadavg()[0], 2),
    }


def _contenders(options: argparse.Namespace) -> tuple[list[Contender], list[Contender]]:
    """The contenders to compare, and those that are not installed."""
    chosen = CONTENDERS if options.peers else [contender for contender in CONTENDERS if contender.usual]
    if options.large:
        chosen = [contender for contender in CONTENDERS if contender is LIMIT or "gpusched " in contender.name]
    if options.only:
        chosen = [contender for contender in CONTENDERS if any(part in contender.name for part in options.only)]
        chosen = [LIMIT, *(contender for contender in chosen if contender is not LIMIT)]
    return [it for it in chosen if it.installed], [it for it in chosen if not it.installed]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=36)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--bars", type=int, default=1, help="bars a day: 1, or 75 five-minute bars")
    parser.add_argument("--file-per-day", action="store_true")
    parser.add_argument("--flush-ms", type=float, default=0.0, help="added to every flush of the disk; needs cc")
    parser.add_argument("--large", action="store_true", help=f"{LARGE_SYMBOLS} symbols with a file per day")
    parser.add_argument("--peers", action="store_true", help="all contenders")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="those with this in their name")
    parser.add_argument("--sample", type=int, default=24, help="windows that slow contenders train; 0: all")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="a bar chart of windows/s; needs matplotlib")
    options = parser.parse_args()
    if options.large:
        options.symbols, options.file_per_day = LARGE_SYMBOLS, True
    return options


def main() -> None:
    options = _options()
    adopt_orphans()
    os.environ |= ONE_THREAD
    contenders, missing = _contenders(options)
    interval = "1d" if options.bars == 1 else "5min"
    machine = _machine()
    scores: dict[str, list[Score]] = {contender.name: [] for contender in contenders}
    with tempfile.TemporaryDirectory(prefix="gpusched-") as name:
        symbols_file = write_batch(
            Path(name), symbol_count=options.symbols, interval=interval,
            bars_per_day=options.bars, file_per_day=options.file_per_day,
        )  # fmt: skip
        if options.flush_ms:
            slow_down(options.flush_ms, Path(name))
        bench = Bench(Path(name), symbols_file, interval, options.sample)
        costs = {contender.name: bench.watch(contender) for contender in contenders}
        for number in range(options.repeat):
            for contender in contenders:
                scores[contender.name].append(score := bench.score(contender))
                print(f"{number + 1}/{options.repeat} {contender.name}: {score.seconds:.2f} s", file=sys.stderr)
    windows = len(bench.models)
    if options.plot:
        from benchmarks.chart import bar_chart

        medians = {name: _median(of_one).windows_per_s for name, of_one in scores.items()}
        bar_chart(medians, f"{windows} windows, {CORES} cores: trained windows per second", options.plot)
    if options.json:
        repetitions = {name: [asdict(score) for score in of_one] for name, of_one in scores.items()}
        median = {name: asdict(_median(of_one)) for name, of_one in scores.items()}
        cost = {name: asdict(of_one) for name, of_one in costs.items()}
        absent = [contender.name for contender in missing]
        report = {"machine": machine, "trained": windows, "median": median, "cost": cost, "repetitions": repetitions}
        print(json.dumps(report | {"not installed": absent}))
        return
    print(f"{windows} trained windows; " + ", ".join(f"{key} {value}" for key, value in machine.items()))
    _print_table(contenders, scores, costs, missing)


def _print_table(
    contenders: list[Contender], scores: dict[str, list[Score]], costs: dict[str, Cost], missing: list[Contender]
) -> None:
    print("\nMedians (least–most).\n")
    print(
        "| | isolated | s | of the limit | of the bare fork | start excluded | windows/s | CPU ms a window | peak MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for contender in contenders:
        of_one, cost = scores[contender.name], costs[contender.name]
        cells = [
            contender.name + (" (scaled)" if contender.sampled else ""),
            "yes" if contender.isolated else "no",
            _cell([score.seconds for score in of_one], 2),
            _cell([score.of_limit for score in of_one], 2),
            _cell([score.of_fork for score in of_one], 2),
            _cell([score.of_fork_inside for score in of_one], 2),
            _cell([score.windows_per_s for score in of_one], 1),
            f"≥ {1000 * cost.cpu_s:.0f}" if cost.at_least else _cell([1000 * score.cpu_s for score in of_one], 0),
            f"{cost.peak_mb:.0f}",
        ]
        print(f"| {' | '.join(cells)} |")
    for contender in missing:
        print(f"| {contender.name} | not installed: {contender.needs} |" + " |" * 7)


def _cell(values: list[float], digits: int) -> str:
    if not any(values):
        return "–"
    median = f"{statistics.median(values):.{digits}f}"
    return f"{median} ({min(values):.{digits}f}–{max(values):.{digits}f})" if len(values) > 1 else median


def _median(scores: list[Score]) -> Score:
    """The median of each figure by itself."""
    rows = [asdict(score) for score in scores]
    return Score(**{key: statistics.median(row[key] for row in rows) for key in rows[0]})


if __name__ == "__main__":
    main()
