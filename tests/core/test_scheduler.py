"""The scheduler, story by story."""

from __future__ import annotations

import time

import msgspec
import pytest

from gpusched.core.events import (
    AttemptEnded,
    AttemptStarted,
    BatchFinished,
    BatchReopened,
    BatchSubmitted,
    ChangeRequested,
    DeviceRead,
    NodeJoined,
    WindowMoved,
)
from gpusched.core.lifecycle import IllegalMove
from gpusched.core.model import Instant, Limits, Slot
from gpusched.core.scheduler import LAUNCH_TIMEOUT_S, STALE_S, Scheduler
from gpusched.core.states import (
    Cancelled,
    Failed,
    Finished,
    Held,
    Reused,
    Running,
    Skipped,
    Starting,
    Stopping,
    Succeeded,
    TimedOut,
)
from tests.core.stories import CANCEL, HOLD, ONCE, RELEASE, RETRY, A, B, drain, names
from tests.core.support import GIB, RESULT, Driver, batch, cpu, failure, gpu, key, label, planned, reading
from tests.core.test_scheduler_failures import holds

# -- submission --------------------------------------------------------------------------------------------------------


def test_what_needs_no_training_is_finished_at_once() -> None:
    driver = Driver().submit(batch(), [planned("S", skip="too short"), planned("R", committed=True)])
    assert driver.state(key("S")) == Finished(attempts=0, outcome=Skipped(reason="too short"))
    assert driver.state(key("R")) == Finished(attempts=0, outcome=Reused(result=RESULT))
    assert isinstance(driver.records[-1], BatchFinished)
    assert driver.commands == []
    driver.send(RETRY)
    assert driver.records == []


def test_what_is_refused_has_failed_at_once_and_a_retry_runs_it() -> None:
    driver = Driver().submit(batch(), [planned("A", refusal="A.csv:3: no number"), planned("B", skip="too short")])
    failed = Finished(attempts=0, outcome=Failed(failure=failure("bad_data", "A.csv:3: no number")))
    assert driver.state(A) == failed
    assert isinstance(driver.records[-1], BatchFinished)
    assert driver.commands == []
    assert driver.send(RETRY).launched == ["A"]
    driver.start(A, 1).end(A, 1)
    assert isinstance(driver.records[-1], BatchFinished)


def test_a_window_that_finds_no_data_is_skipped_and_does_not_trip_the_breaker() -> None:
    limits = Limits(breaker_failures=2)
    driver = Driver().submit(batch(limits=limits), ["A", "B", "C"])
    for window in (A, B):
        driver.start(window).end(window, ending=failure("no_data", "no data: none"))
        assert driver.state(window) == Finished(attempts=1, outcome=Skipped(reason="no data: none"))
    assert driver.held("b") is None


def test_an_empty_batch_finishes() -> None:
    assert isinstance(Driver().submit(batch(), []).records[-1], BatchFinished)


def test_a_window_from_submission_to_success() -> None:
    driver = Driver().submit(batch(), ["A"])
    assert driver.launched == ["A"]
    assert driver.state(A) == Starting(attempt=1, slot=Slot(0, "cpu"))
    driver.start(A, pid=17)
    assert driver.state(A) == Running(attempt=1, slot=Slot(0, "cpu"), pid=17, started_at=driver.at + 1e9)
    driver.end(A)
    assert driver.state(A) == Finished(attempts=1, outcome=Succeeded(result=RESULT))
    assert [type(r) for r in driver.records] == [WindowMoved, BatchFinished]
    assert (driver.scheduler.active, driver.scheduler.unfinished, driver.scheduler.deadline) == (0, 0, None)


def test_late_events_change_nothing() -> None:
    driver = Driver().submit(batch(), ["A"]).start(A).end(A, ending=failure("device_lost"))
    assert isinstance(driver.state(A), Starting)
    for late in (driver.start(A), driver.end(A), driver.end(A, attempt=3), driver.end(key("A", "x")), driver.start(A)):
        assert (late.records, late.commands) == ([], [])
    assert driver.state(A) == Starting(attempt=2, slot=Slot(0, "cpu"))


def test_an_illegal_move_tells_the_story() -> None:
    driver = Driver().submit(batch(), ["A"]).start(A, pid=17).end(A)
    entry = driver.scheduler._books.batches["b"].entries[A.label]
    with pytest.raises(IllegalMove) as refused:
        driver.scheduler._books.move(
            entry, "placed", Starting(attempt=2, slot=Slot(0, "cpu")), "", Instant(monotonic=0, wall=0)
        )
    assert (
        str(refused.value)
        == f"""\
{A}: placed cannot lead from finished to starting; its story:
    queued → starting: placed, on slot 0
    starting → running: started, as process 17
    running → finished: ended, trained"""
    )


