"""The windows of a batch in `gpusched top`: the list, and its frames compared with those that a person has read."""

from __future__ import annotations

import datetime as dt

import pytest
from rich.cells import cell_len

from gpusched.client.drawing.windows import WindowsFrame
from gpusched.client.views.batch import BatchView
from gpusched.client.views.windows import ORDERS, WindowList, seconds
from gpusched.core.events import ChangeRequested, ProgressReported, WindowMoved
from gpusched.core.model import Slot, WindowKey
from gpusched.core.states import Ending
from gpusched.protocol import WindowLine
from tests.client.support import Onlooker, drawn, trained
from tests.client.test_screens import HOSTILE, check
from tests.core.support import batch, failure, gpu, key


def line(symbol: str, status: str = "queued", **fields: object) -> WindowLine:
    day = dt.date(2022, 1, 1)
    known: dict[str, object] = {
        "key": key(symbol, "b"), "symbol": symbol, "start": day, "end": day, "status": status, "moved_at": 0.0,
        "usable_rows": 90, "attempts": 0, "slot": None, "pid": None, "started_at": None, "ended_at": None,
        "reason": None,
    }  # fmt: skip
    return WindowLine(**(known | fields))  # type: ignore[arg-type]


class Lister(Onlooker):
    """A list that is loaded with a batch as submitted, and told all that its scheduler does."""

    def __init__(self, count: int = 8) -> None:
        self.windows = WindowList("b")
        self.moves: list[WindowMoved] = []
        super().__init__(gpu(0, capacity=2), view=BatchView())
        symbols = [f"SYM{number:02}" for number in range(count)]
        self.windows.load(line(symbol) for symbol in symbols)
        self.submit(batch("b"), symbols)

    def send(self, event: object) -> Lister:
        super().send(event)  # type: ignore[arg-type]
        for record in self.records:
            if isinstance(record, WindowMoved):
                self.moves.append(record)
                self.windows.apply(record)
        return self

    def frame(self, **fields: object) -> WindowsFrame:
        return WindowsFrame(windows=self.windows, view=self.view, monotonic=self.at, wall=self.wall, **fields)  # type: ignore[arg-type]

    @property
    def wall(self) -> float:
        return self.at + 1e9

    def statuses(self) -> dict[str, str]:
        self.windows.shown(self.at)
        return {found.key.label[:5]: found.status for found in self.windows.lines(0, 100)}


def scene() -> Lister:
    """Some done, one failed, two at work, one cancelled, the rest held."""
    lister = Lister()
    endings: tuple[Ending, ...] = (trained(), failure("bad_data", "3 gaps in 'close'"), trained())
    for number, ending in enumerate(endings):
        where = key(f"SYM{number:02}", "b")
        lister.start(where).wait(1.5 + number)
        lister.end(where, ending=ending)
    lister.start(key("SYM03", "b")).wait(0.5)
    lister.view.apply(ProgressReported(key=key("SYM03", "b"), attempt=1, phase="boosting", round=12, rounds=500), 0.0)
    lister.send(ChangeRequested(verb="cancel", batch_id="b", label=key("SYM07", "b").label))
    lister.send(ChangeRequested(verb="hold", batch_id="b", label=key("SYM06", "b").label))
    return lister


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
def test_a_frame(width: int, height: int) -> None:
    check("windows", width, drawn(scene().frame(), width, height))


def test_the_reason_of_the_chosen_window_is_told_in_full() -> None:
    lister = scene()
    lister.windows.move(1, lister.at)
    lines = drawn(lister.frame(), 60, 24).split("\n")
    assert lines[-2] == f"{key('SYM01').label}  bad_data: 3 gaps in 'close'"
    (row,) = [line for line in lines if line.startswith(">")]
    assert row.endswith("…")
    assert len(lines) == 24


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(("width", "height"), [(20, 1), (30, 4), (80, 6), (80, 24)])
def test_a_frame_never_exceeds_the_screen(width: int, height: int, encoding: str) -> None:
    shown = drawn(scene().frame(message="An answer" * 20), width, height, encoding=encoding).split("\n")
    assert len(shown) <= max(height, 2)
    assert all(cell_len(text) <= width for text in shown)
    assert encoding == "utf-8" or "".join(shown).isascii()


