"""Changes of many windows are made in slices: in order, completely, and across a restart."""

from __future__ import annotations

from gpusched.core.changes import Change
from gpusched.core.commands import CheckResults
from gpusched.core.events import (
    BatchFinished,
    BatchRecovered,
    BatchReopened,
    BatchSubmitted,
    ChangeAdvanced,
    ChangeMade,
    ChangeRequested,
    NodeJoined,
    ResultsChecked,
    SliceGranted,
    WindowMoved,
    WindowsRecovered,
)
from gpusched.core.model import Instant
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Cancelled, Finished, Held, Queued, Running, Stopping
from tests.core.support import Driver, batch, cpu, key, planned

NAMES = [f"W{number}" for number in range(10)]
#: windows of `NAMES` in a slice
SLICE = 3


def driver(names: list[str] = NAMES) -> Driver:
    made = Driver(cpu(2))
    made.scheduler = Scheduler(slice_windows=SLICE)
    return made.send(NodeJoined(devices=(cpu(2),))).submit(batch(), names)


def states(made: Driver) -> list[type]:
    return [type(made.state(key(name))) for name in NAMES]


def test_a_slice_that_nothing_waits_for_changes_nothing() -> None:
    made = driver()
    before = states(made)
    made.send(SliceGranted())
    assert (made.records, made.launched, states(made)) == ([], [], before)


def moved(made: Driver) -> int:
    return sum(isinstance(record, WindowMoved) for record in made.records)


def go_on(made: Driver) -> int:
    """Every slice that is left; how many there were."""
    slices = 0
    while made.scheduler.changing:
        made.send(SliceGranted())
        assert moved(made) <= SLICE
        slices += 1
    return slices


def test_what_runs_is_told_at_once_and_nothing_new_starts() -> None:
    made = driver()
    made.start(key("W0"), pid=1).start(key("W1"), pid=2).send(ChangeRequested(verb="cancel", batch_id="b"))
    assert states(made)[:2] == [Stopping, Stopping]
    assert isinstance(made.records[-1], ChangeAdvanced)
    assert made.records[-1] == ChangeAdvanced(
        batch_id="b", change=Change(verb="cancel", done=5, windows=5), recorded=False, at=made.at + 1e9
    )
    made.end(key("W0"))
    assert made.launched == [], "what waits is to be cancelled"
    go_on(made)
    assert isinstance(made.records[-1], ChangeMade)
    assert made.records[-1].change.windows == 10
    made.end(key("W1"))
    assert isinstance(made.records[-1], BatchFinished)
    assert made.scheduler.unfinished == 0


def test_a_small_change_takes_no_second_turn() -> None:
    made = driver(["W0", "W1", "W2"]).send(ChangeRequested(verb="hold", batch_id="b", label=key("W2").label))
    assert not made.scheduler.changing
    change = Change(verb="hold", label=key("W2").label, done=1, windows=1)
    assert made.records[-1] == ChangeMade(batch_id="b", change=change, recorded=False, at=made.at + 1e9)
    made.send(ChangeRequested(verb="hold", batch_id="b", label=key("W2").label))
    assert made.records == [], "nothing to do"


def test_changes_of_a_batch_are_made_in_the_order_in_which_they_were_asked_for() -> None:
    made = driver().send(ChangeRequested(verb="hold", batch_id="b"))
    made.send(ChangeRequested(verb="cancel", batch_id="b")).send(ChangeRequested(verb="retry", batch_id="b"))
    assert isinstance(made.records[-1], ChangeAdvanced), "it is durable before its turn comes"
    made.send(ChangeRequested(verb="cancel", batch_id="b", label=key("W9").label))
    assert made.scheduler.is_changing("b")
    go_on(made)
    assert states(made) == [Stopping] * 2 + [Queued] * 7 + [Finished], "two run, and are retried when they have ended"


def test_a_batch_is_finished_only_when_no_change_can_open_it_again() -> None:
    made = driver().end(key("W0")).end(key("W1"))
    made.end(key("W2")).end(key("W3")).send(ChangeRequested(verb="cancel", batch_id="b"))
    made.end(key("W4")).end(key("W5"))
    go_on(made)
    assert isinstance(made.records[-1], BatchFinished)
    made.send(ChangeRequested(verb="retry", batch_id="b"))
    records = list(made.records)
    while made.scheduler.changing:
        records += made.send(SliceGranted()).records
    assert sum(isinstance(record, BatchReopened) for record in records) == 1
    assert not any(isinstance(record, BatchFinished) for record in records)


