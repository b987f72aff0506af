"""The scheduler, story by story: failures, tries and the breaker."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from gpusched.core.events import (
    BatchFinished,
    BatchHeld,
    BatchReleased,
    ChangeRequested,
    WindowMoved,
)
from gpusched.core.failures import MAX_LOSSES
from gpusched.core.model import Limits, Slot
from gpusched.core.states import (
    Failed,
    Failure,
    FailureKind,
    Finished,
    Lost,
    Queued,
    Starting,
)
from tests.core.stories import ONCE, RELEASE, RETRY, A, B, names
from tests.core.support import Driver, batch, cpu, failure, key, label

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
