"""The view of a batch follows the real scheduler."""

from __future__ import annotations

import msgspec
import pytest

from gpusched.client.drawing.run import Frame
from gpusched.client.views.batch import KEPT_FAILURES, BatchView
from gpusched.client.views.reasons import general_reason
from gpusched.core.events import ChangeRequested, NodeJoined, WindowMoved
from gpusched.core.ledger import AHEAD_SLOTS
from gpusched.core.model import Limits, Slot
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Failed, Finished, Queued, Running, Starting, Succeeded, TimedOut
from gpusched.core.statuses import OUTCOMES, name_of
from gpusched.protocol import BatchStatus, Snapshot
from tests.client.support import TEACHER_METRICS, Onlooker, calls, drawn
from tests.client.test_windows import line
from tests.core.support import RESULT, batch, cpu, failure, gpu, key, label, planned


def test_an_accepted_batch_is_counted_with_what_needs_no_training() -> None:
    look = Onlooker()
    look.submit(batch(), ["A", "B", planned("C", committed=True), planned("D", skip="no data")])
    view = look.view
    assert view.batch_id == "b"
    assert view.output_dir == "/out/b"
    assert view.total == 4
    assert view.counts == {**dict.fromkeys(OUTCOMES, 0), "reused": 1, "skipped": 1}
    assert view.totals() == {"total": 4, "succeeded": 0, "reused": 1, "skipped": 1, "failed": 0, "cancelled": 0}
    assert view.skips.most_common(9) == [("no data", 1)]
    assert not view.finished


def test_a_running_window_is_seen_on_its_slot_with_its_progress() -> None:
    look = Onlooker(gpu(0, 2))
    look.submit(batch(), ["A"])
    assert look.view.running[0].phase == "starting"
    look.wait(2).start(key("A"))
    assert look.view.running[0].phase == "running"
    look.progress("A", "training", 30, 300)
    running = look.view.running[0]
    assert (running.label, running.device, running.attempt) == (label("A"), "GPU-0", 1)
    assert (running.phase, running.round, running.rounds) == ("training", 30, 300)
    assert running.since == look.at - 2


def test_progress_of_an_earlier_attempt_changes_nothing() -> None:
    look = Onlooker()
    look.submit(batch(limits=Limits(backoff_s=0.0)), ["A"])
    look.train("A", failure())
    look.progress("A", "training", 30, 300, attempt=1)
    assert look.view.running[0].attempt == 2
    assert look.view.running[0].phase == "starting"
    assert look.view.retries == 1


def test_a_window_being_stopped_says_so_whatever_it_reports() -> None:
    look = Onlooker()
    look.submit(batch(), ["A"]).start(key("A")).send(ChangeRequested(verb="cancel", batch_id="b"))
    look.progress("A", "training", 1, 2)
    assert look.view.running[0].phase == "stopping"


def test_a_trained_window_leaves_its_slot_and_is_the_last_finished() -> None:
    look = Onlooker()
    look.submit(batch(), ["A"])
    look.train("A", seconds=3)
    view = look.view
    assert view.running == {}
    assert view.counts["succeeded"] == 1
    assert view.finished
    assert view.failures == []
    last = view.last_finished
    assert last is not None
    assert (last.label, last.outcome, last.reason, last.attempts) == (label("A"), "succeeded", "", 1)
    assert (last.seconds, last.slot, last.device, last.metrics) == (3.0, 0, "cpu", TEACHER_METRICS)


def test_failures_are_kept_with_their_reason_and_counted_together() -> None:
    look = Onlooker()
    look.submit(batch(limits=Limits(max_attempts=1, timeout_s=5)), ["A", "B"])
    look.fail("A", "no such column")
    look.start(key("B"))
    look.wait(5).wait(1).end(key("B"), ending=failure("killed", "by signal 15"))
    assert [name for name, count in look.view.counts.items() if count] == ["failed", "timed_out"]
    assert look.view.totals()["failed"] == 2
    first, second = look.view.failures
    assert (first.outcome, first.kind, first.reason) == ("failed", "bad_data", "no such column")
    assert (second.outcome, second.kind, second.seconds) == ("timed_out", "timed_out", 6.0)
    assert "5 s" in second.reason


