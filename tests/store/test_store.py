"""Records and queries."""

from __future__ import annotations

import time

import msgspec
import pytest

from gpusched.core.estimates import Estimate
from gpusched.core.events import (
    BatchAltered,
    BatchFinished,
    BatchHeld,
    BatchReleased,
    BatchReopened,
    DeviceChanged,
    Record,
    WindowMoved,
)
from gpusched.core.model import DataNote, DataNotes, HoldReason, WindowKey
from gpusched.core.samples import Sample
from gpusched.core.states import (
    Cancelled,
    Failed,
    Failure,
    Finished,
    Held,
    Queued,
    Reused,
    Running,
    Starting,
    State,
    Stopping,
    Succeeded,
    TimedOut,
)
from gpusched.core.terms import with_terms
from gpusched.protocol import AttemptLine, BatchStatus, StoryLine
from gpusched.store.learned import peek_learned
from gpusched.store.store import DeviceRow, Store
from tests.store.samples import (
    FAILURE,
    RESULT,
    SLOT,
    USAGE,
    accepted,
    assert_counted,
    batch,
    key,
    moved,
    plan,
    run,
)


def states(store: Store, batch_id: str = "b") -> list[State]:
    return [state for _, state in store.states(batch_id)]


# -- histories ---------------------------------------------------------------------------------------------------------


def test_the_history_of_a_batch_goes_with_it(store: Store) -> None:
    sample = Sample(
        device_id="GPU-0",
        at=1.0,
        seconds=2.0,
        readings=2,
        utilisation=0.5,
        memory_used_bytes=None,
        memory_total_bytes=None,
        power_w=99.0,
        temperature_c=None,
    )
    store.record([accepted("b", 1)], histories={"b": [sample], "unknown": [sample]})
    assert store.history("b") == [sample]
    store.record([], histories={"b": [sample, sample]})
    assert store.history("b") == [sample, sample]
    store.record([accepted("b", 1)])
    assert store.history("b") == store.history("unknown") == []


# -- batches -----------------------------------------------------------------------------------------------------------


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.batches() == []
    assert list(store.unfinished()) == []
    assert store.batch("b") is None
    assert store.accepted("b") is None
    assert store.window(key()) is None
    assert not any([store.story(key()), store.attempts(key()), store.devices(), store.learned()])
    assert list(store.windows("b")) == list(store.finished_windows("b")) == []


def test_an_accepted_batch(store: Store) -> None:
    store.record([accepted("b", 3, at=5.0)])
    row = BatchStatus(
        id="b",
        output_dir="/out/b",
        submitted_at=5.0,
        state="open",
        held_reason=None,
        finished_at=None,
        counts={"queued": 3},
        constants=0,
    )
    assert store.batches() == [row]
    assert store.batch("b") == row
    assert store.accepted("b") == batch("b", 5.0)
    (recovered,) = store.unfinished()
    assert recovered.batch == batch("b", 5.0)
    assert recovered.windows == tuple((plan(number), Queued()) for number in range(3))
    assert recovered.held is None


def test_a_batch_keeps_its_owner(store: Store) -> None:
    record = accepted("theirs", 1)
    store.record([msgspec.structs.replace(record, batch=msgspec.structs.replace(record.batch, owner=1000))])
    store.record([accepted("own", 1)])
    assert [row.owner for row in store.batches()] == [1000, None]


def test_models_that_predict_a_constant_are_counted(store: Store) -> None:
    def counted(batch_id: str) -> int:
        row = store.batch(batch_id)
        assert row is not None
        return row.constants

    constant = msgspec.structs.replace(RESULT, constant=True)
    store.record([accepted("b", 3), *run(key(0)), *run(key(1), ending=constant), *run(key(2), ending=constant)])
    assert counted("b") == 2
    ended = Finished(attempts=1, outcome=Succeeded(result=constant))
    store.record([moved(key(2), ended, Queued(attempt=2)), *run(key(2), attempt=2)])
    assert counted("b") == 1
    store.record([accepted("again", 3, state=Finished(attempts=0, outcome=Reused(result=constant)))])
    assert counted("again") == 3


