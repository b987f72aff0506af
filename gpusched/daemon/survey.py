"""The survey: look at the data of every window of a batch in forked processes, and make the plan from what they find.

Symbols are surveyed in groups, as a rule one for each core, while the launcher imports the rest of what windows need. A
process that dies takes its group with it, so what it left unanswered is tried once more symbol by symbol: only the data
that kills a process is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

import anyio

from gpusched.core import planning
from gpusched.core.model import BatchSpec, DeviceType, PlannedWindow, Window
from gpusched.core.planning import Plan
from gpusched.daemon.launcher import Launcher
from gpusched.errors import InputError
from gpusched.worker.messages import Error, PipeMessage, SurveyedWindow, SurveyFailed, SurveyJob
from gpusched.workload import DateRange, SurveyTask

#: in a group: what its process sends of them, 2 KB each at most, has to stay well below `MAX_STREAM_BYTES`
MOST_WINDOWS = 10_000


class WorkloadUnusable(InputError):
    problem = "no window can be trained: {why}"
    remedy = "check run.workload and its settings; the traceback is in {log_path}"


async def survey(
    launcher: Launcher,
    spec: BatchSpec,
    *,
    output_dir: Path,
    cache_dir: Path,
    log_path: Path,
    device_types: tuple[DeviceType, ...],
    processes: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """The plan of a batch. A committed result that was trained on one of `device_types` is planned to be reused.

    `on_progress` is told how many symbols of how many have been looked at. Raises WorkloadNotLoadable or
    WorkloadUnusable where no window could be trained, LaunchError where no process can be started, OSError where
    `log_path` cannot be written.
    """
    # Or each of its processes would import what all of them need.
    await launcher.preload(spec.workload, "survey")
    tasks = [
        SurveyTask(
            symbol=symbol,
            windows=tuple(DateRange(window.start, window.end) for window in windows),
            data_root=spec.data_root,
            cache_dir=str(cache_dir),
            settings=spec.settings,
        )
        for symbol, windows in groupby(planning.windows(spec), key=lambda window: window.symbol)
    ]
    found: dict[Window, PlannedWindow] = {}
    answered: set[str] = set()
    unusable: list[str] = []

    async def run(group: tuple[SurveyTask, ...]) -> str:
        """Survey a group of symbols; how its process ended."""
        job = SurveyJob(workload=spec.workload, tasks=group, output_dir=str(output_dir), device_types=device_types)
        ranges = {task.symbol: task.windows for task in group}

        def on_message(message: PipeMessage) -> None:
            match message:
                case SurveyedWindow(symbol=symbol):
                    planned = _planned(message)
                    found[planned.window] = planned
                case SurveyFailed(symbol=symbol, reason=reason):
                    found.update(_skipped(symbol, ranges[symbol], reason))
                case Error(message=why):
                    unusable.append(why)
                    return
                case _:
                    return
            if symbol not in answered:
                answered.add(symbol)
                on_progress(len(answered), len(tasks))

        process = await launcher.fork(job, log_path=log_path, env={"CUDA_VISIBLE_DEVICES": ""})
        end = await process.wait(on_message)
        return end.violation or (f"signal {end.signal}" if end.signal else f"exit code {end.exit_code}")

    async def work(groups: Iterable[tuple[SurveyTask, ...]], endings: dict[str, str]) -> None:
        for group in groups:
            if unusable:
                return
            ending = await run(group)
            endings.update((task.symbol, ending) for task in group)

    async def run_all(groups: list[tuple[SurveyTask, ...]]) -> dict[str, str]:
        endings: dict[str, str] = {}
        shared = iter(groups)
        async with anyio.create_task_group() as workers:
            for _ in range(min(processes, len(groups))):
                workers.start_soon(work, shared, endings)
            # Asked for behind the forks, on the socket where they come first; at once if it is there already.
            workers.start_soon(launcher.preload, spec.workload)
        return endings

    await run_all(_grouped(tasks, processes))
    if unusable:
        raise WorkloadUnusable(why=unusable[0], log_path=log_path)
    missing = [task for task in tasks if not _complete(task, found)]
    endings = await run_all([(task,) for task in missing]) if missing else {}
    for task in missing:
        if not _complete(task, found):
            reason = f"its data could not be looked at: the process ended with {endings[task.symbol]}, see {log_path}"
            found.update(_skipped(task.symbol, task.windows, reason))
    return Plan(windows=tuple(found[window] for window in planning.windows(spec)))


def _grouped(tasks: list[SurveyTask], processes: int) -> list[tuple[SurveyTask, ...]]:
    """A group for each process, or more of them where there are many windows; neighbours, which are alike, apart."""
    windows = sum(len(task.windows) for task in tasks)
    count = min(len(tasks), max(processes, -(-windows // MOST_WINDOWS)))
    return [tuple(tasks[first::count]) for first in range(count)]


def _complete(task: SurveyTask, found: dict[Window, PlannedWindow]) -> bool:
    return all(Window(task.symbol, dates.start, dates.end) in found for dates in task.windows)


def _planned(surveyed: SurveyedWindow) -> PlannedWindow:
    return PlannedWindow(
        window=Window(surveyed.symbol, surveyed.start, surveyed.end),
        bars=surveyed.bars,
        usable_rows=surveyed.usable_rows,
        skip_reason=surveyed.skip_reason,
        fingerprint=surveyed.fingerprint,
        committed=surveyed.committed,
    )


def _skipped(symbol: str, ranges: Iterable[DateRange], reason: str) -> dict[Window, PlannedWindow]:
    windows = [Window(symbol, dates.start, dates.end) for dates in ranges]
    return {window: PlannedWindow(window=window, skip_reason=reason) for window in windows}
