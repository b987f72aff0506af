"""The survey: inspect the data of every window of a batch in forked processes, and make the plan from their findings.

Symbols are surveyed in groups, usually one for each core, while the launcher imports the other modules that windows
need. If a process dies, its unanswered symbols are tried once more, each in a process of its own. Windows whose data
kill a process again are not judged here: they run.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from gpusched.command import imports
from gpusched.config.workloads import NO_ORIGINS, settings_at
from gpusched.core import planning
from gpusched.core.calendar import missing_days, sentence
from gpusched.core.model import BatchSpec, DataNote, DeviceType, PlannedWindow, Window
from gpusched.core.planning import Plan
from gpusched.engines.local.launcher import Launcher
from gpusched.errors import InputError
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
#: windows of one symbol that are not shared among processes: each would have to load its bars
LEAST_WINDOWS = 200
STRICT_REMEDY = "complete the files, or leave out data.strict"


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
    origins: Mapping[str, str] = NO_ORIGINS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Make the plan of a batch. Committed results that were trained on one of `device_types` are planned to be reused.

    `origins` tells where the workload's settings were given, `on_progress` is called with the numbers of surveyed
    symbols and of all symbols. Raises BadValue for a setting that the workload refuses, WorkloadNotLoadable or
    WorkloadUnusable if no window could be trained, LaunchError if no process can be started, OSError if `log_path`
    cannot be written.
    """
    # Imported once by the launcher, not once by each survey process.
    preloaded = imports(spec.workload, spec.settings)
    await launcher.preload(spec.workload, "survey", preloaded)
    pieces = pieces_of(spec, processes)
    findings = Findings(pieces)
    # Those of 10,000 points take half a second.
    settings = await anyio.to_thread.run_sync(settings_by_point, spec)
    reported = 0
    unusable: list[str] = []

    async def run(group: tuple[SymbolWindows, ...]) -> str:
        """Survey a group of symbols; return a phrase on how its process ended."""
        job = SurveyJob(
            workload=spec.workload,
            data_root=spec.data_root,
            cache_dir=str(cache_dir),
            settings={window.point: settings[window.point] for piece in group for window in piece.windows},
            symbols=group,
            output_dir=str(output_dir),
            device_types=device_types,
            imports=preloaded,
        )
        errors: list[str] = []

        def on_message(message: PipeMessage) -> None:
            nonlocal reported
            match message:
                case Error(kind="bad_parameters", message=why):
                    unusable.append(why)
                case Error(message=why):  # an error of this process, not of the workload
                    errors.append(why)
            findings.take(message)
            if reported < findings.answered:
                reported = findings.answered
                on_progress(reported, findings.symbols)

        process = await launcher.fork(job, log_path=log_path, env={"CUDA_VISIBLE_DEVICES": ""})
        end = await process.wait(on_message)
        how = f"signal {end.signal}" if end.signal else f"exit code {end.exit_code}"
        return errors[-1] if errors else f"the process ended with {end.violation or how}"

    async def work(groups: Iterable[tuple[SymbolWindows, ...]], endings: dict[str, str]) -> None:
        for group in groups:
            if unusable:
                return
            ending = await run(group)
            endings.update((piece.symbol, ending) for piece in group)

    async def run_all(
        groups: list[tuple[SymbolWindows, ...]], *besides: Callable[[], Coroutine[Any, Any, None]]
    ) -> dict[str, str]:
        endings: dict[str, str] = {}
        shared = iter(groups)
        async with anyio.create_task_group() as workers:
            for _ in range(min(processes, len(groups))):
                workers.start_soon(work, shared, endings)
            # Their requests go to the same socket after the forks, so that those come first.
            for other in besides:
                workers.start_soon(other)
        return endings

    async def prepare() -> None:
        await launcher.preload(spec.workload, "window", preloaded)
        await check_settings(launcher, spec.workload, [*settings.values()], log_path=log_path, origins=origins)

    endings = await run_all(_grouped(pieces, processes), prepare)
    if not unusable and (missing := findings.missing()):
        endings = await run_all([(piece,) for piece in missing])
    if unusable:
        raise WorkloadUnusable(why=unusable[0], log_path=log_path)
    for piece in findings.missing():
        why = f"its data could not be looked at: {endings[piece.symbol]}, see {log_path}"
        findings.take(SurveyFailed(symbol=piece.symbol, what="unknown", reason=why))
    return findings.plan()