def test_a_batch_is_not_replaced_before_it_is_finished() -> None:
    driver = Driver().submit(batch(), ["A"])
    with pytest.raises(AssertionError, match="not finished"):
        driver.submit(batch(), ["A"])


# -- the order ---------------------------------------------------------------------------------------------------------


def test_longest_first_and_ties_as_submitted() -> None:
    """Golden: steps of about 20 % are ties, so that a tie keeps the order of submission."""
    rows = {"A": 100, "B": 1000, "C": 0, "D": 110, "E": 3000, "F": 1001, "G": 100, "H": 3600, "I": 1, "J": 1150}
    driver = Driver().submit(batch(), [planned(name, n) for name, n in rows.items()])
    assert "".join(drain(driver)) == "HEJBFDAGIC"


def test_priorities_and_durations_that_were_asked_for_order_the_windows_of_a_batch() -> None:
    asked = {"A": (0, 0.0), "B": (0, 2.0), "C": (5, 0.0), "D": (0, 0.1), "E": (5, 1.0), "F": (-1, 9.0)}
    windows = [
        msgspec.structs.replace(plan, window=msgspec.structs.replace(plan.window, priority=one, expected_seconds=s))
        for plan, (one, s) in ((planned(name, 3000), value) for name, value in asked.items())
    ]
    assert "".join(drain(Driver().submit(batch(), windows))) == "ECBADF"


def test_equal_windows_go_as_submitted() -> None:
    assert drain(Driver().submit(batch(), names(30))) == names(30)


def busy() -> Driver:
    """One slot, and a window on it, so that the next batch has to wait."""
    return Driver().submit(batch("first"), ["X"])


def test_batches_of_one_priority_take_turns() -> None:
    driver = busy().submit(batch("a"), ["A1", "A2", "A3"]).submit(batch("b"), ["B1", "B2"]).submit(batch("c"), ["C1"])
    driver.end(key("X", "first"))
    assert drain(driver) == ["A1", "B1", "C1", "A2", "B2", "A3"]


def test_the_highest_priority_goes_first() -> None:
    driver = busy().submit(batch("a"), ["A1", "A2"]).submit(batch("b", priority=5), ["B1", "B2"])
    driver.submit(batch("c", priority=-1), ["C1"]).submit(batch("d", priority=5), ["D1"])
    driver.end(key("X", "first"))
    assert drain(driver) == ["B1", "D1", "B2", "A1", "A2", "C1"]


def test_a_newcomer_does_not_wait_for_all_who_came_before() -> None:
    driver = Driver().submit(batch("a"), names(5))
    for name in names(2):
        driver.end(key(name, "a"))
    driver.submit(batch("b"), ["B1", "B2"])
    driver.end(key("W02", "a"))
    assert driver.launched == ["B1"]


def test_a_batch_that_cannot_go_does_not_hold_up_others() -> None:
    driver = Driver(cpu(2)).submit(batch("a", device="cuda", priority=9), ["A1"])
    assert driver.launched == []
    driver.submit(batch("b", workers=1, priority=5), ["B1", "B2"]).submit(batch("c"), ["C1"])
    assert driver.launched == ["C1"]
    driver.end(key("C1", "c"))
    assert driver.launched == []
    driver.end(key("B1", "b"))
    assert driver.launched == ["B2"]


# -- time --------------------------------------------------------------------------------------------------------------

TIMED = batch(limits=Limits(max_attempts=1, timeout_s=100.0, grace_s=7.0, breaker_failures=0))


def test_asks_at_the_timeout_and_kills_after_the_grace() -> None:
    driver = Driver().submit(TIMED, ["A"]).start(A)
    assert driver.wait_for_deadline() == 100.0
    assert (driver.terminated, driver.killed) == ([(A, 1)], [])
    assert driver.state(A) == Stopping(attempt=1, slot=Slot(0, "cpu"), pid=10, reason="timed_out")
    assert driver.wait_for_deadline() == 7.0
    assert (driver.terminated, driver.killed) == ([], [(A, 1)])
    assert isinstance(driver.state(A), Stopping), "the slot is held until the process is gone"
    driver.end(A, ending=failure("killed"))
    assert driver.state(A) == Finished(attempts=1, outcome=TimedOut(seconds=100.0))


def test_what_ends_within_the_grace_is_not_killed() -> None:
    driver = Driver().submit(TIMED, ["A"]).start(A)
    driver.wait_for_deadline()
    driver.end(A)
    assert driver.state(A) == Finished(attempts=1, outcome=Succeeded(result=RESULT))
    assert driver.scheduler.deadline is None


