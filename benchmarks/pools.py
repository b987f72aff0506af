"""A batch as a user's own script would train it: `python -m benchmarks.pools WAY JOBS_FILE`.

Each way maps the very function that a slot runs over the windows of `JOBS_FILE`, as many at a time as there are cores.
Windows without data count as skipped. Prints as JSON the seconds from the first window to the last, and the number of
trained windows. The time that a way needs before it can take a window does not count, unless it starts with the first.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.jobs import WORKLOAD, read_jobs, train_command
from benchmarks.settings import END, START, WINDOW_DAYS
from gpusched import teacher
from gpusched.core.planning import date_ranges
from gpusched.worker.messages import WindowJob
from gpusched.worker.rehearsal import make_ready
from gpusched.worker.window import run_window
from gpusched.workload import NoData

CORES = len(os.sched_getaffinity(0))

#: exit codes of forked processes
TRAINED, FAILED, NO_DATA = range(3)

Jobs = list[WindowJob]
#: Takes the windows, and tells for each, in any order, whether it was trained.
Map = Callable[[Jobs], Iterable[bool]]


def train(job: WindowJob) -> bool:
    """Train a window; return whether it had data."""
    try:
        run_window(job, lambda phase, round=0, rounds=0: None)
    except NoData:
        return False
    return True


def train_afresh(job: WindowJob) -> bool:
    subprocess.run(train_command(job), check=True, stdout=subprocess.DEVNULL)
    return True


@contextmanager
def loop() -> Iterator[Map]:
    """One warm process: the limit, if all cores could do this at once."""
    teacher.preload()
    yield lambda jobs: map(train, jobs)


@contextmanager
def loops() -> Iterator[Map]:
    """The loop in one warm process per core, each with whole symbols: the true capacity of the cores."""
    teacher.preload()
    with multiprocessing.get_context("fork").Pool(CORES) as workers:
        yield lambda jobs: workers.imap_unordered(train, jobs, chunksize=len(date_ranges(START, END, WINDOW_DAYS)))


@contextmanager
def forks() -> Iterator[Map]:
    """A fork of one warm process for each window, one per core at a time, and nothing else.

    Without session, limits, log, pipe, retry or record, this is the cost of isolation itself, and the limit of anything
    that isolates.
    """
    gc.disable()
    teacher.preload()
    make_ready(WORKLOAD)
    yield _fork_each


def _fork_each(jobs: Jobs) -> Iterator[bool]:
    running = 0
    for job in jobs:
        if running == CORES:
            yield _wait_for_fork()
            running -= 1
        if os.fork() == 0:
            exit_code = FAILED
            try:
                gc.enable()
                exit_code = TRAINED if train(job) else NO_DATA
            finally:
                os._exit(exit_code)
        running += 1
    for _ in range(running):
        yield _wait_for_fork()


def _wait_for_fork() -> bool:
    exit_code = os.waitstatus_to_exitcode(os.wait()[1])
    if exit_code not in (TRAINED, NO_DATA):
        sys.exit(f"a forked process ended with {exit_code}")
    return exit_code == TRAINED


@contextmanager
def pool() -> Iterator[Map]:
    """Workers that import once and train one window after the other: a crash of one stops all."""
    with multiprocessing.get_context("spawn").Pool(CORES, initializer=teacher.preload) as workers:
        yield lambda jobs: workers.imap_unordered(train, jobs)


@contextmanager
def executor() -> Iterator[Map]:
    """The isolation that the standard library has: a worker trains one window only."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(CORES, context, teacher.preload, max_tasks_per_child=1) as workers:
        yield lambda jobs: workers.map(train, jobs)


@contextmanager
def scripts() -> Iterator[Map]:
    """The users' old design: a pool whose tasks each start a training script."""
    with ProcessPoolExecutor(CORES) as workers:
        yield lambda jobs: workers.map(train_afresh, jobs)


@contextmanager
def ray(windows_per_worker: int = 0) -> Iterator[Map]:
    """A task for each window, on workers that stay (0) or are replaced after this many windows."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    directory = str(Path(sys.argv[2]).parent / "ray")
    ray.init("local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, _temp_dir=directory)
    try:
        remote = ray.remote(num_cpus=1, max_calls=windows_per_worker)(train)
        yield lambda jobs: ray.get([remote.remote(job) for job in jobs])
    finally:
        ray.shutdown()


@contextmanager
def dask() -> Iterator[Map]:
    """One worker of one thread for each core."""
    from distributed import Client, LocalCluster

    directory = str(Path(sys.argv[2]).parent / "dask")
    with (
        LocalCluster(
            n_workers=CORES, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=directory
        ) as cluster,
        Client(cluster) as client,
    ):
        yield lambda jobs: client.gather(client.map(train, jobs, pure=False))


WAYS: dict[str, Callable[[], AbstractContextManager[Map]]] = {
    "loop": loop,
    "loops": loops,
    "forks": forks,
    "pool": pool,
    "executor": executor,
    "scripts": scripts,
    "ray": ray,
    "ray-isolated": lambda: ray(windows_per_worker=1),
    "dask": dask,
}


def main(way: str, jobs_file: str) -> None:
    jobs = read_jobs(Path(jobs_file))
    with WAYS[way]() as over:
        began = time.perf_counter()
        trained = sum(over(jobs))
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "trained": trained}))


if __name__ == "__main__":
    main(*sys.argv[1:])
