"""The screen of a run: a live area on terminals, plain lines elsewhere, and updates that wait for neither."""

from __future__ import annotations

import io
import re
import signal
import sys
import threading

import pytest
from rich.console import Console

from gpusched.client.drawing import terminal as render
from gpusched.client.drawing.terminal import LINES_A_FRAME, RunScreen, open_console
from gpusched.client.views.batch import BatchView
from gpusched.core.events import ChangeRequested, DeviceLost, Event, Update
from gpusched.core.model import Device, Limits
from gpusched.core.planning import Plan
from gpusched.protocol import BatchStatus, Snapshot
from tests.client.support import Onlooker, calls, console, text
from tests.core.support import batch, cpu, failure, gpu, key, label, planned
from tests.waiting import PATIENCE_S, until

#: the terminal's sequences for the cursor
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
MANY = Limits(breaker_failures=0)


class Shown(Onlooker):
    """Shows all that happens on a screen, too, which has a view of its own."""

    def __init__(self, screen: RunScreen, *devices: Device) -> None:
        self.screen = screen
        self.told: list[Update] = []
        super().__init__(*devices)

    def send(self, event: Event) -> Shown:
        super().send(event)
        self.told += self.records
        for record in self.records:
            self.screen.update(record)
        return self


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No frame is drawn but by `tick`."""
    monkeypatch.setattr(render, "FRAME_S", 3600.0)


def plan() -> Plan:
    return Plan(windows=(planned("A"), planned("B"), planned("C", skip="no data"), planned("D", committed=True)))


# -- not a terminal ----------------------------------------------------------------------------------------------------


def test_plain_lines_where_there_is_no_terminal() -> None:
    out = console(40, terminal=False)
    with RunScreen(out, BatchView()) as screen:
        screen.planning(1, 3)
        screen.planning(3, 3)
        screen.planned(plan())
        look = Shown(screen)
        look.submit(batch(), plan().windows)
        look.train("A")
        look.fail("B", "[red]gone[/] \x1b[31m\nnext")
        screen.note("Draining: nothing else is started")
    took = text(out).splitlines()[2].split(" on ")[0]
    assert text(out).splitlines() == [
        "Looking at the data: 3/3 symbols",
        "Plan: 2 to train, 1 to reuse, 1 to skip",
        f"{took} on slot 0 (cpu), auc 0.532, accuracy 0.540",
        f"[4/4] {label('B')}  failed (bad data): [red]gone[/] \N{REPLACEMENT CHARACTER}[31m next",
        "Draining: nothing else is started",
    ]
    assert took.startswith(f"[3/4] succeeded {label('A')} 0.")


def test_a_survey_that_takes_long_is_told_of_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "SURVEY_NOTE_S", 0.0)
    out = console(40, terminal=False)
    with RunScreen(out, BatchView()) as screen:
        screen.planning(1, 3)
    assert text(out) == "Looking at the data: 1/3 symbols\n"


def test_windows_that_ended_before_they_were_followed_are_counted_in_a_plain_line() -> None:
    """A window of milliseconds ends before `submit --wait` follows its batch."""
    out = console(80, terminal=False)

    def so_far(**counts: int) -> Snapshot:
        status = BatchStatus(
            id="b", output_dir="/out", submitted_at=0.0, state="open", held_reason=None, finished_at=None, counts=counts
        )
        return Snapshot(at=0.0, batches=(status,), active=(), progress=(), devices=())

    with RunScreen(out, BatchView()) as screen:
        screen.load(so_far(queued=3, reused=2, skipped=1), "b")
        screen.load(so_far(queued=1, succeeded=1, timed_out=1, reused=2, skipped=1), "b")
        screen.load(so_far(queued=1, succeeded=1, timed_out=1, reused=2, skipped=1), "b")
    assert text(out).splitlines() == ["[5/6] so far: 1 succeeded, 1 timed out"]


def test_plain_lines_in_ascii() -> None:
    out = console(terminal=False, encoding="ascii")
    with RunScreen(out, BatchView()) as screen:
        screen.note("“Für” – …")
        look = Shown(screen)
        look.submit(batch(), ["東京"])
        look.train("東京")
    assert text(out).splitlines()[0] == '"F?r" - ...'
    assert "??_2022" in text(out)


def test_a_hold_and_a_lost_device_are_said() -> None:
    out = console(terminal=False)
    with RunScreen(out, BatchView()) as screen:
        look = Shown(screen, gpu(0), gpu(1))
        look.submit(batch(), ["A"]).send(ChangeRequested(verb="hold", batch_id="b"))
        look.send(DeviceLost(device_id="GPU-1", reason="it fell off the bus"))
    assert text(out).splitlines() == [
        "Held: by request",
        "Device GPU-1 is quarantined: it fell off the bus",
    ]


def test_windows_cancelled_in_the_queue_are_counted_in_silence() -> None:
    out, view = console(terminal=False), BatchView()
    with RunScreen(out, view) as screen:
        look = Shown(screen)
        look.submit(batch(), ["A", "B"]).send(ChangeRequested(verb="cancel", batch_id="b", label=label("B")))
    assert text(out) == ""
    assert view.counts["cancelled"] == 1


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines() -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "dumb"})
    with RunScreen(out, BatchView()) as screen:
        screen.note("said")
    assert out.file.getvalue() == "said\n"  # type: ignore[attr-defined]


# -- a terminal --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("still")
def test_the_live_area_is_drawn_by_the_timer_and_only_failures_above_it() -> None:
    out = console()
    with RunScreen(out, BatchView()) as screen:
        screen.planning(1, 3)
        screen.tick()
        assert "Looking at the data: 1/3 symbols" in text(out)
        look = Shown(screen)
        look.submit(batch(), ["A", "B", "C"])
        look.train("A")
        look.fail("B", "[red]gone[/]")
        before = text(out)
        assert label("A") not in before
        screen.tick()
        frame = text(out).removeprefix(before)
        above, _, live = frame.partition("2/3")
        assert f"{label('B')}  failed (bad data): [red]gone[/]" in above
        assert label("A") not in above
        assert label("A") in live
        assert label("C") in live
        assert "ETA" in live


@pytest.mark.usefixtures("still")
def test_a_flood_of_failures_is_shortened() -> None:
    out = console()
    with RunScreen(out, BatchView()) as screen:
        look = Shown(screen)
        look.submit(batch(limits=MANY), [f"S{number:03}" for number in range(100)])
        for number in range(100):
            look.fail(f"S{number:03}")
        before = text(out)
        screen.tick()
        frame = text(out).removeprefix(before)
    assert f"… {100 - LINES_A_FRAME} more lines were left out here" in frame
    assert "S099" in frame
    assert "S050" not in frame


@pytest.mark.usefixtures("still")
def test_what_was_said_last_is_not_lost_at_the_end() -> None:
    out = console()
    with RunScreen(out, BatchView()) as screen:
        screen.note("the last word")
    assert "the last word" in text(out)
    # The cursor that the live area hid is back.
    assert "\x1b[?25h" in text(out)


def test_an_error_ends_the_live_area() -> None:
    out = console()
    with pytest.raises(ZeroDivisionError), RunScreen(out, BatchView()):
        raise ZeroDivisionError
    assert "\x1b[?25h" in text(out)


def test_who_presses_ctrl_z_has_a_cursor_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    out, stopped = console(), threading.Event()
    at_the_stop = list[str]()

    def stop(thread: int, number: int) -> None:
        at_the_stop.append(text(out))
        assert number == signal.SIGSTOP
        stopped.set()

    monkeypatch.setattr(signal, "pthread_kill", stop)
    with RunScreen(out, BatchView()):
        signal.raise_signal(signal.SIGTSTP)
        assert stopped.wait(PATIENCE_S)
        until(lambda: len(text(out)) > len(at_the_stop[0]), patience_s=PATIENCE_S)
    assert re.findall(r"\x1b\[\?25[hl]", at_the_stop[0]) == [HIDDEN, SHOWN]
    again = text(out).removeprefix(at_the_stop[0])
    assert again.startswith(HIDDEN), "nothing is drawn over the lines of the shell"
    assert signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL


def test_without_job_control_ctrl_z_stays_ignored() -> None:
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        with RunScreen(console(), BatchView()):
            assert signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)


def test_a_screen_that_was_not_entered_still_says_what_it_is_told() -> None:
    out = console()
    RunScreen(out, BatchView()).note("Stopping the running windows.")
    assert text(out) == "Stopping the running windows.\n"


def test_the_timer_and_updates_do_not_get_into_each_others_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "FRAME_S", 1e-4)
    out, view = console(), BatchView()
    with RunScreen(out, view) as screen:
        look = Shown(screen, cpu(8))
        look.submit(batch(limits=MANY), [f"S{number:03}" for number in range(200)])
        while look.view.running:
            running = look.view.running[min(look.view.running)]
            ending = failure("bad_data") if look.view.done % 5 == 0 else None
            look.train(running.label.split("_")[0], ending, seconds=0.01, attempt=running.attempt)
    assert view.done == 200
    assert view.counts == look.view.counts


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("terminal", [True, False])
def test_an_update_is_cheap(terminal: bool) -> None:
    look = Shown(RunScreen(console(terminal=False), BatchView()))
    look.submit(batch(limits=MANY), [f"S{number:03}" for number in range(300)])
    for number in range(300):
        look.start(key(f"S{number:03}")).end(key(f"S{number:03}"))
    with RunScreen(console(terminal=terminal), BatchView()) as screen:

        def update_all() -> None:
            for update in look.told:
                screen.update(update)

        assert calls(update_all) < 80 * len(look.told)


# -- consoles ----------------------------------------------------------------------------------------------------------


def test_a_console_for_an_ascii_stream_never_fails_over_a_character(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    out = open_console()
    assert out.options.ascii_only
    out.print("[bold]東京[/] :smile:")
    assert raw.getvalue() == b"[bold]\\u6771\\u4eac[/] :smile:\n"


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    out = open_console(stderr=True)
    out.print("red", style="bold red")
    assert "31" not in text(out)
