"""The answers of a survey's processes, put together into a plan."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
import pytest

from gpusched.config import Cache, Config
from gpusched.core.model import BatchSpec, DataNote, PlannedWindow, Window
from gpusched.core.planning import Plan, action
from gpusched.devices.kind import Discovery
from gpusched.engines.attendance import OnMessage
from gpusched.engines.engine import Engine
from gpusched.engines.local.engine import LocalEngine
from gpusched.supervisor.survey import Findings, Survey
from gpusched.worker.messages import (
    Inspection,
    PipeMessage,
    SettingsChecked,
    SurveyedSymbol,
    SurveyedWindow,
    SurveyFailed,
    SurveyJob,
    SymbolWindows,
)
from gpusched.workload import Days
from tests.waiting import PATIENCE_S

START = dt.date(2022, 1, 3)
RANGES = ((START, dt.date(2022, 1, 31)), (dt.date(2022, 2, 1), dt.date(2022, 2, 28)))
#: of four weeks, the days but one
WHOLE = [START.toordinal() + number for number in range(28)]
HOLE = dt.date(2022, 1, 12)


def piece(symbol: str, *points: str) -> SymbolWindows:
    return SymbolWindows(symbol, tuple(Window(symbol, *dates, point) for dates in RANGES for point in points or ("",)))


def asked(*pieces: SymbolWindows) -> Findings:
    findings = Findings()
    for one in pieces:
        findings.ask(one)
    return findings


def _surveyed(window: Window, bars: int, why: str | None = None) -> SurveyedWindow:
    return SurveyedWindow(planned=PlannedWindow(window=window, bars=bars, usable_rows=bars, skip_reason=why))


def said(symbol: str, *notes: DataNote, hole: bool = False, strict: bool = False) -> list[PipeMessage]:
    """A process's answers about a symbol: its second window has no bars."""
    days = Days.of(day for day in WHOLE if not hole or day != HOLE.toordinal())
    first, second = (
        _surveyed(Window(symbol, *dates), bars, why)
        for dates, bars, why in zip(RANGES, (28, 0), (None, "no data: none"), strict=True)
    )
    return [SurveyedSymbol(symbol=symbol, notes=notes, days=days, strict=strict), first, second]


def plan(*messages: list[PipeMessage]) -> Plan:
    findings = asked(*map(piece, ("A", "B", "C")))
    for message in [message for several in messages for message in several]:
        findings.take(message)
    assert findings.missing() == []
    return findings.plan()


def actions(made: Plan) -> list[str]:
    return [action(window) for window in made.windows]


def test_windows_and_notes_are_in_the_order_of_the_symbols() -> None:
    note = DataNote("jumps", "÷ 4")
    made = plan(said("C", note), said("A", note), said("B"))
    assert [window.window.symbol for window in made.windows] == ["A", "A", "B", "B", "C", "C"]
    assert made.notes == {"A": (note,), "C": (note,)}
    assert list(made.notes) == ["A", "C"]
    assert actions(made) == ["train", "skip"] * 3


def test_a_gap_is_a_note_and_where_the_workload_is_strict_a_refusal() -> None:
    told = DataNote("gaps", f"1 day missing that most others have: {HOLE}")
    note = DataNote("jumps", "÷ 4")
    made = plan(said("A"), said("B", note, hole=True), said("C"))
    assert made.notes == {"B": (note, told)}
    assert actions(made) == ["train", "skip"] * 3

    made = plan(said("A", strict=True), said("B", hole=True, strict=True), said("C", strict=True))
    assert actions(made) == ["train", "skip", "fail", "skip", "train", "skip"]
    refused = made.windows[2]
    assert refused.refusal == f"{told.text}, and data.strict refuses that"
    assert refused.remedy


def test_what_failed_is_skipped_refused_or_unknown() -> None:
    failed = [
        SurveyFailed(symbol="A", kind="no_data", reason="no data: no file", remedy="give --interval 1day"),
        SurveyFailed(symbol="B", kind="bad_data", reason="B.csv:3: no number"),
        SurveyFailed(symbol="C", kind="unknown", reason="OSError: [Errno 5]"),
    ]
    made = plan([*failed])
    assert actions(made) == ["skip", "skip", "fail", "fail", "train", "train"]
    first, *_, last = made.windows
    assert (first.skip_reason, first.remedy) == ("no data: no file", "give --interval 1day")
    assert last.doubt == "OSError: [Errno 5]"


def test_what_is_missing_is_known() -> None:
    findings = asked(piece("A"), piece("B"))
    for message in said("A")[:2]:
        findings.take(message)
    assert findings.missing() == [SymbolWindows("A", piece("A").windows[1:]), piece("B")]
    assert (findings.answered, findings.symbols) == (1, 2)