def test_it_follows_every_move() -> None:
    lister = scene()
    assert lister.statuses() == {
        "SYM00": "succeeded", "SYM01": "failed", "SYM02": "succeeded", "SYM03": "running", "SYM04": "starting",
        "SYM05": "queued", "SYM06": "held", "SYM07": "cancelled",
    }  # fmt: skip
    found = {window.key.label[:5]: window for window in lister.windows.lines(0, 8)}
    assert found["SYM01"].reason == "bad_data: 3 gaps in 'close'"
    assert found["SYM03"].slot is not None
    assert seconds(found["SYM05"], lister.wall) is None
    assert seconds(found["SYM00"], lister.wall) == seconds(found["SYM00"], lister.wall + 100)
    assert (seconds(found["SYM03"], lister.wall + 100) or 0) > 100


def test_moves_that_come_before_the_list_win() -> None:
    lister = scene()
    late = WindowList("b")
    for moved in lister.moves:
        late.apply(moved)
    assert len(late) == 0
    late.load(line(f"SYM{number:02}") for number in range(8))
    late.shown(0.0)
    assert {found.key.label[:5]: found.status for found in late.lines(0, 8)} == lister.statuses()


def test_other_batches_and_unknown_windows_are_passed_over() -> None:
    lister = Lister(1)
    move = lister.moves[0]
    lister.windows.apply(
        WindowMoved(key=WindowKey("other", move.key.label), old=move.new, new=move.old, reason="", at=0)
    )
    lister.windows.apply(WindowMoved(key=WindowKey("b", "unknown"), old=move.new, new=move.old, reason="", at=0))
    assert lister.statuses() == {"SYM00": "starting"}


def test_orders() -> None:
    lister = scene()
    orders = {}
    for _ in ORDERS:
        orders[lister.windows.order] = [label[3:5] for label in lister.windows.shown(lister.at)]
        lister.windows.next_order()
    assert orders["submitted"] == orders["window"] == ["00", "01", "02", "03", "04", "05", "06", "07"]
    assert orders["status"] == ["01", "03", "04", "06", "05", "07", "00", "02"]
    assert orders["time"][-3:] == ["05", "06", "07"]
    assert lister.windows.order == "submitted"


def test_words_are_looked_for_in_labels_statuses_and_reasons() -> None:
    windows = scene().windows
    for words, expected in (("", 8), ("sym03", 1), ("gaps close", 1), ("succeeded 00", 1), ("nobody", 0)):
        windows.look_for(words)
        assert len(windows.shown(0.0)) == expected, words
    assert windows.chosen(0.0) is None
    frame = WindowsFrame(windows=windows, view=None, monotonic=0.0, wall=0.0)
    assert "No window is like this" in drawn(frame, 80, 24)


def test_what_was_chosen_stays_chosen_unless_windows_change_places() -> None:
    lister = Lister()
    windows = lister.windows
    windows.move(4, 0.0)
    assert windows.chosen(0.0)[1].key.label.startswith("SYM04")  # type: ignore[index]
    windows.look_for("04")
    assert windows.chosen(0.0)[0] == 0  # type: ignore[index]
    windows.look_for("")
    assert windows.chosen(0.0)[0] == 4  # type: ignore[index]
    windows.next_order()
    assert windows.chosen(0.0)[0] == 0  # type: ignore[index]
    windows.move(-3, 0.0)
    assert windows.chosen(0.0)[0] == 0  # type: ignore[index]
    windows.move(100, 0.0)
    assert windows.chosen(0.0)[0] == 7  # type: ignore[index]


def test_the_chosen_one_is_shown_however_long_the_list() -> None:
    windows = WindowList("b")
    windows.load(line(f"S{number:05}") for number in range(100_000))
    windows.move(50_000, 0.0)
    shown = drawn(WindowsFrame(windows=windows, view=None, monotonic=0.0, wall=0.0), 80, 24).split("\n")
    (marked,) = [text for text in shown if text.startswith(">")]
    assert "S50000" in marked
    assert len(shown) == 24


def test_foreign_text_is_harmless() -> None:
    windows = WindowList(HOSTILE)
    slot = Slot(0, HOSTILE)
    windows.load([line(HOSTILE, "failed", reason=HOSTILE, slot=slot)])
    shown = drawn(WindowsFrame(windows=windows, view=None, monotonic=0.0, wall=0.0, message=HOSTILE), 200, 50)
    assert all(text.isprintable() for text in shown.split("\n"))


def test_until_the_daemon_has_answered_it_says_so() -> None:
    frame = WindowsFrame(windows=WindowList("b"), view=None, monotonic=0.0, wall=0.0)
    assert "Loading" in drawn(frame, 80, 24)
