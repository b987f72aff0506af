"""The survey: inspect the data of every window of a batch in forked processes, and make the plan from their findings.

Symbols are surveyed in groups, usually one for each core, while the launcher imports the other modules that windows
need. If a process dies, its unanswered symbols are tried once more, each in a process of its own, and fewer of them at
a time. Windows whose data kill a process again are not judged here: they run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from gpusched.command import imports
from gpusched.config.workloads import NO_ORIGINS, settings_at
from gpusched.core import planning
from gpusched.core.calendar import missing_days, sentence
from gpusched.core.model import BatchSpec, DataNote, DeviceType, Existing, PlannedWindow, Window
from gpusched.core.planning import Plan
from gpusched.engines.engine import Engine, LauncherLost
from gpusched.errors import InputError, one_error
from gpusched.supervisor.settings import check_settings
from gpusched.worker.messages import (
    Error,
    PipeMessage,
    SurveyedSymbol,
    SurveyedWindow,
    SurveyFailed,
    SurveyJob,
    SymbolWindows,
)

#: windows in a group, so that its process's findings, of 2 KB each at most, stay well below `MAX_STREAM_BYTES`
MOST_WINDOWS = 10_000
#: seconds for which work on many windows keeps other tasks waiting
TURN_S = 0.01
#: windows of one symbol that are not shared among processes: each would have to load its bars
LEAST_WINDOWS = 200
Item = TypeVar("Item")

#: settings that one process checks: a fork costs as much as two or three of them
LEAST_CHECKS = 50
#: surveys of a batch at most, if the launcher dies each time: perhaps it is the workload that makes it die
MOST_SURVEYS = 3
#: processes of the first try for each one of the second. Bars take four times the size of their files while they are
#: read, so that all cores at once may have been too many for the memory
FEWER = 8
log = logging.getLogger("gpusched.daemon")

STRICT_REMEDY = "complete the files, or leave out data.strict"


class WorkloadUnusable(InputError):
    problem = "no window can be trained: {why}"
    remedy = "check run.workload and its settings; the traceback is in {log_path}"


class Survey:
    """The survey of a batch. Results that were trained on one of `device_types` are planned to be reused."""

    def __init__(
        self,
        engine: Engine,
        spec: BatchSpec,
        output_dir: Path,
        device_types: tuple[DeviceType, ...],
        *,
        log: str,
        existing: Existing | None = None,
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._log = log
        #: the job of every process, but for its symbols and settings
        self._job = SurveyJob(
            workload=spec.workload,
            data_root=spec.data_root,
            cache_dir=str(engine.cache_dir),
            settings={},
            symbols=(),
            output_dir=str(output_dir),
            device_types=device_types,
            reuse_from=(*existing.reuse_from, *existing.related) if existing else (),
            reuse_known=existing is not None and existing.reuse_known,
            owner=existing.owner if existing else None,
            imports=imports(spec.workload, spec.settings),
            after=spec.after,
        )
        #: `Task.settings` by point
        self._settings: dict[str, dict[str, Any]] = {}
        #: why no window can be trained, as the workload says
        self._unusable: list[str] = []
        self._reported = 0

    async def plan(
        self,
        processes: int,
        *,
        origins: Mapping[str, str] = NO_ORIGINS,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Plan:
        """Survey in `processes` processes at a time, and make the plan.

        If the launcher dies meanwhile, a new one begins again. `origins` tells where the workload's settings were
        given, `on_progress` is called with the numbers of surveyed symbols and of all symbols.

        Raises BadValue for a setting that the workload refuses, WorkloadNotLoadable or WorkloadUnusable if no window
        could be trained, LaunchError if no process can be started, OSError if the log cannot be written.
        """
        for _ in range(1, MOST_SURVEYS):
            try:
                with one_error():
                    return await self._plan(processes, origins, on_progress)
            except LauncherLost as lost:
                log.warning("a survey begins again reason=%r", lost.sentence)
        return await self._plan(processes, origins, on_progress)

    async def _plan(self, processes: int, origins: Mapping[str, str], on_progress: Callable[[int, int], None]) -> Plan:
        # In a thread: the settings of 10,000 points take half a second.
        self._settings |= await anyio.to_thread.run_sync(_settings_by_point, self._spec)
        # Imported once by the launcher, not once by each survey process.
        await self._engine.preload(self._spec, "survey")
        pieces = await pieces_of(self._spec, processes)
        findings = Findings()
        async for piece in _in_turns(pieces):
            findings.ask(piece)

        def take(message: PipeMessage) -> None:
            findings.take(message)
            if self._reported < findings.answered:
                self._reported = findings.answered
                on_progress(self._reported, findings.symbols)

        async def prepare() -> None:
            await self._engine.preload(self._spec)
            check = partial(check_settings, self._engine, self._spec.workload, log=self._log, origins=origins)
            async with anyio.create_task_group() as checks:
                for share in _shares([*self._settings.values()], processes):
                    checks.start_soon(check, share)

        endings = await self._run_all(_grouped(pieces, processes), processes, take, prepare)
        if not self._unusable and (missing := findings.missing()):
            endings = await self._run_all([(piece,) for piece in missing], -(-processes // FEWER), take)
        log_path = self._engine.log_path(self._log)
        if self._unusable:
            raise WorkloadUnusable(why=self._unusable[0], log_path=log_path)
        for piece in findings.missing():
            why = f"its data could not be looked at: {endings[piece.symbol]}, see {log_path}"
            findings.take(SurveyFailed(symbol=piece.symbol, kind="unknown", reason=why))
        return await anyio.to_thread.run_sync(findings.plan)  # of 100,000 windows

    async def _run_all(
        self,
        groups: list[tuple[SymbolWindows, ...]],
        processes: int,
        take: Callable[[PipeMessage], None],
        *besides: Callable[[], Coroutine[Any, Any, None]],
    ) -> dict[str, str]:
        """Survey groups of symbols; return a phrase for each symbol on how its process ended."""
        endings: dict[str, str] = {}
        shared = iter(groups)

        async def work() -> None:
            for group in shared:
                if self._unusable:
                    return
                ending = await self._run(group, take)
                endings.update((piece.symbol, ending) for piece in group)

        async with anyio.create_task_group() as workers:
            for _ in range(min(processes, len(groups))):
                workers.start_soon(work)
            # Their requests go to the same socket after the forks, so that those come first.
            for other in besides:
                workers.start_soon(other)
        return endings

    async def _run(self, group: tuple[SymbolWindows, ...], take: Callable[[PipeMessage], None]) -> str:
        errors: list[str] = []

        def on_message(message: PipeMessage) -> None:
            match message:
                case Error(kind="bad_parameters", message=why):
                    self._unusable.append(why)
                case Error(message=why):  # an error of this process, not of the workload
                    errors.append(why)
            take(message)

        settings = {window.point: self._settings[window.point] for piece in group for window in piece.windows}
        job = msgspec.structs.replace(self._job, symbols=group, settings=settings)
        how = await self._engine.inspect(job, on_message, log=self._log)
        return errors[-1] if errors else f"the process ended with {how}"


def _shares(settings: list[dict[str, Any]], processes: int) -> list[list[dict[str, Any]]]:
    """Settings in as many parts as processes may check them, unless those would be small."""
    most = max(LEAST_CHECKS, -(-len(settings) // processes))
    return [settings[first : first + most] for first in range(0, len(settings), most)]


def _settings_by_point(spec: BatchSpec) -> dict[str, dict[str, Any]]:
    points = dict.fromkeys(window.point for window in planning.windows(spec))
    return {point: settings_at(spec, point) for point in points}


async def _in_turns(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield the items, and let other tasks go on whenever their making and use have taken `TURN_S`."""
    began = time.monotonic()
    for item in items:
        yield item
        if time.monotonic() - began >= TURN_S:
            await anyio.lowlevel.checkpoint()
            began = time.monotonic()


