"""The scheduler, story by story."""

from __future__ import annotations

import itertools
import time

import msgspec
import pytest

from gpusched.core.commands import CheckResults, Command, Launch
from gpusched.core.estimates import Estimates
from gpusched.core.events import (
    AttemptEnded,
    AttemptStarted,
    BatchAccepted,
    BatchFinished,
    BatchHeld,
    BatchRecovered,
    BatchReleased,
    BatchReopened,
    BatchSubmitted,
    ChangeRequested,
    DeviceLost,
    DeviceRead,
    DrainRequested,
    Event,
    NodeJoined,
    Record,
    ResultsChecked,
    ResumeRequested,
    ShutdownRequested,
    WindowMoved,
)
from gpusched.core.failures import MAX_LOSSES
from gpusched.core.lifecycle import IllegalMove
from gpusched.core.model import CPU, HoldReason, Instant, Limits, Slot, WindowKey
from gpusched.core.scheduler import LAUNCH_TIMEOUT_S, STALE_S, Scheduler
from gpusched.core.states import (
    Cancelled,
    Failed,
    Failure,
    FailureKind,
    Finished,
    Held,
    Lost,
    Queued,
    Reused,
    Running,
    Skipped,
    Starting,
    State,
    Stopping,
    Succeeded,
    TimedOut,
)
from tests.core.support import GIB, RESULT, Driver, batch, cpu, failure, gpu, key, label, planned, reading

ONCE = Limits(max_attempts=1, breaker_failures=0)
A, B, C = (key(symbol) for symbol in "ABC")
RETRY = ChangeRequested(verb="retry", batch_id="b")
CANCEL = ChangeRequested(verb="cancel", batch_id="b")
HOLD = ChangeRequested(verb="hold", batch_id="b")
RELEASE = ChangeRequested(verb="release", batch_id="b")


def names(count: int) -> list[str]:
    return [f"W{n:02}" for n in range(count)]


def drain(driver: Driver) -> list[str]:
    """Let one window after another succeed; the symbols in the order of their launches after this one."""
    order: list[str] = []
    while driver.launched:
        order += driver.launched
        (launch,) = driver.commands
        assert isinstance(launch, Launch)
        driver.end(launch.key, launch.attempt)
    return order


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


# -- failures and the breaker ------------------------------------------------------------------------------------------


def test_tries_again_after_a_wait_and_gives_up() -> None:
    limits = Limits(max_attempts=3, backoff_s=2.0, backoff_max_s=3.0)
    driver = Driver().submit(batch(limits=limits), ["A"])
    waits = []
    for attempt in (1, 2):
        driver.start(A, attempt).end(A, attempt, failure())
        assert driver.state(A) == Queued(attempt=attempt + 1)
        assert driver.launched == []
        waits.append(driver.wait_for_deadline())
        assert driver.launched == ["A"]
    driver.start(A, 3).end(A, 3, failure())
    assert waits == [2.0, 3.0]
    assert driver.state(A) == Finished(attempts=3, outcome=Failed(failure=failure()))


def test_an_exception_at_the_same_line_twice_is_not_tried_a_third_time() -> None:
    raised = msgspec.structs.replace(failure(), place="ValueError at a.py:3")
    driver = Driver().submit(batch(limits=Limits(max_attempts=3, backoff_s=0)), ["A"])
    driver.end(A, 1, raised).end(A, 2, raised)
    assert driver.state(A) == Finished(attempts=2, outcome=Failed(failure=raised))
    (moved,) = [record for record in driver.records if isinstance(record, WindowMoved)]
    assert moved.reason.endswith("; it was raised twice at the same line, so there is no third attempt")
    elsewhere = msgspec.structs.replace(raised, place="ValueError at a.py:4")
    driver.send(RETRY).end(A, 3, raised).end(A, 4, elsewhere).end(A, 5, raised)
    assert driver.state(A) == Finished(attempts=5, outcome=Failed(failure=raised))


def test_a_slot_is_not_idle_while_a_window_waits_to_be_tried_again() -> None:
    driver = Driver().submit(batch(), ["A", "B"]).end(A, ending=failure())
    assert driver.launched == ["B"]


