"""The windows of a batch in `gpusched top`: the list, and its frames compared with those that a person has read."""

from __future__ import annotations

import datetime as dt
import re
from itertools import pairwise

import msgspec
import pytest
from rich.cells import cell_len

from gpusched.client.drawing.windows import WindowsFrame
from gpusched.client.views.batch import BatchView
from gpusched.client.views.windows import ORDERS, WindowList, seconds
from gpusched.core.events import ChangeRequested, ProgressReported, WindowMoved
from gpusched.core.model import Slot, WindowKey
from gpusched.core.states import Ending, Failed, Failure, Finished, Queued, Starting, State
from gpusched.protocol import WindowLine
from tests.client.support import Onlooker, drawn, trained
from tests.client.test_screens import HOSTILE, check
from tests.core.support import batch, failure, gpu, key


def line(symbol: str, status: str = "queued", **fields: object) -> WindowLine:
    day = dt.date(2022, 1, 1)
    known: dict[str, object] = {
        "key": key(symbol, "b"), "symbol": symbol, "start": day, "end": day, "status": status, "moved_at": 0.0,
        "usable_rows": 90, "attempts": 0,
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


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 50)])
def test_a_frame(width: int, height: int) -> None:
    check("windows", width, drawn(scene().frame(), width, height))


def test_the_reason_of_the_chosen_window_is_told_in_full() -> None:
    lister = scene()
    lister.windows.move(1, lister.at)
    lines = drawn(lister.frame(), 60, 24).split("\n")
    assert lines[-2] == f"{key('SYM01').label}  bad_data: 3 gaps in 'close'"
    (row,) = [line for line in lines if line.startswith("│>")]
    assert row.endswith("…│")
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


def test_a_failed_window_that_runs_again_has_no_reason_and_then_that_of_its_last_failure() -> None:
    windows = WindowList("b")
    windows.load([line("SYM00", "failed", attempts=1, failure=failure(message="the first"))])
    states: list[State] = [
        Finished(attempts=1, outcome=Failed(failure=failure(message="the first"))),
        Queued(attempt=2),
        Starting(attempt=2, slot=Slot(0, "cpu")),
        Finished(attempts=2, outcome=Failed(failure=Failure(kind="raised", message="no", source_line="train.py:41"))),
    ]
    told = []
    for old, new in pairwise(states):
        windows.apply(WindowMoved(key=key("SYM00", "b"), old=old, new=new, reason="retried", at=1.0))
        windows.shown(0.0)
        (found,) = windows.lines(0, 1)
        told.append((found.status, found.reason))
    assert told == [("queued", "retried"), ("starting", None), ("failed", "raised: no")]
    (group,) = windows.failures(0.0)
    assert (group.reason, group.example.source_line) == ("no", "train.py:41")


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
    assert orders["metric"][:2] == ["00", "02"], "those that have one"
    assert lister.windows.order == "submitted"


def test_metrics_of_windows_that_ended_before_and_of_those_that_end_now() -> None:
    windows = scene().windows
    windows.load(line(f"SYM{number:02}", "succeeded") for number in range(3))
    windows.learn(
        [line(f"SYM{number:02}", "succeeded", result=trained({"loss": number, "gain": None})) for number in range(3)]
    )
    assert windows.shown_metric == "auc", "it was told first"
    for name in ("accuracy", "precision", "recall", "f1", "loss"):
        windows.next_metric()
        assert windows.shown_metric == name
    assert windows.value(key("SYM01").label) == 1
    assert windows.value("unknown") is None
    (symbol, *_) = windows.symbols(0.0)
    assert (symbol.symbol, symbol.measured, symbol.median) == ("SYM01", 1, 1.0)
    WindowList("b").next_metric()


def test_of_a_loss_less_is_better() -> None:
    lister = Lister(3)
    for number, loss in enumerate((0.5, 0.9, 0.1)):
        lister.end(key(f"SYM{number:02}", "b"), ending=trained({"logloss": loss}))
    ranked = lister.windows.symbols(0.0)
    assert [line.symbol for line in ranked] == ["SYM02", "SYM00", "SYM01"]
    assert (ranked[0].best, ranked[0].worst) == (0.1, 0.1)
    lister.windows.order = "metric"
    assert [label.split("_")[0] for label in lister.windows.shown(lister.at)] == ["SYM02", "SYM00", "SYM01"]


def test_only_windows_of_one_status() -> None:
    windows = scene().windows
    seen = []
    for _ in range(8):
        windows.next_status()
        seen.append((windows.status, len(windows.shown(0.0))))
    assert seen == [
        ("failed", 1), ("running", 1), ("starting", 1), ("held", 1), ("queued", 1), ("cancelled", 1),
        ("succeeded", 2), ("", 8),
    ]  # fmt: skip


