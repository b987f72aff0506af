"""`status`: the order and choice of batches, and its frames compared with those that a person has read."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len
from rich.text import Text

from gpusched.client.drawing.logs import written_log
from gpusched.client.drawing.palette import COLOURS, STYLES
from gpusched.client.drawing.standing import BatchScreen, BatchTable, Failures, Seen
from gpusched.client.views.batch import BatchView
from gpusched.client.views.failures import by_reason, failed_window
from gpusched.client.views.standing import STANDINGS, Wanted, by_urgency, standing, why_held
from gpusched.core.model import Slot
from gpusched.core.states import Failure, FailureKind
from gpusched.core.statuses import OUTCOMES, UNFINISHED
from gpusched.protocol import BatchStatus, WindowLine
from tests.client.support import Onlooker, console, drawn, text
from tests.client.test_screens import HOSTILE, check
from tests.core.support import batch, gpu, key
from tests.powers import closed

DAY = dt.date(2022, 1, 1)
NOW = 10_000.0


def status(name: str, state: str = "open", age: float = 100.0, owner: int | None = None, **counts: int) -> BatchStatus:
    return BatchStatus(
        id=name,
        output_dir=f"/srv/quant/runs/{name}",
        submitted_at=NOW - age,
        state=state,  # type: ignore[arg-type]
        held_reason="the last 10 windows failed in the same way" if state == "held" else None,
        finished_at=NOW - age / 2 if state == "finished" else None,
        counts=counts,
        at=NOW,
        owner=owner,
    )


def failed(
    number: int, reason: str, kind: FailureKind = "raised", attempts: int = 1, source_line: str = ""
) -> WindowLine:
    return WindowLine(
        key=key(f"SYM{number:02}"),
        symbol=f"SYM{number:02}",
        start=DAY,
        end=DAY,
        status="failed",
        moved_at=NOW,
        usable_rows=90,
        attempts=attempts,
        slot=Slot(0, "GPU-0"),
        pid=7,
        started_at=NOW - 9,
        ended_at=NOW,
        failure=Failure(kind=kind, message=reason, source_line=source_line),
    )


def result(number: int, seconds: float) -> WindowLine:
    return WindowLine(
        key=key(f"SYM{number:02}"), symbol=f"SYM{number:02}", start=DAY, end=DAY, status="succeeded", moved_at=NOW,
        usable_rows=90, attempts=1, seconds=seconds, slot=Slot(0, "GPU-0"),
    )  # fmt: skip


WAITING = status("waiting-for-a-slot", queued=252)
RUNNING = status("nifty-teachers-2024-3f2a91bc", age=75.0, owner=1, succeeded=8, failed=2, running=2, queued=12)
HELD = status("held", "held", 7_500.0, succeeded=10, failed=10, queued=232)
OLD = status("old", "finished", 97_000.0, succeeded=240, skipped=8, failed=3, timed_out=1)
OLDER = status("older", "finished", 970_000.0, reused=252)
ALL = (OLDER, OLD, HELD, RUNNING, WAITING)


def at_work() -> tuple[BatchView, float]:
    """A view of a batch of 24 windows, ten of which have ended."""
    onlooker = Onlooker(gpu(0, capacity=2))
    onlooker.submit(batch(), [f"SYM{number:02}" for number in range(24)])
    for number in range(10):
        onlooker.train(f"SYM{number:02}", seconds=1.0 + number / 10)
    onlooker.start(key("SYM10")).wait(0.5)
    onlooker.progress("SYM10", "boosting", 120, 500)
    return onlooker.view, onlooker.at


def table() -> BatchTable:
    view, now = at_work()
    seen = [
        Seen(batch=one, view=view if one is RUNNING else None, owner="daemon" if one.owner else "", monotonic=now)
        for one in ALL
    ]
    return BatchTable(batches=seen, more=3)


def screen(one: BatchStatus = RUNNING, logs_dir: str = "/var/lib/gpusched/logs/b") -> BatchScreen:
    view, now = at_work()
    lines = [*(failed(number, f"ValueError: the column 'close' has {number} gaps") for number in range(3, 6))]
    lines += [
        failed(9, "MemoryError", "memory", attempts=3),
        failed(8, "BARS.csv:3: '1,5' is not a number", "bad_data", 0),
    ]
    return BatchScreen(
        seen=Seen(batch=one, view=view, owner="alice", monotonic=now),
        groups=by_reason(map(failed_window, lines)),
        slowest=[result(7, 12.5), result(3, 2.25), result(1, 0.5), result(2, 0.4)],
        logs_dir=Path(logs_dir),
        device="cuda: done in 11 s, the processors would take 2m05s",
        way_on="`gpusched release held` lets it go on",
    )


@pytest.mark.parametrize("width", [80, 120])
def test_all_batches(width: int) -> None:
    check("status", width, drawn(table(), width, 24))


@pytest.mark.parametrize("width", [80, 120])
def test_one_batch_on_one_screen(width: int) -> None:
    shown = drawn(screen(), width, 24)
    check("status-batch", width, shown)
    assert len(shown.splitlines()) <= 24


def test_the_path_of_a_log_is_whole_however_long() -> None:
    terminal = console(80)
    terminal.print(screen(logs_dir=f"/srv/{'x' * 100}"), crop=False)
    assert f"/srv/{'x' * 100}/SYM09_2022-01-01_to_2022-01-01.3.log\n" in text(terminal)


def test_a_failure_is_shown_whole_with_its_line_and_its_log_also_where_it_wraps() -> None:
    message = "ValueError: " + " ".join(f"word{number}" for number in range(60))
    lines = [failed(number, message, source_line="/srv/a/train.py:41") for number in range(5)]
    groups = by_reason(map(failed_window, lines))
    for width in (80, 120):
        terminal = console(width)
        terminal.print(Failures(groups=groups, logs_dir=Path("/srv") / ("x" * 100)), crop=False)
        shown = text(terminal)
        assert message in " ".join(shown.split())
        assert "SYM00_2022-01-01_to_2022-01-01, SYM01_2022-01-01_to_2022-01-01, " in " ".join(shown.split())
        assert "and 2 more" in shown
        assert "\n      at /srv/a/train.py:41\n" in shown
        assert f"\n      /srv/{'x' * 100}/SYM00_2022-01-01_to_2022-01-01.1.log\n" in shown


def test_a_window_that_wrote_nothing_is_named_and_no_log_is(tmp_path: Path) -> None:
    """A path was shown where no file was: a window that ends without a word leaves none."""
    label = "SYM00_2022-01-01_to_2022-01-01"
    terminal = console(120)
    terminal.print(Failures(groups=by_reason([failed_window(failed(0, "exited"))]), logs_dir=tmp_path), crop=False)
    assert f"\n      {label}\n      it has written nothing to stdout or stderr\n" in text(terminal)
    (tmp_path / f"{label}.1.log").touch()
    assert written_log(tmp_path, label, 1) == tmp_path / f"{label}.1.log"
    assert written_log(tmp_path, label, 2) is None
    assert written_log(tmp_path, label, 2, "n1") == tmp_path / f"{label}.2.log", "the node may keep it"
    with closed(tmp_path) as private:
        assert written_log(private, label, 2) == tmp_path / f"{label}.2.log", "nobody knows"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_failures_are_never_cut_away_and_no_line_is_too_long(width: int, encoding: str) -> None:
    shown = drawn(table(), width, 24, encoding=encoding)
    lines = shown.splitlines()
    assert "failed" in lines[0]
    assert [line.split()[3] for line in lines[3:5]] == ["10", "4"]
    assert max(map(cell_len, lines)) <= width
    assert encoding == "utf-8" or shown.isascii()


def test_failures_are_red_and_states_have_the_palettes_colours() -> None:
    view, now = at_work()
    options = console(80).options
    alone = BatchTable(batches=[Seen(batch=HELD, view=view, monotonic=now)])
    _, row, _ = [line for line in alone.__rich_console__(console(80), options) if isinstance(line, Text)]
    assert {(str(span.style), row.plain[span.start : span.end].strip()) for span in row.spans} == {
        (STYLES["held"], "held"), (STYLES["failed"], "10")
    }  # fmt: skip
    assert set(STYLES) >= {*UNFINISHED, *OUTCOMES}
    assert set(COLOURS) >= set(OUTCOMES)


def test_running_batches_come_first_and_new_ones_before_old_ones() -> None:
    assert [standing(one) for one in ALL] == ["finished", "finished", "held", "running", "waiting"]
    assert by_urgency(ALL) == [RUNNING, WAITING, HELD, OLD, OLDER]


def test_batches_are_picked_by_name_state_and_number() -> None:
    assert Wanted().pick(ALL) == list(ALL)
    assert Wanted(name="old").pick(ALL) == [OLDER, OLD]
    assert Wanted(state="failed").pick(ALL) == [OLD, HELD, RUNNING]
    assert [one for state in STANDINGS for one in Wanted(state=state).pick(ALL)] == [RUNNING, WAITING, HELD, OLDER, OLD]
    assert Wanted(limit=2).pick(ALL) == [RUNNING, WAITING]
    assert Wanted(limit=4).pick(ALL) == [OLD, HELD, RUNNING, WAITING], "the oldest finished one is left out"
    assert Wanted(limit=9).pick(ALL) == list(ALL)


def test_failures_are_grouped_without_the_parts_that_differ() -> None:
    lines = [
        failed(1, "3 gaps"),
        failed(2, "4 gaps"),
        failed(3, "3 gaps", "bad_data"),
        failed(4, "none"),
        failed(5, "none"),
    ]
    groups = by_reason(map(failed_window, lines))
    assert [(group.example.reason, len(group.labels), group.same, group.example.label[:5]) for group in groups] == [
        ("3 gaps", 2, False, "SYM01"), ("none", 2, True, "SYM04"), ("3 gaps", 1, True, "SYM03")
    ]  # fmt: skip


def test_a_finished_batch_has_a_rate_and_nothing_left() -> None:
    shown = drawn(screen(OLD), 80)
    assert "252 windows: 240 succeeded, 8 skipped, 3 failed, 1 timed out" in shown
    assert "in all" in shown
    assert " left" not in shown


@pytest.mark.parametrize(
    ("counts", "stands", "why"),
    [
        ({"succeeded": 9, "held": 1}, "held", "the window that is left"),
        ({"held": 3}, "held", "all 3 windows that are left"),
        ({"held": 3, "queued": 1}, "waiting", None),
        ({"held": 3, "running": 1}, "running", None),
    ],
)
def test_a_batch_of_which_only_held_windows_are_left_is_held(
    counts: dict[str, int], stands: str, why: str | None
) -> None:
    """It was said to wait, without the reason."""
    one = msgspec.structs.replace(status("h"), counts=counts)
    assert (standing(one), why_held(one)) == (stands, why)
    told = f"h is held: {why}; `gpusched release h` lets it go on"
    assert (told in drawn(BatchTable(batches=[Seen(batch=one, monotonic=NOW)]), 120, 24)) == (why is not None)
    assert (f"  held: {why}\n" in drawn(screen(one), 120, 24)) == (why is not None)


def test_a_held_batch_says_why_and_how_it_goes_on() -> None:
    shown = drawn(screen(HELD), 80)
    assert "held: the last 10 windows failed in the same way" in shown
    assert "`gpusched release held` lets it go on" in shown


def test_more_reasons_than_fit() -> None:
    view, now = at_work()
    groups = by_reason(failed_window(failed(number, f"reason {'x' * (number + 1)}")) for number in range(12))
    shown = drawn(
        BatchScreen(seen=Seen(batch=HELD, view=view, monotonic=now), groups=groups, logs_dir=Path("/logs"), way_on=""),
        80,
    )
    assert "and for 4 more reasons" in shown


def test_foreign_text_is_harmless() -> None:
    one = status("b", held=1)
    lines = [failed(1, HOSTILE)]
    terminal = console(80)
    terminal.print(
        BatchScreen(
            seen=Seen(batch=one, owner=HOSTILE),
            groups=by_reason(map(failed_window, lines)),
            logs_dir=Path("/logs"),
            way_on=HOSTILE,
        )
    )
    assert all(line.isprintable() for line in text(terminal).splitlines())
