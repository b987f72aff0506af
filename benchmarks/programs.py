"""The launch of a user's own code: `python -m benchmarks.programs [--json] [--rounds N] [--windows N]`.

A function in a file, a Python script that is preloaded, and the same script as a command: each imports pandas and
LightGBM and trains nothing. Processor time of launcher, window, program and supervisor for each window, beside that of
a fresh interpreter that runs the script. Each round measures all of them; ratios are within a round, since a machine
that others use, too, changes between rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpusched.core.model import WindowResult
from gpusched.engines.local.launcher import Confines, Launcher
from gpusched.worker.messages import PipeMessage, WindowJob
from gpusched.workload import Task

#: a fresh interpreter ÷ a warm window, at least
BUDGET = 50.0
MODULES = ("pandas", "lightgbm")

_FUNCTION = """
import lightgbm, pandas
from gpusched.workload import Result

def train(task, directory, report):
    return Result(metrics={}, sample_counts={}, metadata={}, phases={})
"""
_SCRIPT = "import lightgbm, pandas\n"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def _cpu_of(pid: int) -> float:
    """Processor seconds of a process and of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK_S


def _own_cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _fresh(script: Path) -> float:
    before = _own_cpu(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, str(script)], check=True)
    return _own_cpu(resource.RUSAGE_CHILDREN) - before


class _Bench:
    def __init__(self, launcher: Launcher, directory: Path) -> None:
        self._launcher = launcher
        self._directory = directory
        self._number = 0

    async def window(self, workload: str, settings: dict[str, Any], imports: tuple[str, ...]) -> None:
        self._number += 1
        task = Task(
            symbol=f"S{self._number}",
            start=dt.date(2022, 1, 1),
            end=dt.date(2022, 6, 29),
            data_root="",
            cache_dir=str(self._directory),
            settings=settings,
        )
        output = str(self._directory / "output")
        job = WindowJob(workload=workload, task=task, output_dir=output, imports=imports)
        messages: list[PipeMessage] = []
        process = await self._launcher.fork(
            job, Confines(log_path=self._directory / "log", env={"CUDA_VISIBLE_DEVICES": ""})
        )
        await process.wait(messages.append)
        assert isinstance(messages[-1], WindowResult), messages[-1]

    async def cpu(self, count: int, workload: str, settings: dict[str, Any], imports: tuple[str, ...]) -> float:
        """Processor seconds of a window, all processes together."""
        (pid,) = self._launcher.pids(workload, imports)
        before = _cpu_of(pid) + _own_cpu(resource.RUSAGE_SELF)
        for _ in range(count):
            await self.window(workload, settings, imports)
        return (_cpu_of(pid) + _own_cpu(resource.RUSAGE_SELF) - before) / count


async def measured(rounds: int, windows: int, directory: Path) -> list[dict[str, float]]:
    """Processor seconds by kind, for each round."""
    (directory / "warm.py").write_text(_FUNCTION)
    script = directory / "script.py"
    script.write_text(_SCRIPT)
    command = {"argv": (sys.executable, str(script)), "directory": str(directory)}
    kinds: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
        "function": (f"{directory}:warm:train", {}, ()),
        "preloaded": ("gpusched.command:run_command", command | {"preload": MODULES}, MODULES),
        "command": ("gpusched.command:run_command", command, ()),
    }
    found = []
    async with Launcher(log_path=directory / "launcher.log", idle_timeout_s=None) as launcher:
        bench = _Bench(launcher, directory)
        for workload, settings, imports in kinds.values():
            await launcher.preload(workload, imports=imports)
            await bench.window(workload, settings, imports)
        for _ in range(rounds):
            seconds = {"fresh": _fresh(script)}
            for name, (workload, settings, imports) in kinds.items():
                count = max(2, windows // 20) if name == "command" else windows
                seconds[name] = await bench.cpu(count, workload, settings, imports)
            found.append(seconds)
    return found


def summary(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Medians by kind: processor seconds, and the ratio of a fresh interpreter to it with its range over the rounds."""
    table = {}
    for name in rounds[0]:
        ratios = [seconds["fresh"] / seconds[name] for seconds in rounds]
        table[name] = {
            "cpu_s": statistics.median(seconds[name] for seconds in rounds),
            "ratio": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
        }
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--windows", type=int, default=40, help="of each warm kind, in each round; of commands a twentieth"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpusched-programs-") as directory:
        rounds = asyncio.run(measured(arguments.rounds, arguments.windows, Path(directory)))
    table = summary(rounds)
    if arguments.json:
        print(json.dumps({"rounds": rounds, "summary": table, "budget": BUDGET}))
    else:
        for name, row in table.items():
            shown = f"{row['ratio']:6.1f} × ({row['least']:.1f}-{row['most']:.1f})"
            print(f"{name:<12} {row['cpu_s'] * 1e3:8.1f} ms   {shown}")
    return 0 if min(table["function"]["ratio"], table["preloaded"]["ratio"]) >= BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())