def test_no_timeout() -> None:
    driver = Driver().submit(batch(limits=Limits(timeout_s=0)), ["A"]).start(A)
    assert driver.scheduler.deadline is None


def test_a_fork_that_takes_too_long_is_stopped_and_goes_back() -> None:
    driver = Driver().submit(TIMED, ["A"])
    assert driver.wait_for_deadline() == LAUNCH_TIMEOUT_S
    assert driver.state(A) == Stopping(attempt=1, slot=Slot(0, "cpu"), pid=None, reason="interrupted")
    assert driver.terminated == []
    assert driver.wait_for_deadline() == 7.0
    assert driver.killed == [(A, 1)]
    driver.end(A, ending=failure("launcher_lost"))
    assert driver.state(A) == Starting(attempt=2, slot=Slot(0, "cpu"))


def test_a_start_that_is_told_twice_counts_once() -> None:
    driver = Driver().submit(TIMED, ["A"]).start(A, pid=7)
    assert (driver.start(A, pid=8).records, driver.commands) == ([], [])
    state = driver.state(A)
    assert isinstance(state, Running)
    assert state.pid == 7


@pytest.mark.parametrize("delay", [1.0, 50.0])
def test_cancelled_while_starting_ends_once_started(delay: float) -> None:
    """However late the process is there, it is asked to end, and killed if it does not."""
    driver = Driver().submit(TIMED, ["A", "B"]).send(ChangeRequested(verb="cancel", batch_id="b", label=A.label))
    assert driver.commands == []
    assert driver.state(A) == Stopping(attempt=1, slot=Slot(0, "cpu"), pid=None, reason="cancelled")
    driver.wait(delay).start(A)
    assert driver.terminated == [(A, 1)]
    assert driver.wait(7.0).killed == [(A, 1)]
    driver.end(A, ending=failure("killed"))
    assert driver.state(A) == Finished(attempts=1, outcome=Cancelled())
    assert driver.launched == ["B"]


def test_timers_of_a_replaced_batch_leave_the_new_one_alone() -> None:
    driver = Driver().submit(TIMED, ["A"]).start(A).wait(10).end(A)
    driver.submit(TIMED, ["A"]).wait(60).start(A)
    assert driver.wait(40).commands == [], "the timeout of the window that is no more"
    assert isinstance(driver.state(A), Running)
    assert driver.wait(60).terminated == [(A, 1)]


def test_time_that_passes_early_does_nothing() -> None:
    driver = Driver().submit(TIMED, ["A"]).start(A).wait(99.9)
    assert (driver.records, driver.commands) == ([], [])


# -- requests ----------------------------------------------------------------------------------------------------------


def test_cancel_a_batch() -> None:
    driver = Driver(cpu(2)).submit(batch(limits=ONCE), names(4)).start(key("W00")).send(CANCEL)
    assert driver.terminated == [(key("W00"), 1)]
    assert [type(driver.state(key(n))) for n in names(4)] == [Stopping, Stopping, Finished, Finished]
    assert driver.send(CANCEL).records == []
    driver.end(key("W00"), ending=failure("killed")).end(key("W01"), ending=failure("killed"))
    assert isinstance(driver.records[-1], BatchFinished)


def test_cancel_counts_the_launches_that_were_made() -> None:
    driver = Driver().submit(batch(), ["A", "B"]).end(A, ending=failure()).send(CANCEL)
    assert driver.state(A) == Finished(attempts=1, outcome=Cancelled())


def test_cancel_wins_over_a_timeout_and_a_result_over_both() -> None:
    driver = Driver().submit(TIMED, ["A"]).start(A).wait(100).send(CANCEL)
    assert driver.commands == [], "it was asked to end already"
    driver.end(A, ending=failure("killed"))
    assert driver.state(A) == Finished(attempts=1, outcome=Cancelled())
    driver = Driver().submit(TIMED, ["A"]).start(A).send(CANCEL).end(A)
    assert driver.state(A) == Finished(attempts=1, outcome=Succeeded(result=RESULT))


def test_retry_reopens_a_finished_batch() -> None:
    driver = Driver(cpu(4)).submit(batch(limits=ONCE), ["A", "B", "C"])
    driver.end(A, ending=failure()).end(key("B")).send(RETRY)
    assert not any(isinstance(r, BatchReopened) for r in driver.records), "it was not finished yet"
    driver.end(A, 2, failure()).end(key("C"), ending=failure())
    assert isinstance(driver.records[-1], BatchFinished)
    driver.send(RETRY)
    assert [type(r) for r in driver.records[:3]] == [BatchReopened, WindowMoved, WindowMoved]
    assert driver.launched == ["A", "C"]
    assert driver.state(A) == Starting(attempt=3, slot=Slot(0, "cpu"))
    driver.end(A, 3).end(key("C"), 2)
    assert isinstance(driver.records[-1], BatchFinished)
    assert driver.send(RETRY).records == [], "there is nothing to run again"