@pytest.mark.parametrize("turn", [1, 2, 3, 5, 100])
def test_windows_are_counted_by_status_however_their_moves_fall_into_turns(store: Store, turn: int) -> None:
    ended = Finished(attempts=1, outcome=Succeeded(result=RESULT))
    records: list[Record] = [accepted("a", 3), accepted("b", 4)]
    records += [*run(key(0, "a")), *run(key(0), ending=FAILURE), *run(key(0), attempt=2), *run(key(1))]
    records += [moved(key(1), ended, Queued(attempt=2)), *run(key(1), attempt=2, ending=FAILURE)]
    records += [*run(key(2))[:1], *run(key(3))[:2], moved(key(1, "a"), Queued(), Held())]
    for first in range(0, len(records), turn):
        store.record(records[first : first + turn])
        assert_counted(store)
    assert store.batches()[1].counts == {"queued": 1, "starting": 1, "running": 1, "succeeded": 1}


def test_batches_come_in_the_order_of_acceptance(store: Store) -> None:
    store.record([accepted(name, 1) for name in "cab"])
    assert [row.id for row in store.batches()] == list("cab")
    assert [recovered.batch.id for recovered in store.unfinished()] == list("cab")


def test_a_batch_without_windows(store: Store) -> None:
    store.record([accepted("b", 0)])
    assert store.batches()[0].counts == {}
    assert next(store.unfinished()).windows == ()


def test_the_states_of_a_batch(store: Store) -> None:
    def row() -> BatchStatus:
        found = store.batch("b")
        assert found is not None
        return found

    store.record([accepted("b", 1)])
    store.record([BatchHeld(batch_id="b", reason="ten failures", kind="breaker", at=2.0)])
    assert (row().state, row().held_reason) == ("held", "ten failures")
    assert next(store.unfinished()).held == HoldReason(kind="breaker", text="ten failures")
    store.record([BatchReleased(batch_id="b", at=3.0)])
    assert (row().state, row().held_reason) == ("open", None)
    store.record([BatchFinished(batch_id="b", at=4.0)])
    assert (row().state, row().finished_at) == ("finished", 4.0)
    assert list(store.unfinished()) == []
    store.record([BatchReopened(batch_id="b", at=5.0)])
    assert (row().state, row().finished_at) == ("open", None)
    assert len(list(store.unfinished())) == 1


def test_a_batch_that_is_accepted_again_begins_anew(store: Store) -> None:
    store.record([accepted("a", 1), accepted("b", 3), *run(key(0)), BatchHeld(batch_id="b", reason="x", at=1.0)])
    store.record([BatchFinished(batch_id="b", at=2.0)])
    store.record([accepted("b", 2, at=300.0)])
    row = store.batch("b")
    assert row is not None
    assert (row.state, row.counts, row.submitted_at) == ("open", {"queued": 2}, 300.0)
    assert not store.story(key(0))
    assert not store.attempts(key(0))
    assert store.window(key(2)) is None
    assert [r.id for r in store.batches()] == ["a", "b"]


# -- windows -----------------------------------------------------------------------------------------------------------


def test_the_life_of_a_window(store: Store) -> None:
    store.record([accepted()])
    placed, started, ended = run(key(0))
    store.record([placed])
    attempt = AttemptLine(
        attempt=1,
        slot=SLOT,
        placed_at=101.0,
        pid=None,
        started_at=None,
        ended_at=None,
        ending=None,
        message=None,
        traceback=None,
        usage=None,
    )
    assert store.attempts(key(0)) == [attempt]
    row = store.window(key(0))
    assert row is not None
    assert (row.plan, row.state, row.attempts) == (plan(0), placed.new, (attempt,))
    assert (row.window.key, row.window.status, row.window.moved_at) == (key(0), "starting", 101.0)
    store.record([started])
    attempt = msgspec.structs.replace(attempt, pid=4001, started_at=101.5)
    assert store.attempts(key(0)) == [attempt]
    store.record([ended])
    attempt = msgspec.structs.replace(attempt, ended_at=102.0, ending="result", usage=USAGE)
    assert store.attempts(key(0)) == [attempt]
    row = store.window(key(0))
    assert row is not None
    assert (row.state, row.window.moved_at, row.attempts) == (ended.new, 102.0, (attempt,))
    assert store.story(key(0)) == [
        StoryLine(at=101.0, old="queued", new="starting", attempt=1, reason="placed"),
        StoryLine(at=101.5, old="starting", new="running", attempt=1, reason="started"),
        StoryLine(at=102.0, old="running", new="succeeded", attempt=1, reason="ended"),
    ]
    assert store.story(key(1)) == []