def test_losses_do_not_use_up_attempts_and_end_too() -> None:
    driver = Driver().submit(batch(limits=ONCE), ["A"])
    for attempt in range(1, MAX_LOSSES + 1):
        assert driver.state(A) == Starting(attempt=attempt, slot=Slot(0, "cpu"))
        driver.end(A, attempt, failure("launcher_lost"))
        if attempt in range(2, MAX_LOSSES):
            driver.wait_for_deadline()
    assert driver.state(A) == Finished(attempts=MAX_LOSSES, outcome=Lost(failure=failure("launcher_lost")))


def fail(
    driver: Driver, name: str, message: str = "ValueError: no", kind: FailureKind = "raised", cause: str = ""
) -> Driver:
    return driver.end(key(name), 1, Failure(kind=kind, message=message, cause=cause))


def holds(driver: Driver) -> list[str]:
    return [r.reason for r in driver.records if isinstance(r, BatchHeld)]


BREAKER = batch(limits=Limits(max_attempts=1, breaker_failures=3))


def test_the_breaker_holds_what_keeps_failing_in_the_same_way() -> None:
    driver = Driver().submit(BREAKER, names(8))
    fail(driver, "W00", "ValueError: row 7")
    fail(driver, "W01", "ValueError: row 8")
    assert holds(driver) == []
    fail(driver, "W02", "ValueError: row 9")
    assert holds(driver) == ["the last 3 windows failed in the same way (ValueError: row 9)"]
    assert driver.launched == []
    driver.send(RELEASE)
    assert isinstance(driver.records[0], BatchReleased)
    assert driver.launched == ["W03"]
    assert holds(fail(driver, "W03")) == holds(fail(driver, "W04")) == []
    assert holds(fail(driver, "W05")) != []


def test_mixed_failures_do_not_trip_it() -> None:
    driver = Driver().submit(BREAKER, names(8))
    for name, cause in zip(names(7), itertools.cycle(["ValueError", "ValueError", "KeyError"])):
        assert holds(fail(driver, name, cause=cause)) == []


def test_a_success_starts_the_count_anew() -> None:
    driver = Driver().submit(BREAKER, names(8))
    fail(fail(driver, "W00"), "W01").end(key("W02"))
    assert holds(fail(driver, "W03")) == holds(fail(driver, "W04")) == []
    assert holds(fail(driver, "W05")) != []


def test_attempts_that_are_tried_again_do_not_count() -> None:
    limits = Limits(max_attempts=2, breaker_failures=1)
    driver = Driver().submit(batch(limits=limits), ["A", "B", "C"])
    assert holds(driver.end(A, ending=failure())) == []
    assert holds(driver.end(key("B"), ending=failure("bad_data"))) != []


def test_a_retry_starts_the_count_anew() -> None:
    driver = Driver().submit(BREAKER, names(6))
    fail(fail(driver, "W00"), "W01")
    driver.send(ChangeRequested(verb="retry", batch_id="b", label=label("W00")))
    # W00 was submitted first, so it comes before windows that have not run yet, but after the one that holds the slot.
    assert holds(fail(driver, "W02")) == []
    assert driver.launched == ["W00"]
    assert holds(driver.end(key("W00"), 2, failure())) == []
    assert holds(fail(driver, "W03")) != []


def test_a_retry_of_nothing_leaves_the_count() -> None:
    driver = Driver().submit(BREAKER, names(6))
    fail(fail(driver, "W00"), "W01").send(ChangeRequested(verb="retry", batch_id="b", label=label("W05")))
    assert holds(fail(driver, "W02")) != []


def test_the_last_window_holds_nothing() -> None:
    driver = Driver().submit(BREAKER, names(3))
    for name in names(3):
        assert holds(fail(driver, name)) == []
    assert isinstance(driver.records[-1], BatchFinished)


def test_no_breaker() -> None:
    driver = Driver().submit(batch(limits=ONCE), names(30))
    assert all(holds(fail(driver, name)) == [] for name in names(30))


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
    assert holds(driver) == ["held by request"]
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