def test_a_retried_window_does_not_count_as_failed_any_more() -> None:
    look = Onlooker()
    look.submit(batch(), ["A"])
    look.fail("A")
    look.send(ChangeRequested(verb="retry", batch_id="b"))
    assert look.view.totals()["failed"] == 0
    assert look.view.failures == []
    assert look.view.eta_s(look.at) is None
    look.train("A", attempt=2)
    assert look.view.totals()["succeeded"] == 1
    assert look.view.finished


def test_a_hold_and_its_release() -> None:
    look = Onlooker()
    look.submit(batch(), ["A"]).send(ChangeRequested(verb="hold", batch_id="b"))
    assert look.view.held_reason == "by request"
    assert look.view.eta_s(look.at) is None
    look.send(ChangeRequested(verb="release", batch_id="b"))
    assert look.view.held_reason is None


def test_a_window_cancelled_in_the_queue_is_counted_but_did_not_finish_on_a_slot() -> None:
    look = Onlooker()
    look.submit(batch(), ["A", "B"]).send(ChangeRequested(verb="cancel", batch_id="b", label=label("B")))
    assert look.view.counts["cancelled"] == 1
    assert look.view.last_finished is None


def test_a_batch_that_takes_the_place_of_another_starts_from_nothing() -> None:
    look = Onlooker()
    look.submit(batch(), ["A"])
    look.fail("A")
    look.submit(batch(), ["A", "B", "C"])
    assert look.view.total == 3
    assert sum(look.view.counts.values()) == 0
    assert look.view.failures == []
    assert look.view.last_finished is None
    assert not look.view.finished


def test_another_batch_is_passed_over() -> None:
    look = Onlooker(cpu(2))
    look.submit(batch(), ["A"]).submit(batch("other"), ["X", "Y"])
    assert look.view.total == 1
    assert [running.label for running in look.view.running.values()] == [label("A")]


def test_the_counts_agree_with_the_scheduler_to_the_end() -> None:
    look = Onlooker(gpu(0, 2), gpu(1, 1))
    symbols = [f"S{number}" for number in range(30)]
    look.submit(batch(limits=Limits(backoff_s=0.0, breaker_failures=0)), symbols)
    turn = 0
    while look.view.running:
        running = look.view.running[min(look.view.running)]
        turn += 1
        ending = failure("bad_data") if turn % 7 == 0 else failure() if turn % 3 == 0 else None
        look.train(running.label.split("_")[0], ending, attempt=running.attempt)
    outcomes = [name_of(state.outcome) for _, state in look.scheduler.states("b")]  # type: ignore[union-attr]
    assert {name: outcomes.count(name) for name in OUTCOMES} == look.view.counts
    assert look.view.done == 30
    assert look.view.finished


# -- rate --------------------------------------------------------------------------------------------------------------


def test_the_rate_is_that_of_the_windows_so_far() -> None:
    look = Onlooker()
    look.submit(batch(), [f"S{number}" for number in range(10)])
    assert look.view.rate(look.at + 1) == 0
    assert look.view.eta_s(look.at + 1) is None
    for number in range(4):
        look.train(f"S{number}", seconds=2)
    assert look.view.rate(look.at) == pytest.approx(0.5)
    assert look.view.eta_s(look.at) == pytest.approx(12)


def test_the_rate_forgets_what_was_long_ago() -> None:
    look = Onlooker()
    look.submit(batch(), [f"S{number:03}" for number in range(400)])
    for number in range(100):
        look.train(f"S{number:03}", seconds=10)
    for number in range(100, 300):
        look.train(f"S{number:03}", seconds=0.25)
    assert look.view.rate(look.at) == pytest.approx(4.0, rel=0.02)
    assert look.view.eta_s(look.at) == pytest.approx(25, rel=0.02)