def test_what_a_batch_was_asked_for() -> None:
    lister = Lister(3)
    assert "They are not known yet" in drawn(lister.frame(tab="settings"), 80, 24)
    spec = batch("b").spec
    spec = msgspec.structs.replace(
        spec, settings={"lightgbm": {"num_leaves": 31}, "x\x1b[2J": HOSTILE, "rows": "n" * 90}
    )
    lister.windows.describe(spec)
    shown = drawn(lister.frame(tab="settings", place=0), 80, 24)
    assert re.search(r"settings.lightgbm.num_leaves +31", shown)
    assert "limits.max_failure_rate" in dict(lister.windows.settings)
    assert f"{len(lister.windows.settings)} settings" in shown
    assert all(part.isprintable() for part in shown.split("\n"))
    (long,) = [place for place, (name, _) in enumerate(lister.windows.settings) if name == "settings.rows"]
    assert "n" * 80 in drawn(lister.frame(tab="settings", place=long), 80, 24), "the chosen one in full"


def test_failures_by_reason_and_symbols() -> None:
    lister = scene()
    shown = drawn(lister.frame(tab="failures"), 80, 24)
    assert "1 × bad data: 3 gaps in 'close'" in shown
    assert shown.split("\n")[-2] == f"{key('SYM01').label}  bad data: 3 gaps in 'close'"
    assert "1 reason " in shown
    shown = drawn(lister.frame(tab="symbols", place=1), 80, 24)
    assert "8 symbols by auc" in shown
    (row,) = [text for text in shown.split("\n") if text.startswith("│>")]
    assert row.split()[1:] == ["1", "1", "0.532", "0.532", "0.532", "│"]
    assert "No window has failed" in drawn(Lister().frame(tab="failures"), 80, 24)


def test_a_wide_screen_has_several_metrics_and_the_chosen_one_first() -> None:
    lister = scene()

    def headings(width: int) -> str:
        return drawn(lister.frame(), width, 24).split("\n")[2]

    assert headings(80).split()[-3:-1] == ["auc", "why"]
    assert "auc  accuracy precision ── recall ────── f1 why" in headings(200)
    lister.windows.next_metric()
    assert "accuracy ───── auc precision" in headings(200)
    assert lister.windows.value("nothing like it", "auc") is None


def test_a_long_name_of_a_metric_keeps_to_its_column() -> None:
    lister, where = Lister(), key("SYM00", "b")
    lister.start(where).end(where, ending=trained({"validation": {"information_ratio": 0.5, "drawdown": 0.25}}))
    top, row = drawn(lister.frame(), 200, 24).split("\n")[2:4]
    assert top.index("info…atio") + 9 == row.index("0.500") + 5
    assert top.index("drawdown") + 8 == row.index("0.250") + 5


def test_windows_are_marked_for_the_keys() -> None:
    lister = scene()
    labels = lister.windows.shown(lister.at)[:2]
    lister.windows.mark(labels)
    lister.windows.mark(labels[:1])
    assert lister.windows.marked == {labels[1]}
    lister.windows.mark(labels)
    assert lister.windows.marked == set(labels)
    assert lister.windows.statuses(labels) == {"succeeded", "failed"}
    assert [line.key.label for line in lister.windows.of_symbol("SYM01")] == labels[1:]
    assert "│●" in drawn(lister.frame(), 80, 24)
    assert " 2 marked " in drawn(lister.frame(), 80, 24)


def test_the_mouse_finds_the_row_under_it() -> None:
    frame = scene().frame()
    shown = drawn(frame, 80, 24).split("\n")
    (y,) = [number for number, text in enumerate(shown) if "SYM03" in text]
    assert frame.place_at(y, 80, 24) == 3
    assert frame.place_at(0, 80, 24) is None
    assert frame.chosen() == 0


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
    (marked,) = [text for text in shown if text.startswith("│>")]
    assert "S50000" in marked
    assert len(shown) == 24


def test_foreign_text_is_harmless() -> None:
    windows = WindowList(HOSTILE)
    slot = Slot(0, HOSTILE)
    windows.load([line(HOSTILE, "failed", why=HOSTILE, slot=slot)])
    shown = drawn(WindowsFrame(windows=windows, view=None, monotonic=0.0, wall=0.0, message=HOSTILE), 200, 50)
    assert all(text.isprintable() for text in shown.split("\n"))


def test_until_the_daemon_has_answered_it_says_so() -> None:
    frame = WindowsFrame(windows=WindowList("b"), view=None, monotonic=0.0, wall=0.0)
    assert "Loading" in drawn(frame, 80, 24)
