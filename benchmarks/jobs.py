"""The windows of a batch, as contenders get them: jobs for `run_window`, or command lines of `gpusched train`."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from benchmarks.settings import END, START, WINDOW_DAYS, settings
from gpusched.core.planning import date_ranges
from gpusched.worker.messages import WindowJob
from gpusched.workload import Task

WORKLOAD = "gpusched.teacher:train_window"
GPUSCHED = [sys.executable, "-m", "gpusched"]


def flags(interval: str) -> list[str]:
    return ["--device=cpu", *(f"--{name}={value}" for name, value in settings(interval).items())]


def window_jobs(symbols_file: Path, output: Path, cache: Path, interval: str) -> list[WindowJob]:
    """Every window of the batch, including those without data, symbol by symbol."""
    return [
        WindowJob(
            workload=WORKLOAD,
            task=Task(
                symbol=symbol, start=start, end=end, settings=settings(interval),
                data_root=str(symbols_file.parent / "data"), cache_dir=str(cache),
            ),
            output_dir=str(output),
        )
        for symbol in symbols_file.read_text().split()
        for start, end in date_ranges(START, END, WINDOW_DAYS)
    ]  # fmt: skip


def train_command(job: WindowJob) -> list[str]:
    """The command that trains the same window in a process of its own."""
    task = job.task
    return [
        *GPUSCHED, "train", task.symbol, str(task.start), str(task.end), "-o", job.output_dir,
        "--data-root", task.data_root, *flags(task.settings["interval"]), "--set", f"cache.dir={task.cache_dir}",
    ]  # fmt: skip


def write_jobs(path: Path, jobs: list[WindowJob]) -> None:
    path.write_bytes(msgspec.json.encode(jobs))


def read_jobs(path: Path) -> list[WindowJob]:
    return msgspec.json.decode(path.read_bytes(), type=list[WindowJob])