def test_what_is_told_of_a_symbol_in_pieces_is_put_together() -> None:
    one, other = DataNote("jumps", "÷ 4"), DataNote("dropped", "1 of 3 rows")
    findings = asked(*(SymbolWindows("A", part) for part in (piece("A").windows[:1], piece("A").windows[1:])))
    half = len(WHOLE) // 2
    for notes, days in (((one,), WHOLE[half:]), ((one, other), WHOLE[:half]), ((), [])):
        findings.take(SurveyedSymbol(symbol="A", notes=notes, days=Days.of(days), strict=False))
    known = findings._data["A"]
    assert (known.notes, known.days) == ((one, other), Days.of(WHOLE))


def test_a_point_that_cannot_be_trained_leaves_the_others() -> None:
    findings = asked(piece("A", "p", "q"))
    sound = [_surveyed(Window("A", *dates, "q"), 9) for dates in RANGES]
    findings.take(SurveyFailed(symbol="A", point="p", kind="no_data", reason="no"))
    for message in sound:
        findings.take(message)
    assert findings.missing() == []
    assert actions(findings.plan()) == ["skip", "train"] * 2


def test_what_nobody_asked_about_is_passed_over() -> None:
    """A survey runs foreign code, which may write anything to its pipe."""
    foreign = SurveyFailed(symbol="X", kind="bad_data", reason="no")
    lying = SurveyedSymbol(symbol="A", notes=(), days=Days(dt.date.max, b"\xff" * 100), strict=True)
    made = plan(said("A"), said("B"), said("C"), [foreign, *said("Y"), lying])
    assert actions(made) == ["train", "skip"] * 3
    assert made.notes == {}


def _spec(directory: Path, *symbols: str) -> BatchSpec:
    return BatchSpec(
        symbols=symbols,
        start=START,
        end=dt.date(2022, 1, 31),
        window_days=180,
        data_root=str(directory),
        workload="tests.worker.workloads:nothing",
        settings={},
    )


async def surveyed(directory: Path, *symbols: str) -> Plan:
    spec = _spec(directory, *symbols)
    async with LocalEngine(Config(cache=Cache(dir=directory)), directory, Discovery(devices=(), notes=())) as engine:
        return await Survey(engine, spec, directory / "output", ("cpu",), log="survey.log").plan(processes=2)


@pytest.mark.parametrize(
    ("symbol", "says"),
    [
        ("KILLED", "its data could not be looked at: the process ended with signal 9, see"),
        ("MEMORY", "MemoryError: no room"),
        ("DISK", "OSError: [Errno 5] Input/output error"),
        ("BUG", "ZeroDivisionError: division by zero"),
        ("ODD", "its data could not be looked at: TypeError: Encoding objects of type object is unsupported, see"),
    ],
)
async def test_what_befalls_a_survey_says_nothing_about_the_data(tmp_path: Path, symbol: str, says: str) -> None:
    """The window runs; the others are judged as ever."""
    with anyio.fail_after(PATIENCE_S):
        made = await surveyed(tmp_path, symbol, "SYM", "BAD")
    doubted, sound, bad = made.windows
    assert actions(made) == ["train", "train", "fail"]
    assert (doubted.doubt or "").startswith(says)
    assert (doubted.fingerprint, doubted.skip_reason, doubted.refusal) == (None, None, None)
    assert (sound.doubt, sound.bars) == (None, 100)
    assert bad.refusal == "no bars at all"


class Scarce:
    """An engine with memory for one survey at a time: of several, the kernel kills all."""

    def __init__(self, directory: Path) -> None:
        self.cache_dir = directory
        self.running = 0

    async def preload(self, spec: BatchSpec, part: str = "") -> None:
        pass

    def log_path(self, log: str) -> Path:
        return self.cache_dir / log

    async def inspect(self, job: Inspection, on_message: OnMessage, *, log: str) -> str:
        if not isinstance(job, SurveyJob):
            on_message(SettingsChecked(refusals={}))
            return "exit code 0"
        self.running += 1
        await anyio.wait_all_tasks_blocked()  # the others have begun
        is_killed = self.running > 1
        await anyio.lowlevel.checkpoint()
        self.running -= 1
        for window in () if is_killed else [window for piece in job.symbols for window in piece.windows]:
            on_message(_surveyed(window, 100))
        return "signal 9" if is_killed else "exit code 0"


async def test_what_does_not_fit_at_once_is_looked_at_one_by_one(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "A", "B", "C")
    survey = Survey(cast(Engine, Scarce(tmp_path)), spec, tmp_path / "output", ("cpu",), log="survey.log")
    with anyio.fail_after(PATIENCE_S):
        made = await survey.plan(processes=3)
    assert [window.doubt for window in made.windows] == [None] * 3