def at_work(*symbols: str) -> Snapshot:
    """A batch of ten windows, these of which are on slots, and have been for a minute."""
    counts = {"running": len(symbols), "queued": 10 - len(symbols)}
    batch_status = BatchStatus(
        id="b", output_dir="/out/b", submitted_at=0.0, state="open", held_reason=None, finished_at=None, counts=counts
    )
    active = [
        msgspec.structs.replace(line(symbol), slot=Slot(number, "cpu"), status="running", attempts=1, started_at=1000.0)
        for number, symbol in enumerate(symbols)
    ]
    return Snapshot(at=1060.0, batches=(batch_status,), active=tuple(active), progress=(), devices=())


def test_what_ran_when_one_began_to_look_counts_from_then_on() -> None:
    view, slots = BatchView(), [Slot(number, "cpu") for number in range(3)]
    view.load(at_work("A", "B", "C"), "b", 50.0)
    for symbol, slot in zip("ABC", slots, strict=True):
        running = Running(attempt=1, slot=slot, pid=7, started_at=1000.0)
        ended = Finished(attempts=1, outcome=Succeeded(result=RESULT))
        view.apply(WindowMoved(key=key(symbol), old=running, new=ended, reason="", at=1064.0), 54.0)
    view.apply(
        WindowMoved(key=key("D"), old=Queued(), new=Starting(attempt=1, slot=slots[0]), reason="", at=1064.0), 54.0
    )
    assert view.rate(54.0) == pytest.approx(0.75)


def test_held_windows_are_counted_apart_from_those_that_wait() -> None:
    onlooker = Onlooker(gpu(0, capacity=1))
    onlooker.submit(batch(), ["A", "B", "C"])
    onlooker.send(ChangeRequested(verb="hold", batch_id=key("B").batch_id, label=label("B")))
    assert onlooker.view.held == 1
    frame = Frame(view=onlooker.view, began=0.0, monotonic=onlooker.at)
    assert "1 running · 1 waiting · 1 held" in drawn(frame, 80, 24)
    onlooker.send(ChangeRequested(verb="release", batch_id=key("B").batch_id, label=label("B")))
    assert onlooker.view.held == 0


def test_a_window_that_is_to_be_held_has_been_in_its_place_since_it_was_placed() -> None:
    view, place = BatchView(), Slot(-1, "cpu@n1", "n1")
    starting = Starting(attempt=1, slot=place)
    held = Starting(attempt=1, slot=place, to_hold=True)
    view.apply(WindowMoved(key=key("C"), old=Queued(), new=starting, reason="", at=1000.0), 50.0)
    view.apply(WindowMoved(key=key("C"), old=starting, new=held, reason="", at=1009.0), 59.0)
    assert view.running[-1].since == 50.0


def test_the_rate_goes_on_from_what_ended_before_one_began_to_look() -> None:
    view, slot = BatchView(), Slot(0, "cpu")
    ended = []
    # Two long ago, before a pause; the rest one after the other until the instant of the snapshot.
    for symbol, at in {"X": 100.0, "Y": 102.0, "E": 1052.0, "F": 1054.0, "G": 1056.0, "H": 1058.0}.items():
        running = Running(attempt=1, slot=slot, pid=7, started_at=at - 2.0)
        outcome = Failed(failure=failure("bad_data")) if symbol == "H" else Succeeded(result=RESULT)
        new = Finished(attempts=1, outcome=outcome)
        ended.append(WindowMoved(key=key(symbol), old=running, new=new, reason="", at=at))
    snapshot = msgspec.structs.replace(at_work("A"), ended=tuple(ended), failed=tuple(ended[-1:]), at=1060.0)
    active = tuple(msgspec.structs.replace(window, started_at=1058.0) for window in snapshot.active)
    view.load(msgspec.structs.replace(snapshot, active=active), "b", 50.0)
    assert view.rate(50.0) == pytest.approx(3 / 8)
    assert [window.label for window in view.recent] == [label(symbol) for symbol in "XYEFGH"]
    assert [(window.reason, window.seconds) for window in view.failures] == [("ValueError: no", 2.0)]
    assert view.expected_s == 2.0


