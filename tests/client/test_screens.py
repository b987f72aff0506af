"""Frames, compared with those that a person has read: `golden/NAME-WIDTH.txt`. A missing file is written."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table

from gpusched.client.drawing.plan import PlanTable, plan_rows
from gpusched.client.drawing.run import Frame
from gpusched.client.drawing.summary import Summary
from gpusched.client.views.batch import BatchView
from gpusched.core.model import Limits, PlannedWindow, Window
from gpusched.core.planning import Plan
from tests.client.support import Onlooker, console, drawn, trained
from tests.core.support import DAY, batch, failure, gpu, key, planned
from tests.store.samples import SPEC

GOLDEN = Path(__file__).parent / "golden"
SIZES = pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
LOGS = Path("/home/quant/runs/sp500-1a2b3c4d/.gpusched/logs")


def short(number: int) -> str:
    return f"too few rows: {number} of the 50 that are needed ({number + 5} bars, the last 5 of which have no label)"


def busy(slots: int) -> Onlooker:
    """A batch half done on two cards: some windows failed, some reused and skipped, one at its second attempt."""
    look = Onlooker(gpu(0, slots - slots // 2), gpu(1, slots // 2))
    skipped = [planned(f"SHORT{number}", number, skip=short(number)) for number in range(3)]
    symbols = [planned(f"SYM{number:03}", 1000 - number) for number in range(slots + 24)]
    limits = Limits(backoff_s=0.0, breaker_failures=0)
    look.submit(batch("sp500-1a2b3c4d", limits=limits), [*symbols, *skipped, planned("DONE", committed=True)])
    for number in range(16):
        running = look.view.running[number % min(slots, 4)]
        where = key(running.label.split("_")[0], "sp500-1a2b3c4d")
        look.start(where, running.attempt).wait(0.5 + number / 4)
        if number == 9:
            look.end(where, ending=failure("bad_data", "the column 'close' has 3 gaps"))
        elif number == 15:
            look.end(where, ending=failure("killed", "killed by signal 9"))
        else:
            look.end(where, running.attempt, trained())
    for slot in range(2, slots, 2):
        running = look.view.running[slot]
        look.start(key(running.label.split("_")[0], "sp500-1a2b3c4d"), running.attempt)
        running.phase, running.round, running.rounds = "training", 25 * slot, 1000
    return look


def check(name: str, width: int, shown: str) -> None:
    path = GOLDEN / f"{name}-{width}.txt"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown + "\n")
        pytest.fail(f"{path} was not there; look at what has been written to it")
    assert shown + "\n" == path.read_text()
    assert max(cell_len(line) for line in shown.splitlines()) <= width


@SIZES
@pytest.mark.parametrize("slots", [6, 64])
def test_a_running_batch(width: int, height: int, slots: int) -> None:
    look = busy(slots)
    frame = Frame(view=look.view, began=1000.0, monotonic=look.at)
    shown = drawn(frame, width, height)
    assert len(shown.splitlines()) < height
    check(f"running-{slots}", width, shown)


@SIZES
def test_a_batch_that_ended(width: int, height: int) -> None:
    look = busy(4)
    what = Summary(view=look.view, seconds=3912.4, held_reason=None, interrupted=True, logs_dir=LOGS, spec=SPEC)
    check("summary", width, drawn(what, width, height))


def plan() -> Plan:
    windows = [planned("AAPL", 182), planned("MSFT", 91, committed=True), planned("BRK.B" * 12, 20, skip=short(20))]
    return Plan(windows=(*windows, planned("TSLA", 4, skip=short(4)), planned("GME", 0, skip="no data: none at all")))


@SIZES
def test_a_plan(width: int, height: int) -> None:
    check("plan", width, drawn(PlanTable(plan=plan()), width, height))


@SIZES
def test_a_plan_of_many_windows_is_summed_up_by_symbol(width: int, height: int) -> None:
    few = plan().windows
    many = [planned(f"SYM{number:02}", 90 + day) for number in range(12) for day in range(3)]
    table = PlanTable(plan=Plan(windows=(*few, *many)), every_window=False)
    check("plan-by-symbol", width, drawn(table, width, height))
    shown = drawn(PlanTable(plan=plan(), every_window=False), width, height)
    assert shown == drawn(PlanTable(plan=plan()), width, height), "few windows are listed"


def test_rows_of_a_workload_without_a_survey_are_unknown() -> None:
    windows = [PlannedWindow(window=Window(f"S{number}", DAY, DAY), bars=0, usable_rows=0) for number in range(30)]
    by_symbol = drawn(PlanTable(plan=Plan(windows=tuple(windows)), every_window=False), 80).split("\n")
    assert by_symbol[1].split() == ["S0", "1", "1", "–"]
    each = drawn(PlanTable(plan=Plan(windows=tuple(windows))), 80).split("\n")
    assert each[1].split() == [windows[0].window.label, "–", "–", "train"]


def test_a_plan_for_pipes() -> None:
    names, *rows = [row.split("\t") for row in plan_rows(plan())]
    assert names == ["symbol", "start", "end", "window", "bars", "usable_rows", "action", "reason"]
    assert rows[0] == ["AAPL", "2022-01-01", "2022-01-01", "AAPL_2022-01-01_to_2022-01-01", "182", "182", "train", ""]
    assert [row[6] for row in rows] == ["train", "reuse", "skip", "skip", "skip"]
    assert rows[3][7] == short(4)
    assert {len(row) for row in rows} == {8}


# -- where little can be shown -----------------------------------------------------------------------------------------


def renderables() -> list[RenderableType]:
    look = busy(64)
    return [
        Frame(view=look.view, began=1000.0, monotonic=look.at),
        Frame(view=BatchView(), began=1000.0, monotonic=1001.0, waiting="Looking at the data: 1/2 symbols – …"),
        Summary(view=look.view, seconds=12.0, held_reason="“so” it goes…", interrupted=False, logs_dir=LOGS, spec=SPEC),
        PlanTable(plan=plan()),
    ]


@SIZES
def test_ascii_alone_where_the_encoding_knows_no_more(width: int, height: int) -> None:
    for what in renderables():
        assert drawn(what, width, height, encoding="ascii").isascii()
        # Characters beyond ASCII must not only survive the encoder: latin-1 could take some of it.
        assert drawn(what, width, height, encoding="latin-1").isascii()


@pytest.mark.parametrize("width", [20, 40, 60])
@pytest.mark.parametrize("height", [3, 5, 10])
def test_small_screens_are_never_exceeded(width: int, height: int) -> None:
    frame = renderables()[0]
    lines = drawn(frame, width, height).splitlines()
    assert len(lines) < height
    assert all(cell_len(line) <= width for line in lines)


def test_a_frame_is_drawn_in_time() -> None:
    """In an eighth of the time of a plain table as large as the screen: on any machine, and beside any neighbour."""
    frame, screen = renderables()[0], console(200, 50)
    table = Table(*(f"column {number}" for number in range(10)), width=200)
    for number in range(46):
        table.add_row(*(str(number * column) for column in range(10)))

    def seconds(drawn: RenderableType) -> float:
        began = time.thread_time()
        screen.print(drawn)
        return time.thread_time() - began

    assert statistics.median(seconds(frame) / seconds(table) for _ in range(20)) < 1 / 8


# -- text that is not ours ---------------------------------------------------------------------------------------------

HOSTILE = "[bold red]x[/] [link=file:///]y[/link] :smile: \x1b[2J\x1b]0;title\x07 \u202egnp.exe \x9b31m\r\nnext\tcell"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_foreign_text_is_shown_and_not_obeyed(encoding: str) -> None:
    look = Onlooker()
    look.submit(batch(HOSTILE), [HOSTILE, planned("SKIPPED", skip=HOSTILE)])
    look.start(key(HOSTILE, HOSTILE))
    frame = Frame(view=look.view, began=0.0, monotonic=look.at)
    look.view.running[0].phase = HOSTILE
    running = drawn(frame, 200, encoding=encoding)
    look.end(key(HOSTILE, HOSTILE), ending=failure("bad_data", HOSTILE))
    ended = [drawn(frame, 200, encoding=encoding)]
    ended.append(
        drawn(
            Summary(view=look.view, seconds=1.0, held_reason=HOSTILE, interrupted=True, logs_dir=LOGS, spec=SPEC),
            400,
            encoding=encoding,
        )
    )
    windows = (planned(HOSTILE), planned("SKIPPED", skip=HOSTILE))
    ended.append(drawn(PlanTable(plan=Plan(windows=windows)), 400, encoding=encoding))
    ended += list(plan_rows(Plan(windows=windows)))[1:]
    for shown in [running, *ended]:
        assert all(line.replace("\t", "").isprintable() for line in shown.split("\n"))
    for shown in ended:
        assert "[bold red]x[/]" in shown
        assert ":smile:" in shown


def test_wide_characters_take_two_cells() -> None:
    look = Onlooker()
    look.submit(batch("b"), ["東京証券取引所" * 6])
    shown = drawn(Frame(view=look.view, began=1000.0, monotonic=look.at), 80)
    assert all(cell_len(line) <= 80 for line in shown.splitlines())
    assert "…" in shown