def test_every_attempt_is_kept(store: Store) -> None:
    store.record([accepted()])
    store.record(run(key(0), attempt=1, ending=FAILURE))
    queued = next(store.windows("b"))
    assert (queued.attempts, queued.slot, queued.ended_at) == (1, None, None)
    store.record(run(key(0), attempt=2, at=110.0))
    first, second = store.attempts(key(0))
    assert (first.attempt, first.ending, first.message, first.traceback) == (
        1,
        "raised",
        FAILURE.message,
        FAILURE.traceback,
    )
    assert (second.attempt, second.ending, second.message, second.pid) == (2, "result", None, 4002)
    line = next(store.windows("b"))
    assert (line.attempts, line.pid, line.slot) == (2, second.pid, second.slot)


def test_a_window_that_is_stopped_before_it_has_a_process(store: Store) -> None:
    store.record([accepted()])
    starting = Starting(attempt=1, slot=SLOT)
    stopping = Stopping(attempt=1, slot=SLOT, pid=None, reason="cancelled")
    confirmed = Stopping(attempt=1, slot=SLOT, pid=77, reason="cancelled")
    cancelled = Finished(attempts=1, outcome=Cancelled())
    store.record([moved(key(), Queued(), starting), moved(key(), starting, stopping)])
    assert store.attempts(key())[0].pid is None
    store.record([moved(key(), stopping, confirmed, at=102.0)])
    assert (store.attempts(key())[0].pid, store.attempts(key())[0].started_at) == (77, 102.0)
    again = Stopping(attempt=1, slot=SLOT, pid=77, reason="interrupted")
    store.record([moved(key(), confirmed, again, at=103.0), moved(key(), again, cancelled, at=104.0)])
    (attempt,) = store.attempts(key())
    assert (attempt.started_at, attempt.ended_at, attempt.ending, attempt.usage) == (102.0, 104.0, None, None)


def test_stopping_a_running_window_keeps_its_start(store: Store) -> None:
    store.record([accepted()])
    placed, started, _ = run(key())
    stopping = Stopping(attempt=1, slot=SLOT, pid=4001, reason="timed_out")
    failure = Failure(kind="timed_out", message="3600 s")
    done = Finished(attempts=1, outcome=TimedOut(seconds=3600.0))
    store.record([placed, started, moved(key(), started.new, stopping, at=200.0)])
    store.record([moved(key(), stopping, done, at=201.0, ending=failure)])
    (attempt,) = store.attempts(key())
    assert (attempt.started_at, attempt.ended_at, attempt.ending) == (101.5, 201.0, "timed_out")


def test_a_retried_window(store: Store) -> None:
    store.record([accepted("b", 1), *run(key(), ending=FAILURE)])
    failed = Finished(attempts=1, outcome=Failed(failure=FAILURE))
    store.record([moved(key(), Queued(attempt=2), failed)])
    assert [row.key for row in store.finished_windows("b")] == [key()]
    store.record([moved(key(), failed, Queued(attempt=2), reason="retried")])
    assert list(store.finished_windows("b")) == []
    assert store.batches()[0].counts == {"queued": 1}


def test_other_terms_are_part_of_every_story_that_goes_on(store: Store) -> None:
    store.record([accepted(), *run(key(0))])
    asked = store.accepted("b")
    assert asked is not None
    spec = with_terms(asked.spec, {"timeout_s": 5.0})
    altered = msgspec.structs.replace(asked, spec=spec)
    store.record([BatchAltered(batch=altered, changes=("timeout_s 100 → 5", "priority 0 → 1"), at=50.0)])
    assert store.accepted("b") == altered
    assert [line.new for line in store.story(key(0))][-1] == "succeeded"
    store.record(run(key(1)))
    first, *_ = lines = store.story(key(1))
    assert (first.old, first.new, first.attempt) == ("queued", "queued", 1)
    assert (first.at, first.reason) == (50.0, "timeout_s 100 → 5; priority 0 → 1")
    assert [line.new for line in lines] == ["queued", "starting", "running", "succeeded"]
    store.record([accepted()])
    assert store.story(key(1)) == []