def test_a_clock_that_stands_still_has_no_rate() -> None:
    view = BatchView()
    look = Onlooker(view=BatchView())
    look.submit(batch(), ["A"])
    for record in look.records:
        view.apply(record, 0.0)
    assert view.rate(0.0) == 0


# -- bounds and cost ---------------------------------------------------------------------------------------------------


def test_failures_are_kept_in_bounds_and_counted_beyond() -> None:
    look = Onlooker()
    look.submit(batch(), ["A"])
    look.fail("A")
    [moved] = [record for record in look.records if isinstance(record, WindowMoved)]
    for number in range(KEPT_FAILURES + 5):
        other = WindowMoved(key=key(f"Z{number}"), old=moved.old, new=moved.new, reason="", at=0.0)
        look.view.apply(other, look.at)
    assert len(look.view.failures) == KEPT_FAILURES
    assert look.view.totals()["failed"] == KEPT_FAILURES + 6


def test_an_update_costs_next_to_nothing() -> None:
    look = Onlooker()
    records = []
    look.submit(batch(limits=Limits(breaker_failures=0)), [f"S{number:03}" for number in range(300)])
    for number in range(300):
        where = key(f"S{number:03}")
        records += look.start(where).records
        records += look.end(where).records
    view = BatchView()

    def apply_all() -> None:
        for number, record in enumerate(records):
            view.apply(record, number / 100)

    assert calls(apply_all) < 50 * len(records)
    assert view.counts["succeeded"] == 300


# -- reasons -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "general"),
    [
        ("no data", "no data"),
        (
            "too few rows: 37 of the 50 that are needed (42 bars, the last 5 of which have no label)",
            "too few rows: … of the … that are needed (… bars, the last … of which have no label)",
        ),
        (
            "no data: there are no bars from 2022-01-01 to 2022-06-30 (none)",
            "no data: there are no bars from … to … (none)",
        ),
        ("no data: /data2/ABC/1h has no .csv files", "no data: /data2/…/1h has no .csv files"),
        ("the bars of ABC and 'ABC', not of ABCD", "the bars of … and '…', not of ABCD"),
        ("ABC_2022-01-01_to_2022-06-30: ABC_5 is not ABCABC or xABC", "…: ABC_5 is not ABCABC or xABC"),
    ],
)
def test_reasons_are_grouped_without_what_differs_from_window_to_window(reason: str, general: str) -> None:
    assert general_reason(reason, "ABC") == general


def test_times_out_without_a_placement_that_was_seen() -> None:
    look = Onlooker()
    look.submit(batch(limits=Limits(max_attempts=1, timeout_s=5)), ["A"])
    look.start(key("A")).wait(5).end(key("A"), ending=failure("killed"))
    late = BatchView()
    for record in look.records:
        late.apply(record, 1.0)
    last = late.last_finished
    assert last is not None
    assert last.outcome == "timed_out"
    [state] = [state for _, state in look.scheduler.states("b")]
    assert isinstance(state.outcome, TimedOut)  # type: ignore[union-attr]
    assert last.seconds == state.outcome.seconds  # type: ignore[union-attr]


def test_one_that_was_ahead_on_its_node_moves_to_its_slot() -> None:
    made = Onlooker(cpu(1))
    made.scheduler = Scheduler()
    made.send(NodeJoined(host="n1", devices=(cpu(1, host="n1"),)))
    made.submit(batch(), ["A", "B", "C"])
    made.train("A")
    made.start(key("B"))
    assert [(w.label[0], w.slot, w.node) for w in made.view.running.values()] == [
        ("B", 0, "n1"),
        ("C", -AHEAD_SLOTS, "n1"),
    ]
    made.progress("C", "load")
    made.wait(0.5).end(key("B"))
    made.start(key("C"))
    assert [(w.label[0], w.slot, w.phase) for w in made.view.running.values()] == [("C", 0, "load")]
    assert (made.view.slots, made.view.devices) == (1, {0: ("cpu@n1", "n1")})