def test_a_retried_window_has_all_its_attempts_again() -> None:
    driver = Driver().submit(batch(limits=Limits(max_attempts=2, backoff_s=0)), ["A"])
    driver.end(A, 1, failure()).end(A, 2, failure())
    assert isinstance(driver.state(A), Finished)
    driver.send(RETRY).end(A, 3, failure())
    assert driver.state(A) == Starting(attempt=4, slot=Slot(0, "cpu"))


def test_hold_and_release_a_batch() -> None:
    driver = Driver().submit(batch(), ["A", "B"]).send(HOLD)
    assert holds(driver) == ["by request"]
    assert driver.send(HOLD).records == []
    driver.end(A)
    assert driver.launched == []
    assert driver.send(RELEASE).launched == ["B"]
    assert driver.send(RELEASE).records == []


def test_hold_and_release_a_window() -> None:
    driver = Driver().submit(batch(), ["A", "B", "C"])
    driver.send(ChangeRequested(verb="hold", batch_id="b", label=label("B"))).send(
        ChangeRequested(verb="hold", batch_id="b", label=label("A"))
    )
    assert driver.state(key("B")) == Held(attempt=1)
    assert isinstance(driver.state(A), Starting), "what runs is not held"
    assert driver.end(A).launched == ["C"]
    driver.end(key("C"))
    assert driver.send(ChangeRequested(verb="release", batch_id="b", label=label("B"))).launched == ["B"]


def test_a_window_released_while_it_would_wait_goes_at_once_and_once() -> None:
    driver = Driver(cpu(3)).submit(batch(), ["A"]).end(A, ending=failure())
    driver.send(ChangeRequested(verb="hold", batch_id="b", label=A.label)).send(RELEASE)
    assert driver.launched == ["A"]
    assert driver.wait(1.0).commands == []


def test_a_window_cancelled_while_held_batch_finishes() -> None:
    driver = Driver().submit(batch(), ["A", "B"]).send(HOLD).send(CANCEL)
    driver.end(A, ending=failure("killed"))
    assert isinstance(driver.records[-1], BatchFinished)


@pytest.mark.parametrize("event", [CANCEL, HOLD, RELEASE, RETRY])
def test_requests_for_nobody(event: ChangeRequested) -> None:
    for unknown in (event, msgspec.structs.replace(event, label="x")):
        driver = Driver().send(unknown)
        assert (driver.records, driver.commands) == ([], [])


# -- questions ---------------------------------------------------------------------------------------------------------


def test_answers() -> None:
    driver = Driver().submit(batch(), ["A", "B"])
    scheduler = driver.scheduler
    assert scheduler.batch("b") == batch()
    assert scheduler.batch("x") is None
    assert scheduler.batches() == (batch(),)
    assert scheduler.planned(A) == planned("A")
    assert [p.window.symbol for p, _ in scheduler.states("b")] == ["A", "B"]
    assert scheduler.held("b") is None
    assert (scheduler.active, scheduler.unfinished) == (1, 2)


def test_an_old_reading_vetoes_nothing() -> None:
    """NVML does not answer any more: without news for a minute the ledger decides alone."""
    driver = Driver(gpu())
    driver.send(DeviceRead(reading=reading(free=0, total=GIB)))
    driver.submit(batch(), ["A"])
    assert driver.launched == []
    driver.wait(STALE_S - 1)
    assert driver.launched == []
    driver.wait(2)
    assert driver.launched == ["A"]


def test_remembered_batches_cost_others_nothing() -> None:
    """With 3,000 of them, a new batch took ten times as long; the least of several is compared, machines being busy."""

    def least_seconds(remembered: int) -> float:
        scheduler, now = Scheduler(), Instant(monotonic=0.0, wall=0.0)
        scheduler.handle(NodeJoined(devices=(cpu(),)), now)
        for number in range(remembered):
            windows = (planned("A", skip="no data"),)
            scheduler.handle(BatchSubmitted(batch=batch(f"old{number}"), windows=windows), now)
        took = []
        for number in range(50):
            began, where = time.thread_time(), key("A", f"new{number}")
            scheduler.handle(BatchSubmitted(batch=batch(f"new{number}"), windows=(planned("A"),)), now)
            scheduler.handle(AttemptStarted(key=where, attempt=1, pid=1), now)
            scheduler.handle(AttemptEnded(key=where, attempt=1, ending=failure("bad_data")), now)
            took.append(time.thread_time() - began)
        assert len(scheduler.open_batches()) == 0
        return min(took)

    assert least_seconds(3000) < 4 * least_seconds(10)