def test_a_move_of_an_unknown_window_is_refused_whole(store: Store) -> None:
    store.record([accepted()])
    with pytest.raises(LookupError, match="b/X: the store has no such window"):
        store.record([*run(key(0)), moved(WindowKey("b", "X"), Queued(), Held())])
    assert store.story(key(0)) == []
    assert states(store) == [Queued()] * 3
    store.record(run(key(0)))
    assert len(store.story(key(0))) == 3


def test_what_is_known_of_the_data_is_kept_with_the_batch(store: Store) -> None:
    notes: DataNotes = {
        "M&M": (DataNote("jumps", "÷ 4"), DataNote("gaps", "1 day")),
        "A": (DataNote("gaps", "2 days"),),
    }
    record = accepted("b", 1)
    store.record([accepted("a", 1), msgspec.structs.replace(record, notes=notes)])
    assert list(store.notes("b").items()) == list(notes.items())
    assert store.notes("b", symbol="A") == {"A": notes["A"]}
    assert store.notes("a") == store.notes("nosuch") == store.notes("b", symbol="X") == {}
    store.record([accepted("b", 1)])
    assert store.notes("b") == {}, "the new round found nothing"


def test_nothing_to_record(store: Store) -> None:
    store.record([])


# -- devices, estimates ------------------------------------------------------------------------------------------------


def test_devices_keep_their_last_change(store: Store) -> None:
    store.record([DeviceChanged(device_id="GPU-1", health="draining", reason="asked to", at=1.0)])
    store.record([DeviceChanged(device_id="GPU-0", health="quarantined", reason="XID 79", at=2.0)])
    store.record([DeviceChanged(device_id="GPU-1", health="open", reason="asked to", at=3.0)])
    assert store.devices() == [
        DeviceRow(id="GPU-0", health="quarantined", reason="XID 79", at=2.0),
        DeviceRow(id="GPU-1", health="open", reason="asked to", at=3.0),
    ]


def test_estimates_are_kept(store: Store) -> None:
    first = Estimate(workload="w", device_type="cpu", bucket=7, count=1, rows_mean=100, seconds_mean=0.5)
    other = msgspec.structs.replace(first, device_type="gpu", memory_count=1, memory_mean=5e8, memory_max=500_000_000)
    store.record((), [first])
    later = msgspec.structs.replace(first, count=2, seconds_max=0.75)
    store.record([accepted()], learned=[later, other])
    assert store.learned() == [later, other]


def test_the_points_of_sweeps_are_kept_and_the_earliest_are_forgotten(store: Store) -> None:
    def point(number: int) -> Estimate:
        return Estimate(workload=f"w x={number}", device_type="cpu", bucket=7, count=1, rows_mean=100, seconds_mean=0.5)

    store.record((), map(point, range(20_000)))
    again = msgspec.structs.replace(point(0), count=2)
    store.record((), [again])
    assert store.learned() == [*map(point, range(1, 20_000)), again]
    assert peek_learned(store.path) == store.learned()
    store.record((), map(point, range(20_000, 21_000)))
    kept = [estimate.workload for estimate in store.learned()]
    assert 20_000 <= len(kept) < 21_000
    assert "w x=0" in kept
    assert "w x=1" not in kept


# -- cost --------------------------------------------------------------------------------------------------------------


def test_cost_of_a_move_and_of_a_listing(store: Store) -> None:
    """Budgets with a wide margin, for busy machines: 60 µs a move, 50 ms a listing."""
    store.record([accepted("b", 20_000)])
    moves: list[WindowMoved] = [move for number in range(1000) for move in run(key(number))]
    began = time.thread_time()
    for start in range(0, len(moves), 100):
        store.record(moves[start : start + 100])
    assert (time.thread_time() - began) / len(moves) < 300e-6
    began = time.thread_time()
    store.batches()
    assert time.thread_time() - began < 0.05


def test_running_state_is_what_it_was(store: Store) -> None:
    store.record([accepted("b", 1), *run(key())[:2]])
    ((_, state),) = next(store.unfinished()).windows
    assert state == Running(attempt=1, slot=SLOT, pid=4001, started_at=101.5)
