"""The scheduler, story by story: shutdown, recovery, and results that are missed."""

from __future__ import annotations

import msgspec
import pytest

from gpusched.core.commands import CheckResults, Command
from gpusched.core.events import (
    AttemptEnded,
    BatchAccepted,
    BatchFinished,
    BatchHeld,
    BatchRecovered,
    BatchReopened,
    BatchSubmitted,
    Event,
    NodeJoined,
    Record,
    ResultsChecked,
    ShutdownRequested,
    WindowMoved,
)
from gpusched.core.failures import MAX_LOSSES
from gpusched.core.model import HoldReason, Instant, Limits, Slot
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import (
    Cancelled,
    Failed,
    Finished,
    Lost,
    Queued,
    Running,
    Starting,
    State,
    Stopping,
    Succeeded,
)
from tests.core.stories import ONCE, RELEASE, RETRY, A, B
from tests.core.support import RESULT, Driver, batch, cpu, failure, key, planned

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
