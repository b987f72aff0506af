"""The cost of starting a window process: `python -m benchmarks.launch [--json] [--windows N]`.

A window that trains nothing is timed from the request to the launcher until it is reaped and its artifacts are
committed, and compared with a fresh interpreter that has the same imports; also the memory that a window process does
not share.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpusched.core.model import WindowResult
from gpusched.engines.local.launcher import Confines, Launcher
from gpusched.worker.messages import PipeMessage, WindowJob
from gpusched.workload import Task

#: a no-op window may take at most the time of a fresh interpreter ÷ this
RATIO_BUDGET = 50.0
UNSHARED_BUDGET_BYTES = 30 * 1024 * 1024

REPOSITORY = Path(__file__).parents[1]
_WORKLOAD = "benchmarks.windows"
_FRESH = "import gpusched.worker.window; from benchmarks.windows import preload; preload()"


# -- the measurement ---------------------------------------------------------------------------------------------------


def fresh_interpreter(runs: int) -> list[float]:
    """Seconds of each run."""
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", _FRESH], check=True, cwd=REPOSITORY)
        seconds.append(time.perf_counter() - began)
    return seconds


async def windows(count: int, directory: Path) -> dict[str, Any]:
    """Launch windows one after the other, then two at a time."""
    async with Launcher(search_path=REPOSITORY, log_path=directory / "launcher.log") as launcher:

        async def run(function: str, number: int) -> tuple[float, WindowResult]:
            messages: list[PipeMessage] = []
            task = Task(
                symbol=f"S{number}",
                start=dt.date(2022, 1, 1),
                end=dt.date(2022, 6, 29),
                data_root=str(directory),
                cache_dir=str(directory),
                settings={},
            )
            job = WindowJob(workload=f"{_WORKLOAD}:{function}", task=task, output_dir=str(directory / "output"))
            began = time.perf_counter()
            process = await launcher.fork(
                job, Confines(log_path=directory / f"{number}.log", env={"CUDA_VISIBLE_DEVICES": ""})
            )
            await process.wait(messages.append)
            seconds = time.perf_counter() - began
            result = messages[-1]
            assert isinstance(result, WindowResult), result
            return seconds, result

        preload_s = await launcher.preload(f"{_WORKLOAD}:nothing")
        for function in ("weighs_itself", "trains"):
            await launcher.preload(f"{_WORKLOAD}:{function}")
        await run("nothing", 0)
        cpu_before = resource.getrusage(resource.RUSAGE_SELF)
        launched = [await run("nothing", number) for number in range(count)]
        cpu_after = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        numbers = iter(range(count))

        async def slot() -> None:
            for number in numbers:
                await run("nothing", number)

        await asyncio.gather(slot(), slot())
        two_slots_s = time.perf_counter() - began
        _, idle = await run("weighs_itself", count)
        _, trained = await run("trains", count)

    seconds = sorted(each for each, _ in launched)
    cpu_s = cpu_after.ru_utime + cpu_after.ru_stime - cpu_before.ru_utime - cpu_before.ru_stime
    return {
        "preload_s": preload_s,
        "launch_median_s": statistics.median(seconds),
        "launch_p99_s": seconds[int(len(seconds) * 0.99)],
        "windows_per_second_with_2_slots": count / two_slots_s,
        "supervisor_cpu_s_per_window": cpu_s / count,
        "unshared_bytes": idle.metrics["unshared"],
        "unshared_bytes_after_training": trained.metrics["unshared"],
        "resident_bytes": idle.metrics["resident"],
        "faults": idle.metrics["faults"],
        "faults_after_training": trained.metrics["faults"],
    }


def measure(count: int, fresh_runs: int) -> dict[str, Any]:
    fresh = fresh_interpreter(fresh_runs)
    with tempfile.TemporaryDirectory(prefix="gpusched-launch-") as directory:
        measured = asyncio.run(windows(count, Path(directory)))
    ratio = statistics.median(fresh) / measured["launch_median_s"]
    return {
        "windows": count,
        "fresh_median_s": statistics.median(fresh),
        "fresh_over_launch": ratio,
        **measured,
        "within_budget": ratio >= RATIO_BUDGET and measured["unshared_bytes"] <= UNSHARED_BUDGET_BYTES,
    }


def table(measured: dict[str, Any]) -> str:
    def ms(key: str) -> str:
        return f"{measured[key] * 1e3:8.1f} ms"

    def mb(key: str) -> str:
        return f"{measured[key] / 1e6:8.1f} MB"

    rows = [
        ("fresh interpreter, same imports (median)", ms("fresh_median_s"), ""),
        ("no-op window, launch to reaped (median)", ms("launch_median_s"), ""),
        ("no-op window, launch to reaped (p99)", ms("launch_p99_s"), ""),
        ("fresh / no-op window", f"{measured['fresh_over_launch']:8.0f} ×", f"≥ {RATIO_BUDGET:.0f}"),
        ("no-op windows/s with two slots", f"{measured['windows_per_second_with_2_slots']:8.0f}   ", ""),
        ("supervisor's CPU per window", ms("supervisor_cpu_s_per_window"), "≤ 1 ms"),
        ("unshared memory of a no-op window", mb("unshared_bytes"), "≤ 30 MiB"),
        ("unshared memory after training", mb("unshared_bytes_after_training"), ""),
        ("resident memory, shared included", mb("resident_bytes"), ""),
        ("page faults of a no-op window", f"{measured['faults']:8}   ", ""),
        ("page faults after training", f"{measured['faults_after_training']:8}   ", ""),
    ]
    return "\n".join(f"{name:<42} {value:>12}  {budget}" for name, value, budget in rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launch", description=__doc__)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--fresh-runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    measured = measure(arguments.windows, arguments.fresh_runs)
    print(json.dumps(measured) if arguments.json else table(measured))
    return 0 if measured["within_budget"] else 1


if __name__ == "__main__":
    sys.exit(main())
