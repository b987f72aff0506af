"""The ways in which a user could train a batch: each is one command, timed from shell to prompt."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.jobs import GPUSCHED, flags, train_command, window_jobs, write_jobs
from benchmarks.settings import END, START, WINDOW_DAYS
from gpusched.devices.slots import SPARE_SLOTS
from gpusched.worker.messages import WindowJob

CORES = len(os.sched_getaffinity(0))
DEFAULT_SLOTS = CORES + SPARE_SLOTS


@dataclass(frozen=True)
class Order:
    """The windows to train, and a directory in which nothing has been trained."""

    directory: Path
    symbols_file: Path
    interval: str
    #: labels of the windows to train; empty: all
    only: frozenset[str] = frozenset()

    @property
    def output(self) -> Path:
        return self.directory / "out"

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    @property
    def socket(self) -> Path:
        """The socket of the daemon that was started for this order."""
        return self.directory / "s"

    def jobs(self) -> list[WindowJob]:
        jobs = window_jobs(self.symbols_file, self.output, self.cache, self.interval)
        return [job for job in jobs if not self.only or job.task.label in self.only]

    def batch(self) -> list[str]:
        """The arguments of `gpusched run` and `submit` that describe the batch."""
        return [
            str(self.symbols_file), "-o", str(self.output), "--json", "--start", str(START), "--end", str(END),
            "--window-days", str(WINDOW_DAYS), "--data-root", str(self.symbols_file.parent / "data"),
            *flags(self.interval),
        ]  # fmt: skip

    def script(self, name: str, lines: list[str]) -> Path:
        path = self.directory / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def train_lines(self) -> list[str]:
        """A shell command for each window."""
        return [shlex.join(train_command(job)) for job in self.jobs()]


@dataclass(frozen=True)
class Contender:
    name: str
    command: Callable[[Order], list[str]]
    #: a process of its own for each window, so that a crash or a leak stays there
    isolated: bool
    #: slow: timed on a sample of the windows, and scaled up
    sampled: bool = False
    #: timed without its start: from the first window to the last
    warm: bool = False
    #: it is given only the windows that can be trained, as if it had a plan
    planned: bool = False
    #: served by a daemon, which is started before the command, but counts as part of it
    daemon: bool = False
    #: the command or the Python package that has to be installed
    needs: str = ""
    #: compared by default
    usual: bool = False

    @property
    def installed(self) -> bool:
        return not self.needs or bool(_tool(self.needs)) or importlib.util.find_spec(self.needs) is not None


def _tool(name: str) -> str | None:
    """The path of a command; it may be installed beside this interpreter."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _way(name: str) -> Callable[[Order], list[str]]:
    """A way of benchmarks.pools."""

    def command(order: Order) -> list[str]:
        path = order.directory / "jobs.json"
        write_jobs(path, order.jobs())
        return [sys.executable, "-m", "benchmarks.pools", name, str(path)]

    return command


def _run(workers: int) -> Callable[[Order], list[str]]:
    def command(order: Order) -> list[str]:
        return [*GPUSCHED, "run", *order.batch(), "--workers", str(workers), "--set", f"cache.dir={order.cache}"]

    return command


def _submit(order: Order) -> list[str]:
    return [*GPUSCHED, "--socket", str(order.socket), "submit", "--wait", *order.batch()]


def _parallel(order: Order) -> list[str]:
    return ["parallel", "-j", str(CORES), "--halt", "now,fail=1", "--arg-file",
            str(order.script("commands", order.train_lines()))]  # fmt: skip


def _task_spooler(order: Order) -> list[str]:
    lines = order.train_lines()
    spooler = _tool("tsp") or "ts"
    script = [
        "set -e",
        f"export TS_SOCKET={shlex.quote(str(order.socket))} TS_SLOTS={CORES}",
        *(f"{spooler} -n {line} >/dev/null" for line in lines),
        *(f"{spooler} -w {number}" for number in range(len(lines))),
        f"{spooler} -K",
    ]
    return ["sh", str(order.script("spool.sh", script))]


def _simple_gpu_scheduler(order: Order) -> list[str]:
    """It starts a command for each line on the next free GPU of a list; the GPUs need not exist."""
    commands = order.script("commands", order.train_lines())
    scheduler = [_tool("simple_gpu_scheduler") or "", "--gpus", *map(str, range(CORES))]
    return ["sh", str(order.script("schedule.sh", [f"exec {shlex.join(scheduler)} <{shlex.quote(str(commands))}"]))]


LIMIT = Contender("limit: loop in one process ÷ cores", _way("loop"), isolated=False, warm=True, usual=True)
BARE_FORK = Contender(
    "a fork for each window, and nothing else", _way("forks"), isolated=True, warm=True, planned=True, usual=True
)
CONTENDERS = [
    LIMIT,
    Contender("the loop on every core at once", _way("loops"), isolated=False, warm=True, usual=True),
    BARE_FORK,
    Contender("gpusched run, 1 slot", _run(1), isolated=True),
    Contender(f"gpusched run, {CORES} slots", _run(CORES), isolated=True),
    Contender(f"gpusched run, {DEFAULT_SLOTS} slots", _run(DEFAULT_SLOTS), isolated=True, usual=True),
    Contender("gpusched submit --wait to a daemon", _submit, isolated=True, daemon=True),
    Contender("multiprocessing.Pool", _way("pool"), isolated=False),
    Contender("Dask LocalCluster", _way("dask"), isolated=False, needs="distributed"),
    Contender("Ray tasks", _way("ray"), isolated=False, needs="ray"),
    Contender("Ray tasks, max_calls=1", _way("ray-isolated"), isolated=True, sampled=True, needs="ray"),
    Contender("ProcessPoolExecutor(max_tasks_per_child=1)", _way("executor"), isolated=True, sampled=True),
    Contender("executor starting a script a window", _way("scripts"), isolated=True, sampled=True, usual=True),
    Contender("GNU parallel", _parallel, isolated=True, sampled=True, needs="parallel"),
    Contender("task-spooler", _task_spooler, isolated=True, sampled=True, needs="tsp"),
    Contender("simple-gpu-scheduler", _simple_gpu_scheduler, isolated=True, sampled=True, needs="simple_gpu_scheduler"),
]