async def pieces_of(spec: BatchSpec, processes: int) -> list[SymbolWindows]:
    """The windows of a batch by symbol; those of a symbol with very many are in several pieces."""
    by_symbol: dict[str, list[Window]] = {}
    async for window in _in_turns(planning.windows(spec)):
        by_symbol.setdefault(window.symbol, []).append(window)
    total = sum(map(len, by_symbol.values()))
    most = min(MOST_WINDOWS, max(LEAST_WINDOWS, -(-total // processes)))
    return [
        SymbolWindows(symbol, tuple(windows[first : first + most]))
        for symbol, windows in by_symbol.items()
        for first in range(0, len(windows), most)
    ]


class Findings:
    """Collects the answers of a survey's processes about the windows that were asked for, and makes the plan."""

    def __init__(self) -> None:
        self._asked: dict[str, list[Window]] = {}
        self._pieces: list[SymbolWindows] = []
        self._data: dict[str, SurveyedSymbol] = {}
        self._answered: set[str] = set()
        #: in the order in which they were asked about; None: no answer yet
        self._windows: dict[Window, PlannedWindow | None] = {}
        #: windows without an answer
        self._open = 0

    def ask(self, piece: SymbolWindows) -> None:
        """Expect answers about the windows of a piece."""
        self._asked.setdefault(piece.symbol, []).extend(piece.windows)
        self._pieces.append(piece)
        before = len(self._windows)
        self._windows |= dict.fromkeys(piece.windows)
        self._open += len(self._windows) - before

    @property
    def symbols(self) -> int:
        """The number of symbols."""
        return len(self._asked)

    @property
    def answered(self) -> int:
        """The number of symbols that have been answered."""
        return len(self._answered)

    def take(self, message: PipeMessage) -> None:
        """Add an answer about a symbol; answers about symbols outside the survey are ignored."""
        match message:
            case SurveyedSymbol(symbol=symbol) if symbol in self._asked:
                self._data[symbol] = self._joined(message)
            case SurveyedWindow(planned=planned) if planned.window in self._windows:
                symbol = planned.window.symbol
                self._answer(planned)
            case SurveyFailed(symbol=symbol, point=point) if symbol in self._asked:
                for window in self._asked[symbol]:
                    if self._windows[window] is None and point in (None, window.point):
                        self._answer(_undone(message, window))
            case _:
                return
        self._answered.add(symbol)

    def _answer(self, planned: PlannedWindow) -> None:
        self._open -= self._windows[planned.window] is None
        self._windows[planned.window] = planned

    def missing(self) -> list[SymbolWindows]:
        """The windows without an answer, in the pieces in which they were asked about."""
        if not self._open:
            return []
        missing = [
            SymbolWindows(piece.symbol, tuple(window for window in piece.windows if self._windows[window] is None))
            for piece in self._pieces
        ]
        return [piece for piece in missing if piece.windows]

    def plan(self) -> Plan:
        """The plan, with notes on gaps from a comparison of the symbols. Call only when nothing is `missing`."""
        notes = {symbol: data.notes for symbol, data in self._data.items() if data.notes}
        days = {symbol: data.days for symbol, data in self._data.items() if data.days is not None}
        for symbol, missing in missing_days(days).items():
            notes[symbol] = (*notes.get(symbol, ()), DataNote("gaps", sentence(missing)))
            if self._data[symbol].strict:
                self._refuse(symbol, sentence(missing))
        return Plan(
            windows=tuple(filter(None, self._windows.values())),
            notes={symbol: notes[symbol] for symbol in self._asked if symbol in notes},
        )

    def _joined(self, data: SurveyedSymbol) -> SurveyedSymbol:
        """The findings about a symbol, joined with earlier ones about its other windows or points.

        Days outside the symbol's windows are wrong, and left out.
        """
        windows, days, earlier = self._asked[data.symbol], data.days, self._data.get(data.symbol)
        start, end = min(window.start for window in windows), max(window.end for window in windows)
        if days is not None and not days.lie_within(start, end):
            days = None
        if earlier is None:
            return msgspec.structs.replace(data, days=days)
        return SurveyedSymbol(
            symbol=data.symbol,
            notes=tuple(dict.fromkeys((*earlier.notes, *data.notes))),
            days=earlier.days.union(days) if earlier.days is not None and days is not None else earlier.days or days,
            strict=earlier.strict or data.strict,
        )

    def _refuse(self, symbol: str, why: str) -> None:
        """Refuse all windows of a symbol that would be trained or reused: models of one symbol belong together."""
        for window in self._asked[symbol]:
            planned = self._windows[window]
            if planned is not None and planned.skip_reason is None and planned.refusal is None:
                self._windows[window] = msgspec.structs.replace(
                    planned, refusal=f"{why}, and data.strict refuses that", remedy=STRICT_REMEDY, committed=None
                )


def _grouped(pieces: list[SymbolWindows], processes: int) -> list[tuple[SymbolWindows, ...]]:
    """Groups of pieces, one for each process, or more if there are many windows; neighbours, which are alike, apart."""
    windows = sum(len(piece.windows) for piece in pieces)
    count = min(len(pieces), max(processes, -(-windows // MOST_WINDOWS)))
    return [tuple(pieces[first::count]) for first in range(count)]


def _undone(failed: SurveyFailed, window: Window) -> PlannedWindow:
    """A planned window whose data could not be inspected."""
    match failed.kind:
        case "no_data":
            return PlannedWindow(window=window, skip_reason=failed.reason, remedy=failed.remedy)
        case "bad_data":
            return PlannedWindow(window=window, refusal=failed.reason, remedy=failed.remedy)
        case "unknown":
            return PlannedWindow(window=window, doubt=failed.reason)