# -- devices -----------------------------------------------------------------------------------------------------------


def test_a_lost_device_is_emptied_and_its_windows_go_elsewhere() -> None:
    driver = Driver(gpu(0), gpu(1)).submit(batch(limits=ONCE), ["A", "B"]).start(A).start(key("B"))
    driver.send(DeviceLost(device_id="GPU-0", reason="it fell off the bus"))
    assert driver.terminated == [(A, 1)]
    driver.end(A, ending=failure("killed"))
    assert driver.state(A) == Queued(attempt=2)
    driver.end(key("B"))
    assert driver.state(A) == Starting(attempt=2, slot=Slot(1, "GPU-1"))
    assert driver.send(DeviceLost(device_id="GPU-0", reason="again")).records == []
    assert driver.send(DeviceLost(device_id="GPU-7", reason="unknown")).records == []


@pytest.mark.parametrize("kind", ["device_lost", "device_mismatch"])
def test_a_window_whose_device_was_at_fault_closes_it(kind: FailureKind) -> None:
    driver = Driver(gpu(0, 2), gpu(1, 1)).submit(batch(limits=ONCE), ["A", "B", "C"])
    for symbol in "ABC":
        driver.start(key(symbol))
    assert driver.state(C) == Running(attempt=1, slot=Slot(1, "GPU-0"), pid=10, started_at=driver.at + 1e9)
    driver.end(A, ending=failure(kind, "it is another one"))
    assert driver.terminated == [(C, 1)]
    state = driver.scheduler.pool.devices["GPU-0"]
    assert (state.health, state.reason) == ("quarantined", "it is another one")
    driver.end(C, ending=failure("killed")).end(B).start(A, 2).end(A, 2).end(C, 2)
    assert driver.scheduler.unfinished == 0


def test_no_failure_closes_the_processors_and_no_other_failure_a_device() -> None:
    driver = Driver(cpu()).submit(batch(), ["A", "B"]).end(A, ending=failure("device_mismatch"))
    assert driver.scheduler.pool.devices["cpu"].health == "open"
    driver = Driver(gpu(0)).submit(batch(), ["A", "B"]).end(A, ending=failure("device_memory"))
    assert driver.scheduler.pool.devices["GPU-0"].health == "open"


def test_a_batch_that_no_device_is_left_for_is_held_until_one_is_opened() -> None:
    driver = Driver(gpu(0), cpu(auto=False)).submit(batch(limits=ONCE), ["A", "B"]).start(A)
    driver.submit(batch("other", device="cpu"), ["A"])
    driver.send(DeviceLost(device_id="GPU-0", reason="it fell off the bus"))
    reason = "no device is left that could run it (GPU-0: it fell off the bus)"
    assert BatchHeld(batch_id="b", reason=reason, kind="stranded", at=driver.at + 1e9) in driver.records
    assert driver.held("other") is None
    driver.end(A, ending=failure("killed"))
    # so is the next one, and one that is released in vain
    driver.submit(batch("late"), ["A"])
    assert driver.held("late") == reason
    driver.send(ChangeRequested(verb="release", batch_id="late"))
    assert driver.held("late") == reason
    driver.send(ChangeRequested(verb="hold", batch_id="b"))
    driver.send(ResumeRequested(device_id="GPU-0"))
    assert driver.held("b") is driver.held("late") is None
    assert driver.launched == ["A"]


def test_a_device_comes_back_and_what_people_hold_stays_held() -> None:
    driver = Driver(gpu(0)).submit(batch(), ["A"]).send(ChangeRequested(verb="hold", batch_id="b"))
    driver.send(DeviceLost(device_id="GPU-0", reason="lost")).send(ResumeRequested(device_id="GPU-0"))
    assert driver.held("b") == "held by request"


def test_a_drained_device_is_nobodys_loss() -> None:
    driver = Driver(gpu(0)).submit(batch(), ["A", "B"]).send(DrainRequested(device_id="GPU-0"))
    assert driver.held("b") is None


