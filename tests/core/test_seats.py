"""Windows that are ahead get the slot in which they run, and a hold reaches one that has not started."""

from __future__ import annotations

import pytest

from gpusched.core.commands import Withdraw
from gpusched.core.events import (
    AttemptEnded,
    BatchRecovered,
    ChangeRequested,
    DeviceRead,
    NodeJoined,
    NodeLost,
    ProcessStuck,
    ShutdownRequested,
    WindowMoved,
)
from gpusched.core.ledger import AHEAD_SLOTS
from gpusched.core.model import Slot
from gpusched.core.scheduler import AHEAD_TIMEOUT_S, Scheduler
from gpusched.core.states import Failure, Held, Queued, Running, Starting, Stopping
from gpusched.core.statuses import name_of
from tests.core.support import GIB, Driver, batch, cpu, gpu, key, planned, reading

A, B, C, D = map(key, "ABCD")
TAKEN_BACK = Failure(kind="interrupted", message="taken back")
#: the driver's wall clock is so much ahead of its monotonic one
WALL = 1e9
SLOT, PLACE = Slot(0, "cpu@n1", "n1"), Slot(-AHEAD_SLOTS, "cpu@n1", "n1")


def quick(seconds: float = 0.5) -> Driver:
    """A node with one slot, on which A has succeeded: B runs, and C is ahead of its end."""
    made = Driver()
    made.scheduler = Scheduler()  # without this machine
    made.send(NodeJoined(host="n1", devices=(cpu(1, host="n1"),)))
    made.submit(batch(), [planned(symbol, rows=100) for symbol in "ABCDE"])
    made.start(A).wait(seconds).end(A)
    assert (made.state(B), made.state(C)) == (Starting(attempt=1, slot=SLOT), Starting(attempt=1, slot=PLACE))
    return made.start(B)


def withdrawn(made: Driver) -> list[str]:
    return [c.key.label[0] for c in made.commands if isinstance(c, Withdraw)]


def take_back(made: Driver) -> None:
    made.send(AttemptEnded(key=C, attempt=1, ending=TAKEN_BACK, launched=False))


# -- slots -------------------------------------------------------------------------------------------------------------


def test_places_have_numbers_of_their_own() -> None:
    """So the slots of all nodes are numbered without gaps, and a window that runs has the number of one of them."""
    made = quick()
    made.send(NodeJoined(host="n2", devices=(cpu(1, host="n2"),)))
    assert made.scheduler.pool.devices["cpu@n2"].slots == [Slot(1, "cpu@n2", "n2")]
    assert (SLOT.number, PLACE.number) == (0, None)
    made.send(NodeLost(host="n1", reason="cut"))
    assert sorted(made.scheduler.pool.slots) == [*range(-2 * AHEAD_SLOTS, -AHEAD_SLOTS), 1]


def test_one_that_starts_behind_another_gets_its_slot() -> None:
    made = quick().wait(0.5)
    made.end(B).start(C)
    assert made.state(C) == Running(attempt=1, slot=SLOT, pid=10, started_at=made.at + WALL)


def test_one_whose_start_is_told_before_the_end_of_the_other_waits_for_that() -> None:
    """On the node C starts when B ends, and the result of B is committed here before B has ended for the scheduler."""
    made = quick().wait(0.5).start(C, pid=7)
    began = made.at
    assert made.state(C) == Starting(attempt=1, slot=PLACE)
    made.wait(0.25).end(B)
    assert made.state(C) == Running(attempt=1, slot=SLOT, pid=7, started_at=began + WALL)
    assert made.scheduler.pool.hosts["n1"].pids == {7: SLOT}


def test_one_that_ends_before_the_other_is_known_to_have_ended_ran_in_its_place() -> None:
    made = quick().start(C).end(C)
    moves = [record.new for record in made.records if isinstance(record, WindowMoved) and record.key == C]
    assert list(map(name_of, moves)) == ["running", "finished"]
    assert isinstance(made.state(B), Running)


def test_one_that_stands_waits_for_a_slot_and_not_for_a_place() -> None:
    made = quick(0.01).start(C)
    made.send(AttemptEnded(key=D, attempt=1, ending=TAKEN_BACK, launched=False))
    assert isinstance(made.state(C), Starting)
    made.end(B)
    assert isinstance(made.state(C), Running)


def test_one_that_stands_is_ended_by_a_signal() -> None:
    made = quick().start(C, pid=7)
    made.send(ChangeRequested(verb="cancel", batch_id="b", label=C.label))
    assert made.state(C) == Stopping(attempt=1, slot=PLACE, pid=7, reason="cancelled")
    assert (withdrawn(made), made.terminated) == ([], [(C, 1)])


def test_one_that_stands_is_not_taken_for_one_that_does_not_start() -> None:
    made = quick().start(C)
    made.wait(AHEAD_TIMEOUT_S)
    assert isinstance(made.state(C), Running)
    assert (withdrawn(made), made.terminated) == ([], [])


