"""The life of a forked window in processor time and page faults: `python -m benchmarks.split [--windows N] [--json]`.

Windows of daily bars are forked one after the other from a warm process, without a supervisor, as the bare fork of
`benchmarks.batch` does. The processor time of each phase is read within the window; that of the fork lies before its
first line, that of the end (the memory that is given back) after its last. `fork, parent` is the caller's share.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.bars import write_batch
from benchmarks.jobs import WORKLOAD, window_jobs
from gpusched import teacher
from gpusched.worker.messages import WindowJob
from gpusched.worker.rehearsal import make_ready
from gpusched.worker.window import run_window
from gpusched.workload import NoData


class Cost(NamedTuple):
    cpu_ms: float
    faults: float


#: phase → its cost
Life = dict[str, Cost]


class _Marks:
    """A window's `Report`: notes time and processor time at the beginning of each phase."""

    def __init__(self) -> None:
        self.used = [("prepare", *_used())]

    def __call__(self, phase: str, round: int = 0, rounds: int = 0) -> None:
        if phase != self.used[-1][0]:
            self.used.append((phase, *_used()))


def _used() -> tuple[float, int]:
    """Milliseconds of processor time, and page faults, of this process so far."""
    return time.process_time() * 1e3, resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def live(job: WindowJob) -> Life | None:
    """Fork a window and follow it to its end; None if it has no data."""
    read_end, write_end = os.pipe()
    before = time.process_time()
    if (pid := os.fork()) == 0:
        code = 1
        try:
            marks = _Marks()
            gc.enable()
            try:
                run_window(job, marks)
                marks("end")
                os.write(write_end, json.dumps(marks.used).encode())
            except NoData:
                os.write(write_end, b"[]")
            code = 0
        finally:
            os._exit(code)
    parent = time.process_time() - before
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        used = json.loads(pipe.read())
    _, status, whole = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"a window ended with status {status}")
    if not used:
        return None
    total = Cost(1e3 * (whole.ru_utime + whole.ru_stime), whole.ru_minflt)
    life = {"fork": Cost(*used[0][1:])}
    for (phase, *first), (_, *last) in itertools.pairwise(used):
        life[phase] = Cost(last[0] - first[0], last[1] - first[1])
    life["end"] = Cost(total.cpu_ms - used[-1][1], total.faults - used[-1][2])
    return life | {"whole window": total, "fork, parent": Cost(1e3 * parent, 0)}


def measure(count: int, directory: Path) -> dict[str, dict[str, float]]:
    """Phase → the median of its processor time, the least of it, and the median of its page faults."""
    symbols_file = write_batch(directory, symbol_count=6, interval="1d", bars_per_day=1, file_per_day=False)
    gc.disable()
    teacher.preload()
    make_ready(WORKLOAD)
    jobs = window_jobs(symbols_file, directory / "first", directory, "1d")
    trained = [job for job in jobs if live(job)]
    lives = []
    for number in range(count):  # each into a directory of its own: a result that is replaced costs its removal
        job = msgspec.structs.replace(trained[number % len(trained)], output_dir=str(directory / str(number)))
        lives.append(life := live(job))
        assert life is not None
    table = {}
    for phase in lives[0] or {}:
        costs = [life[phase] for life in lives if life]
        cpu_ms = [cost.cpu_ms for cost in costs]
        faults = statistics.median(cost.faults for cost in costs)
        table[phase] = {"cpu_ms": statistics.median(cpu_ms), "least_cpu_ms": min(cpu_ms), "faults": faults}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory(prefix="gpusched-") as name:
        table = measure(options.windows, Path(name))
    if options.json:
        print(json.dumps(table))
        return
    print(f"Python {platform.python_version()}, {options.windows} windows; load {os.getloadavg()[0]:.1f}\n")
    print("| phase | CPU, ms (least) | page faults |\n|---|---|---|")
    for phase, cost in table.items():
        print(f"| {phase} | {cost['cpu_ms']:.2f} ({cost['least_cpu_ms']:.2f}) | {cost['faults']:.0f} |")


if __name__ == "__main__":
    main()