def test_a_batch_that_nothing_here_can_run_is_held() -> None:
    driver = Driver(gpu(0)).submit(batch(device="cpu"), ["A"])
    assert driver.held("b") == "no device is left that could run it (there is none for 'cpu')"


def test_a_drained_device_keeps_what_it_has() -> None:
    driver = Driver(gpu(0)).submit(batch(), ["A", "B"]).start(A).send(DrainRequested(device_id="GPU-0"))
    assert driver.commands == []
    assert driver.end(A).launched == []
    assert driver.send(ResumeRequested(device_id="GPU-0")).launched == ["B"]
    assert driver.send(ResumeRequested(device_id="GPU-0")).records == []


@pytest.mark.parametrize(("learned", "first"), [(0, 1), (GIB // 4, 1), (4 * GIB, 8)])
def test_device_memory_asks_for_more_and_then_for_a_device_alone(learned: int, first: int) -> None:
    """More than was set aside, where windows like it have taught how much that is: `first` GiB at first."""
    estimates = Estimates()
    estimates.observe("w:train", "cuda", 100, 1.0, learned or None)
    driver = Driver()
    driver.scheduler = Scheduler(estimates)
    driver.send(NodeJoined(devices=(gpu(0, 2),))).submit(batch(limits=ONCE), ["A", "B"])
    driver.send(DeviceRead(reading=reading(free=40 * GIB, total=48 * GIB)))
    driver.end(A, 1, failure("device_memory"))
    state = driver.scheduler.pool.devices["GPU-0"]
    assert state.memory.reserved_bytes == learned + first * GIB
    driver.end(A, 2, failure("device_memory")).wait(1.0)
    assert driver.state(A) == Queued(attempt=3), "it has to wait for the device to be empty"
    driver.end(key("B"))
    assert driver.state(A) == Starting(attempt=3, slot=Slot(0, "GPU-0"))
    assert state.memory.reserved_bytes == 2 * first * GIB


@pytest.mark.parametrize("slots", [2, 5])
def test_a_window_that_waits_for_a_device_alone_is_not_overtaken(slots: int) -> None:
    """It starts when those have ended that ran there when it began to wait."""
    driver = Driver(gpu(0, slots)).submit(batch("a", limits=ONCE), ["A"])
    driver.submit(batch(), [f"B{number}" for number in range(100)])
    a = key("A", "a")
    driver.end(a, 1, failure("device_memory")).end(a, 2, failure("device_memory")).wait(1.0)
    running = [allocation.key for allocation in driver.scheduler.pool.devices["GPU-0"].allocations.values()]
    assert len(running) == slots
    for ended in running:
        assert driver.state(a) == Queued(attempt=3)
        driver.end(ended)
    assert driver.launched == ["A"]
    assert len(driver.end(a, 3).launched) == slots


def test_only_one_device_is_kept_for_a_window_and_only_from_what_comes_later() -> None:
    driver = Driver(gpu(0, 2), gpu(1, 2)).submit(batch("a", limits=ONCE), ["A"])
    driver.submit(batch(), [f"B{number}" for number in range(100)])
    a = key("A", "a")
    driver.end(a, 1, failure("device_memory")).end(a, 2, failure("device_memory")).wait(1.0)

    def running(number: int) -> list[WindowKey]:
        allocations = driver.scheduler.pool.devices[f"GPU-{number}"].allocations
        return [allocation.key for allocation in allocations.values()]

    first, _ = running(0)
    assert driver.end(first).launched == []
    for ended in running(1):
        assert len(driver.end(ended).launched) == 1
    assert driver.state(a) == Queued(attempt=3)
    assert driver.submit(batch("urgent", priority=1), ["U"]).launched == ["U"]
    assert len(running(0)) == 2


@pytest.mark.parametrize("allowed", [True, False])
def test_a_window_too_large_for_any_gpu_goes_to_the_processors_if_they_are_offered(allowed: bool) -> None:
    driver = Driver(gpu(0), cpu(auto=allowed)).submit(batch(limits=ONCE), ["A"])
    for attempt in (1, 2, 3):
        assert driver.state(A) == Starting(attempt=attempt, slot=Slot(0, "GPU-0"))
        driver.end(A, attempt, failure("device_memory"))
        if attempt > 1:
            driver.wait_for_deadline()
    assert driver.state(A) == Starting(attempt=4, slot=Slot(1, CPU) if allowed else Slot(0, "GPU-0"))


def test_what_was_learned_is_set_aside_before_anything_is_used() -> None:
    """4 GiB each where 10 are free: the third window waits for a reading that says that there is room."""
    estimates = Estimates()
    estimates.observe("w:train", "cuda", 100, 1.0, 4 * GIB)
    estimates.observe("w:train", "cpu", 100, 1.0, 9 * GIB)
    driver = Driver(gpu(0, 3), cpu(auto=False))
    driver.scheduler = Scheduler(estimates)
    driver.send(NodeJoined(devices=(gpu(0, 3), cpu(auto=False))))
    driver.send(DeviceRead(reading=reading(free=10 * GIB, total=16 * GIB))).submit(batch(limits=ONCE), ["A", "B", "C"])
    assert driver.launched == ["A", "B"]
    # both use the memory promised to them, and somebody else has gone
    processes = {11: 4 * GIB, 22: 4 * GIB}
    driver.start(A, pid=11).start(B, pid=22)
    assert driver.send(DeviceRead(reading=reading(free=3 * GIB, total=16 * GIB, processes=processes))).launched == []
    assert driver.send(DeviceRead(reading=reading(free=5 * GIB, total=16 * GIB, processes=processes))).launched == ["C"]


def test_says_why_nothing_runs_when_others_use_all_memory() -> None:
    driver = Driver(gpu(0), gpu(1), cpu(auto=False))
    full = DeviceRead(reading=reading("GPU-0", free=GIB // 8, total=GIB))
    driver.send(full).send(DeviceRead(reading=reading("GPU-1", free=GIB // 16, total=GIB)))
    assert driver.scheduler.starved() is None
    driver.submit(batch(limits=ONCE), ["A"])
    assert driver.launched == []
    assert driver.scheduler.starved() == "GPU-0 has 128 MiB free, GPU-1 has 64 MiB free"
    assert driver.send(DeviceRead(reading=reading("GPU-1", free=GIB, total=GIB))).launched == ["A"]
    assert driver.scheduler.starved() is None
    driver.submit(batch("other", device="cpu"), ["A"])
    driver.send(DeviceRead(reading=reading("GPU-1", free=0, total=GIB))).end(A)
    assert driver.scheduler.starved() is None


def test_what_a_window_was_seen_to_use_is_told_when_it_ends() -> None:
    driver = Driver(gpu(0, 2)).submit(batch(limits=ONCE), ["A", "B"]).start(A, pid=11).start(B, pid=22)
    for memory in (GIB, 3 * GIB, 2 * GIB):
        driver.send(DeviceRead(reading=reading(free=9 * GIB, processes={11: memory})))

    def told(where: WindowKey) -> int | None:
        (moved,) = [record for record in driver.end(where).records if isinstance(record, WindowMoved)]
        assert moved.usage is not None
        return moved.usage.device_memory_bytes

    assert told(A) == 3 * GIB
    assert told(B) is None


def test_readings_know_our_processes() -> None:
    driver = Driver(gpu(0, 2)).submit(batch(limits=ONCE), ["A"]).end(A, 1, failure("device_memory"))
    driver.start(A, 2, pid=77).send(DeviceRead(reading=reading(free=7 * GIB, processes={77: GIB, 78: GIB})))
    assert driver.scheduler.pool.devices["GPU-0"].memory.reserved_bytes == 0
    assert driver.send(DeviceRead(reading=reading("GPU-9", free=0))).records == []


# -- shutdown and recovery ---------------------------------------------------------------------------------------------


def test_drain_waits_and_places_nothing() -> None:
    driver = Driver().submit(batch(), ["A", "B"]).start(A).send(ShutdownRequested(mode="drain"))
    assert driver.commands == []
    assert driver.end(A).launched == []
    assert driver.scheduler.active == 0


def test_stop_sends_back_to_the_queue() -> None:
    driver = Driver().submit(batch(limits=ONCE), ["A"]).start(A).send(ShutdownRequested(mode="stop"))
    assert driver.terminated == [(A, 1)]
    driver.end(A, ending=failure("killed"))
    assert driver.state(A) == Queued(attempt=2)
    assert driver.commands == []


def recover(state: State, *, committed: bool = False, limits: Limits = ONCE) -> Driver:
    windows = ((planned("A", committed=committed), state), (planned("Z", 1), Queued(attempt=4)))
    losses = {A.label: state.attempt} if isinstance(state, Running | Stopping) else {}
    accepted = batch(limits=limits)
    return Driver().send(
        BatchRecovered(
            batch=accepted, windows=windows, held=HoldReason(kind="breaker", text="as before"), losses=losses
        )
    )


SLOT = Slot(5, "GPU-9")
ACTIVE: list[State] = [
    Starting(attempt=1, slot=SLOT),
    Running(attempt=1, slot=SLOT, pid=3, started_at=0),
    Stopping(attempt=1, slot=SLOT, pid=3, reason="interrupted"),
]


@pytest.mark.parametrize("state", ACTIVE)
def test_what_ran_when_the_supervisor_died_runs_again(state: State) -> None:
    driver = recover(state)
    assert driver.state(A) == Queued(attempt=2)
    assert driver.state(key("Z")) == Queued(attempt=4)
    assert driver.commands == [], "the batch was held, and is"
    assert driver.send(RELEASE).launched == ["A"]


@pytest.mark.parametrize("state", [*ACTIVE, Stopping(attempt=1, slot=SLOT, pid=3, reason="cancelled")])
def test_what_had_committed_is_finished(state: State) -> None:
    assert recover(state, committed=True).state(A) == Finished(attempts=1, outcome=Succeeded(result=RESULT))


def test_what_was_being_cancelled_is_cancelled() -> None:
    driver = recover(Stopping(attempt=2, slot=SLOT, pid=3, reason="cancelled"))
    assert driver.state(A) == Finished(attempts=2, outcome=Cancelled())


def test_a_window_that_takes_the_supervisor_down_does_so_ten_times_at_most() -> None:
    assert recover(Running(attempt=9, slot=SLOT, pid=3, started_at=0)).state(A) == Queued(attempt=10)
    lost = recover(Running(attempt=MAX_LOSSES, slot=SLOT, pid=3, started_at=0)).state(A)
    assert isinstance(lost, Finished)
    assert isinstance(lost.outcome, Lost)


def test_one_that_never_began_did_not_take_it_down() -> None:
    assert recover(Starting(attempt=99, slot=SLOT)).state(A) == Queued(attempt=100)


def test_a_recovered_batch_that_cannot_go_on_is_held_unless_it_is_already() -> None:
    windows = ((planned("A"), Queued()),)
    recovered = BatchRecovered(batch=batch(), windows=windows, obstacle="another has its directory")
    driver = Driver().send(recovered)
    obstacle = HoldReason(kind="obstacle", text="another has its directory")
    assert driver.scheduler.held("b") == obstacle
    assert BatchHeld(batch_id="b", reason=obstacle.text, kind="obstacle", at=driver.at + 1e9) in driver.records
    assert (driver.held("b"), driver.state(A)) == ("another has its directory", Queued())
    held = Driver().send(msgspec.structs.replace(recovered, held=HoldReason(kind="breaker", text="as before")))
    assert held.held("b") == "as before"


def test_a_finished_batch_comes_back_to_be_retried() -> None:
    failed = Finished(attempts=3, outcome=Failed(failure=failure()))
    driver = Driver().send(BatchRecovered(batch=batch(), windows=((planned("A"), failed),)))
    assert driver.send(RETRY).launched == ["A"]
    assert driver.state(A) == Starting(attempt=4, slot=Slot(0, "cpu"))


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


# -- results that are missed -------------------------------------------------------------------------------------------


def test_results_are_looked_for_before_a_batch_is_finished() -> None:
    driver = Driver(cpu(2)).submit(batch(), ["A", "B"])
    driver.missing = (A.label,)
    driver.start(A).end(A).start(B).end(B)
    lost = driver.state(A)
    assert isinstance(lost, Finished)
    assert isinstance(lost.outcome, Lost)
    assert lost.outcome.failure.kind == "missing"
    assert lost.outcome.failure.message == "its result was committed to /out/w, but is no longer there"
    assert isinstance(driver.state(B), Finished)
    assert [type(record) for record in driver.records] == [WindowMoved, WindowMoved, BatchFinished]
    driver.missing = ()
    assert driver.send(RETRY).launched == ["A"]
    assert isinstance(driver.records[0], BatchReopened)
    driver.start(A, 2).end(A, 2)
    assert isinstance(driver.records[-1], BatchFinished)


def test_a_reused_result_can_be_missed_and_what_has_none_is_not_looked_for() -> None:
    driver = Driver()
    driver.missing = (A.label,)
    driver.submit(batch(), [planned("A", committed=True), planned("B", skip="no data")])
    assert [type(record) for record in driver.records] == [BatchAccepted, WindowMoved, BatchFinished]
    driver = Driver().submit(batch(), [planned("B", skip="no data")])
    assert driver.commands == []
    assert isinstance(driver.records[-1], BatchFinished)


def test_an_answer_of_before_a_retry_finishes_nothing() -> None:
    scheduler, now = Scheduler(), Instant(monotonic=1.0, wall=1e9)

    def send(event: Event) -> tuple[list[Record], list[Command]]:
        return scheduler.handle(event, now)

    send(NodeJoined(devices=(cpu(2),)))
    send(BatchSubmitted(batch=batch(limits=Limits(max_attempts=1)), windows=(planned("A"), planned("B"))))
    send(AttemptEnded(key=A, attempt=1, ending=failure()))
    _, (asked,) = send(AttemptEnded(key=B, attempt=1, ending=RESULT))
    assert isinstance(asked, CheckResults)
    assert asked.labels == (B.label,)
    records, _ = send(RETRY)
    assert not any(isinstance(record, BatchReopened) for record in records), "it was not finished yet"
    answer = ResultsChecked(batch_id="b", check=asked.check, missing=())
    assert send(answer) == ([], [])
    _, (again,) = send(AttemptEnded(key=A, attempt=2, ending=RESULT))
    assert isinstance(again, CheckResults)
    assert send(answer) == ([], [])
    records, _ = send(ResultsChecked(batch_id="b", check=again.check, missing=()))
    assert [type(record) for record in records] == [BatchFinished]
    assert send(ResultsChecked(batch_id="b", check=again.check, missing=())) == ([], []), "once is enough"


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
            began, where = time.perf_counter(), key("A", f"new{number}")
            scheduler.handle(BatchSubmitted(batch=batch(f"new{number}"), windows=(planned("A"),)), now)
            scheduler.handle(AttemptStarted(key=where, attempt=1, pid=1), now)
            scheduler.handle(AttemptEnded(key=where, attempt=1, ending=failure("bad_data")), now)
            took.append(time.perf_counter() - began)
        assert len(scheduler.open_batches()) == 0
        return min(took)

    assert least_seconds(3000) < 4 * least_seconds(10)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (failure("raised", "ValueError: 3 rows of SBIN"), failure("raised", "ValueError: 17 rows of M&M"), True),
        (failure("raised"), msgspec.structs.replace(failure("raised"), cause="KeyError"), False),
        (failure("raised"), failure("crashed"), False),
    ],
)
def test_the_breaker_counts_failures_of_one_kind_and_cause(first: Failure, second: Failure, same: bool) -> None:
    driver = Driver(cpu(1)).submit(batch(limits=Limits(max_attempts=1, breaker_failures=2)), ["A", "B", "C"])
    driver.end(A, 1, first).end(B, 1, second)
    assert (driver.scheduler.held("b") is not None) is same