def settings_by_point(spec: BatchSpec) -> dict[str, dict[str, Any]]:
    """`Task.settings` at each point of a batch, and without a point. Raises BadValue."""
    return {point: settings_at(spec, point) for point in ("", *spec.points)}


def pieces_of(spec: BatchSpec, processes: int) -> list[SymbolWindows]:
    """The windows of a batch by symbol; those of a symbol with very many are in several pieces."""
    by_symbol: dict[str, list[Window]] = {}
    for window in planning.windows(spec):
        by_symbol.setdefault(window.symbol, []).append(window)
    total = sum(map(len, by_symbol.values()))
    most = min(MOST_WINDOWS, max(LEAST_WINDOWS, -(-total // processes)))
    return [
        SymbolWindows(symbol, tuple(windows[first : first + most]))
        for symbol, windows in by_symbol.items()
        for first in range(0, len(windows), most)
    ]


class Findings:
    """Collects the answers of a survey's processes, and makes the plan from them."""

    def __init__(self, pieces: Sequence[SymbolWindows]) -> None:
        self._asked: dict[str, list[Window]] = {}
        for piece in pieces:
            self._asked.setdefault(piece.symbol, []).extend(piece.windows)
        self._pieces = tuple(pieces)
        self._windows: dict[Window, PlannedWindow] = {}
        self._data: dict[str, SurveyedSymbol] = {}
        self._answered: set[str] = set()

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
            case SurveyedWindow(planned=planned) if planned.window.symbol in self._asked:
                symbol = planned.window.symbol
                self._windows[planned.window] = planned
            case SurveyFailed(symbol=symbol, point=point) if symbol in self._asked:
                for window in self._asked[symbol]:
                    if window not in self._windows and point in (None, window.point):
                        self._windows[window] = _undone(message, window)
            case _:
                return
        self._answered.add(symbol)

    def missing(self) -> list[SymbolWindows]:
        """The windows without an answer, in the pieces in which they were asked about."""
        missing = [
            SymbolWindows(piece.symbol, tuple(window for window in piece.windows if window not in self._windows))
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
            windows=tuple(self._windows[window] for windows in self._asked.values() for window in windows),
            notes={symbol: notes[symbol] for symbol in self._asked if symbol in notes},
        )

    def _joined(self, data: SurveyedSymbol) -> SurveyedSymbol:
        """What is told of a symbol, together with what was told of it before, about other windows or points.

        Days outside the symbol's windows are wrong, and left out.
        """
        windows, days, known = self._asked[data.symbol], data.days, self._data.get(data.symbol)
        start, end = min(window.start for window in windows), max(window.end for window in windows)
        if days is not None and not days.lie_within(start, end):
            days = None
        if known is None:
            return msgspec.structs.replace(data, days=days)
        return SurveyedSymbol(
            symbol=data.symbol,
            notes=tuple(dict.fromkeys((*known.notes, *data.notes))),
            days=known.days.union(days) if known.days is not None and days is not None else known.days or days,
            strict=known.strict or data.strict,
        )

    def _refuse(self, symbol: str, why: str) -> None:
        """Refuse all windows of a symbol that would be trained or reused: models of one symbol belong together."""
        for window in self._asked[symbol]:
            planned = self._windows[window]
            if planned.skip_reason is None and planned.refusal is None:
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
    match failed.what:
        case "no_data":
            return PlannedWindow(window=window, skip_reason=failed.reason, remedy=failed.remedy)
        case "bad_data":
            return PlannedWindow(window=window, refusal=failed.reason, remedy=failed.remedy)
        case "unknown":
            return PlannedWindow(window=window, doubt=failed.reason)
