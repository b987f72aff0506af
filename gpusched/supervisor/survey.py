"""The survey: inspect the data of every window of a batch in forked processes, and make the plan from their findings.

Symbols are surveyed in groups, usually one for each core, while the launcher imports the other modules that windows
need. If a process dies, its unanswered symbols are tried once more, each in a process of its own. Windows whose data
kill a process again are not judged here: they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import anyio
import msgspec

from gpusched.command import imports
from gpusched.core import planning
from gpusched.core.calendar import Days, missing_days, sentence
from gpusched.core.model import BatchSpec, DataNote, DeviceType, PlannedWindow, Window
from gpusched.core.planning import Plan
from gpusched.engines.engine import Engine
from gpusched.errors import InputError
from gpusched.worker.messages import Error, PipeMessage, SurveyedSymbol, SurveyedWindow, SurveyFailed, SurveyJob
from gpusched.workload import DateRange, SurveyTask

#: windows in a group, so that its process's findings, of 2 KB each at most, stay well below `MAX_STREAM_BYTES`
MOST_WINDOWS = 10_000
STRICT_REMEDY = "complete the files, or leave out data.strict"


class WorkloadUnusable(InputError):
    problem = "no window can be trained: {why}"
    remedy = "check run.workload and its settings; the traceback is in {log_path}"


class Survey:
    """The survey of a batch. Results that were trained on one of `device_types` are planned to be reused."""

    def __init__(
        self, engine: Engine, spec: BatchSpec, output_dir: Path, device_types: tuple[DeviceType, ...], *, log: str
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._log = log
        self._tasks = survey_tasks(spec, engine.cache_dir)
        self._findings = Findings(self._tasks)
        #: the job of every process, but for its symbols
        self._job = SurveyJob(
            workload=spec.workload,
            tasks=(),
            output_dir=str(output_dir),
            device_types=device_types,
            imports=imports(spec.workload, spec.settings),
        )
        #: why no window can be trained, as the workload says
        self._unusable: list[str] = []
        self._reported = 0

    async def plan(self, processes: int, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Plan:
        """Survey in so many processes at a time, and make the plan.

        `on_progress` is called with the numbers of surveyed symbols and of all symbols. Raises WorkloadNotLoadable or
        WorkloadUnusable if no window could be trained, LaunchError if no process can be started, OSError if the log
        cannot be written.
        """
        # Imported once by the launcher, not once by each survey process.
        await self._engine.preload(self._spec, "survey")
        endings = await self._run_all(_grouped(self._tasks, processes), processes, on_progress)
        if not self._unusable and (missing := self._findings.missing()):
            endings = await self._run_all([(task,) for task in missing], processes, on_progress)
        log_path = self._engine.log_path(self._log)
        if self._unusable:
            raise WorkloadUnusable(why=self._unusable[0], log_path=log_path)
        for task in self._findings.missing():
            why = f"its data could not be looked at: {endings[task.symbol]}, see {log_path}"
            self._findings.take(SurveyFailed(symbol=task.symbol, what="unknown", reason=why))
        return self._findings.plan()

    async def _run_all(
        self, groups: list[tuple[SurveyTask, ...]], processes: int, on_progress: Callable[[int, int], None]
    ) -> dict[str, str]:
        """Survey groups of symbols; return a phrase for each symbol on how its process ended."""
        endings: dict[str, str] = {}
        shared = iter(groups)

        async def work() -> None:
            for group in shared:
                if self._unusable:
                    return
                ending = await self._run(group, on_progress)
                endings.update((task.symbol, ending) for task in group)

        async with anyio.create_task_group() as workers:
            for _ in range(min(processes, len(groups))):
                workers.start_soon(work)
            # Requested after the forks on the same socket, so that they come first; instant if it has been imported.
            workers.start_soon(self._engine.preload, self._spec)
        return endings

    async def _run(self, group: tuple[SurveyTask, ...], on_progress: Callable[[int, int], None]) -> str:
        errors: list[str] = []

        def on_message(message: PipeMessage) -> None:
            match message:
                case Error(kind="bad_parameters", message=why):
                    self._unusable.append(why)
                case Error(message=why):  # an error of this process, not of the workload
                    errors.append(why)
            self._findings.take(message)
            if self._reported < self._findings.symbols:
                self._reported = self._findings.symbols
                on_progress(self._reported, len(self._tasks))

        job = msgspec.structs.replace(self._job, tasks=group)
        how = await self._engine.survey(job, on_message, log=self._log)
        return errors[-1] if errors else f"the process ended with {how}"


def survey_tasks(spec: BatchSpec, cache_dir: Path) -> list[SurveyTask]:
    """A task for each symbol of a batch."""
    return [
        SurveyTask(
            symbol=symbol,
            windows=tuple(DateRange(window.start, window.end) for window in windows),
            data_root=spec.data_root,
            cache_dir=str(cache_dir),
            settings=spec.settings,
        )
        for symbol, windows in groupby(planning.windows(spec), key=lambda window: window.symbol)
    ]


class Findings:
    """Collects the answers of a survey's processes, and makes the plan from them."""

    def __init__(self, tasks: Sequence[SurveyTask]) -> None:
        self._tasks = {task.symbol: task for task in tasks}
        self._windows: dict[Window, PlannedWindow] = {}
        self._data: dict[str, SurveyedSymbol] = {}
        self._answered: set[str] = set()

    @property
    def symbols(self) -> int:
        """The number of symbols that have been answered."""
        return len(self._answered)

    def take(self, message: PipeMessage) -> None:
        """Add an answer about a symbol; answers about symbols outside the survey are ignored."""
        match message:
            case SurveyedSymbol(symbol=symbol) if symbol in self._tasks:
                self._data[symbol] = message
            case SurveyedWindow(symbol=symbol) if symbol in self._tasks:
                planned = _planned(message)
                self._windows[planned.window] = planned
            case SurveyFailed(symbol=symbol) if symbol in self._tasks:
                self._windows |= {planned.window: planned for planned in _undone(message, self._tasks[symbol])}
            case _:
                return
        self._answered.add(symbol)

    def missing(self) -> list[SurveyTask]:
        """The tasks of the symbols with unanswered windows."""
        return [task for task in self._tasks.values() if not all(window in self._windows for window in _windows(task))]

    def plan(self) -> Plan:
        """The plan, with notes on gaps from a comparison of the symbols. Call only when nothing is `missing`."""
        notes = {symbol: data.notes for symbol, data in self._data.items() if data.notes}
        for symbol, days in missing_days(self._days()).items():
            notes[symbol] = (*notes.get(symbol, ()), DataNote("gaps", sentence(days)))
            if self._data[symbol].strict:
                self._refuse(symbol, sentence(days))
        return Plan(
            windows=tuple(self._windows[window] for task in self._tasks.values() for window in _windows(task)),
            notes={symbol: notes[symbol] for symbol in self._tasks if symbol in notes},
        )

    def _days(self) -> dict[str, Days]:
        """The days that each symbol has; answers with days outside the symbol's windows are wrong, and left out."""
        by_symbol = {}
        for symbol, data in self._data.items():
            windows = self._tasks[symbol].windows
            start, end = min(window.start for window in windows), max(window.end for window in windows)
            if data.days is not None and data.days.lie_within(start, end):
                by_symbol[symbol] = data.days
        return by_symbol

    def _refuse(self, symbol: str, why: str) -> None:
        """Refuse all windows of a symbol that would be trained or reused: models of one symbol belong together."""
        for window in _windows(self._tasks[symbol]):
            planned = self._windows[window]
            if planned.skip_reason is None and planned.refusal is None:
                self._windows[window] = msgspec.structs.replace(
                    planned, refusal=f"{why}, and data.strict refuses that", remedy=STRICT_REMEDY, committed=None
                )