def test_batches_take_turns() -> None:
    made = driver().submit(batch("other"), NAMES)
    made.send(ChangeRequested(verb="cancel", batch_id="b")).send(ChangeRequested(verb="cancel", batch_id="other"))
    seen = []
    while made.scheduler.changing:
        made.send(SliceGranted())
        seen.append(next(r for r in made.records if isinstance(r, ChangeAdvanced | ChangeMade)).batch_id)
    assert seen[:4] == ["b", "other", "b", "other"]


def test_a_restart_goes_on_where_it_was() -> None:
    made = (
        driver()
        .send(ChangeRequested(verb="hold", batch_id="b"))
        .end(key("W0"))
        .end(key("W1"))
        .send(ChangeRequested(verb="cancel", batch_id="b"))
    )
    made.send(SliceGranted())
    told = made.records[-1]
    assert isinstance(told, ChangeAdvanced)
    remembered = tuple(made.scheduler.states("b"))
    again = Driver(cpu(2))
    again.send(BatchRecovered(batch=batch(), windows=remembered, changes=(told.change,)))
    assert again.launched == []
    go_on(again)
    assert isinstance(again.records[-2], ChangeMade)
    assert again.records[-2].recorded
    assert isinstance(again.records[-1], BatchFinished)
    outcomes = [s.outcome for _, s in again.scheduler.states("b") if isinstance(s, Finished)]
    assert sum(isinstance(outcome, Cancelled) for outcome in outcomes) == 8


def test_windows_that_were_held_one_by_one_are_released_together() -> None:
    made = driver()
    for name in NAMES[2:]:
        made.send(ChangeRequested(verb="hold", batch_id="b", label=key(name).label))
    assert states(made)[2:] == [Held] * 8
    made.send(ChangeRequested(verb="release", batch_id="b"))
    go_on(made)
    assert states(made)[2:] == [Queued] * 8
    assert not any(isinstance(made.state(key(name)), Running) for name in NAMES)


def test_a_slice_may_be_larger_or_smaller_than_usual() -> None:
    made = driver().send(ChangeRequested(verb="cancel", batch_id="b"))
    made.send(SliceGranted(windows=1))
    assert moved(made) == 1
    made.send(SliceGranted(windows=100))
    assert not made.scheduler.changing


def test_a_large_finished_batch_is_taken_up_in_slices() -> None:
    made = driver()
    gone = Finished(attempts=0, outcome=Cancelled())
    remembered = tuple((planned, gone) for planned, _ in made.scheduler.states("b"))
    again = Driver(cpu(2))
    again.send(WindowsRecovered(batch=batch(), windows=remembered[:4], first=True))
    assert again.scheduler.batch("b") is None
    # that was given up, and begins anew
    again.send(WindowsRecovered(batch=batch(), windows=remembered[:5], first=True))
    again.send(WindowsRecovered(batch=batch(), windows=remembered[5:], first=False))
    again.send(BatchRecovered(batch=batch(), windows=(), finished=True))
    assert tuple(again.scheduler.states("b")) == remembered
    again.send(ChangeRequested(verb="retry", batch_id="b"))
    go_on(again)
    assert again.scheduler.unfinished == len(NAMES)


def test_missing_results_are_lost_in_slices() -> None:
    scheduler, now = Scheduler(), Instant(monotonic=1.0, wall=1.0)
    windows = tuple(planned(name, committed=True) for name in NAMES[:2])
    _, (asked,) = scheduler.handle(BatchSubmitted(batch=batch(), windows=windows), now)
    assert isinstance(asked, CheckResults)
    answer = ResultsChecked(batch_id="b", check=asked.check, missing=asked.labels[:1], complete=False)
    records, _ = scheduler.handle(answer, now)
    assert [type(record) for record in records] == [WindowMoved]
    rest = ResultsChecked(batch_id="b", check=asked.check, missing=asked.labels[1:])
    records, _ = scheduler.handle(rest, now)
    assert [type(record) for record in records] == [WindowMoved, BatchFinished]