def test_a_lost_node_is_a_loss_for_one_that_stands() -> None:
    made = quick().start(C)
    made.send(NodeLost(host="n1", reason="cut"))
    assert made.scheduler._books.batches["b"].entries[C.label].losses == 1


def test_one_that_stands_and_does_not_die_is_told_of() -> None:
    made = quick().start(C)
    made.send(ProcessStuck(key=C, attempt=1, reason="does not die"))
    assert isinstance(made.state(C), Running)


def test_the_memory_of_a_gpu_goes_with_the_window() -> None:
    made = Driver()
    made.scheduler = Scheduler()
    made.send(NodeJoined(host="n1", devices=(gpu(0, 1, host="n1"),)))
    made.submit(batch(), [planned(symbol, rows=100) for symbol in "ABCDE"])
    made.start(A).wait(0.5).end(A).start(B, pid=6)
    made.send(DeviceRead(reading=reading(free=GIB, total=2 * GIB, processes={6: 100})))
    made.start(C, pid=7).end(B)
    made.send(DeviceRead(reading=reading(free=GIB, total=2 * GIB, processes={7: 200})))
    assert made.scheduler.pool.peak_bytes(Slot(0, "GPU-0", "n1")) == 200
    made.scheduler.validate()


# -- holds -------------------------------------------------------------------------------------------------------------


def hold(made: Driver) -> Driver:
    return made.send(ChangeRequested(verb="hold", batch_id="b", label=C.label))


def test_a_hold_of_one_window_takes_it_back_from_its_node() -> None:
    made = quick()
    assert made.scheduler.unheld(C) == f"{C.label} waits on node n1: it is taken back, and held unless it starts before"
    hold(made)
    assert withdrawn(made) == ["C"]
    take_back(made)
    assert made.state(C) == Held(attempt=2)
    assert made.scheduler.unheld(C) == ""
    made.send(ChangeRequested(verb="release", batch_id="b", label=C.label))
    made.wait(0.5).end(B)
    assert isinstance(made.state(C), Starting), "D went ahead in its place"


def test_one_that_is_released_before_it_is_back_is_not_held() -> None:
    made = hold(quick())
    made.send(ChangeRequested(verb="release", batch_id="b", label=C.label))
    take_back(made)
    assert made.state(C) == Starting(attempt=2, slot=PLACE)


def test_a_hold_does_not_reach_one_that_starts_before_it_is_back() -> None:
    made = hold(quick()).start(C)
    assert made.scheduler.unheld(C) == f"{C.label} has started, and goes on"
    made.send(NodeLost(host="n1", reason="cut"))
    assert made.state(C) == Queued(attempt=2), "it was not held when it ran"


def test_a_node_that_is_lost_leaves_what_was_to_be_held_on_hold() -> None:
    made = hold(quick())
    made.send(NodeLost(host="n1", reason="cut"))
    assert made.state(C) == Held(attempt=2)


@pytest.mark.parametrize("stops", [False, True])
def test_a_supervisor_that_dies_leaves_what_was_to_be_held_on_hold(stops: bool) -> None:
    """It was known to the scheduler alone, and the next one ran the window."""
    made = hold(quick())
    (record,) = (record for record in made.records if isinstance(record, WindowMoved))
    assert record.reason == "held by request, unless it starts before it is back"
    assert record.new == Starting(attempt=1, slot=PLACE, to_hold=True)
    if stops:
        made.send(ShutdownRequested(mode="stop"))
    after = Driver().send(BatchRecovered(batch=batch(), windows=((planned("C"), made.state(C)),)))
    assert after.state(C) == Held(attempt=2)


def test_a_hold_is_told_once_and_taken_back_at_any_time() -> None:
    made = hold(hold(quick()))
    assert (made.records, withdrawn(made)) == ([], ["C"])
    made.send(ShutdownRequested(mode="stop")).send(ChangeRequested(verb="release", batch_id="b", label=C.label))
    assert made.state(C) == Stopping(attempt=1, slot=PLACE, pid=None, reason="interrupted")
    take_back(made)
    assert made.state(C) == Queued(attempt=2)


def test_a_hold_is_over_with_the_attempt_that_it_found() -> None:
    made = hold(quick())
    made.send(ChangeRequested(verb="cancel", batch_id="b", label=C.label))
    take_back(made)
    made.send(ChangeRequested(verb="retry", batch_id="b", label=C.label))
    made.send(NodeLost(host="n1", reason="cut"))
    assert isinstance(made.state(C), Queued)


def test_a_window_that_nobody_knows_has_nothing_to_say() -> None:
    assert quick().scheduler.unheld(key("Z")) == quick().scheduler.unheld(key("A", "other")) == ""