def _grouped(tasks: list[SurveyTask], processes: int) -> list[tuple[SurveyTask, ...]]:
    """Groups of tasks, one for each process, or more if there are many windows; neighbours, which are alike, apart."""
    windows = sum(len(task.windows) for task in tasks)
    count = min(len(tasks), max(processes, -(-windows // MOST_WINDOWS)))
    return [tuple(tasks[first::count]) for first in range(count)]


def _windows(task: SurveyTask) -> Iterator[Window]:
    return (Window(task.symbol, dates.start, dates.end) for dates in task.windows)


def _planned(surveyed: SurveyedWindow) -> PlannedWindow:
    return PlannedWindow(
        window=Window(surveyed.symbol, surveyed.start, surveyed.end),
        bars=surveyed.bars,
        usable_rows=surveyed.usable_rows,
        skip_reason=surveyed.skip_reason,
        refusal=surveyed.refusal,
        remedy=surveyed.remedy,
        fingerprint=surveyed.fingerprint,
        committed=surveyed.committed,
        replaces=surveyed.replaces,
    )


def _undone(failed: SurveyFailed, task: SurveyTask) -> Iterator[PlannedWindow]:
    """The planned windows of a symbol whose data could not be inspected."""
    reason = failed.reason
    for window in _windows(task):
        match failed.what:
            case "no_data":
                yield PlannedWindow(window=window, skip_reason=reason, remedy=failed.remedy)
            case "bad_data":
                yield PlannedWindow(window=window, refusal=reason, remedy=failed.remedy)
            case "unknown":
                yield PlannedWindow(window=window, doubt=reason)
