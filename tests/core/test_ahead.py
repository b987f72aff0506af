"""Windows that are ahead: where windows are short, some wait on their node for one that ends."""

from __future__ import annotations

import pytest

from gpusched.core.commands import Launch, Withdraw
from gpusched.core.events import (
    AttemptEnded,
    ChangeRequested,
    DrainRequested,
    Event,
    NodeJoined,
    NodeLost,
    ShutdownRequested,
)
from gpusched.core.ledger import AHEAD_SLOTS, LONG_S
from gpusched.core.model import Limits
from gpusched.core.scheduler import AHEAD_TIMEOUT_S, Scheduler
from gpusched.core.states import Cancelled, Failure, Finished, Held, Queued, Starting, Stopping
from tests.core.support import Driver, batch, cpu, key, planned

A, B, C, D, E = map(key, "ABCDE")
TAKEN_BACK = Failure(kind="interrupted", message="taken back")


def quick(seconds: float = 0.5, limits: Limits | None = None, symbols: str = "ABCDE") -> Driver:
    """A node with one slot, on which A has succeeded: B is launched, and C ahead of its end where that was quick."""
    made = Driver()
    made.scheduler = Scheduler()  # without this machine
    made.send(NodeJoined(host="n1", devices=(cpu(1, host="n1"),)))
    made.submit(batch(limits=limits or Limits()), [planned(symbol, rows=100) for symbol in symbols])
    return made.start(A).wait(seconds).end(A)


def ahead(made: Driver) -> list[str]:
    return [c.key.label[0] for c in made.commands if isinstance(c, Launch) and c.at_once]


def withdrawn(made: Driver) -> list[str]:
    return [c.key.label[0] for c in made.commands if isinstance(c, Withdraw)]


def take_back(made: Driver) -> None:
    made.send(AttemptEnded(key=C, attempt=1, ending=TAKEN_BACK, launched=False))


def test_a_quick_window_lets_the_next_one_wait_on_its_node() -> None:
    made = quick()
    assert made.launched == ["B", "C"]
    assert [c.at_once for c in made.commands if isinstance(c, Launch)] == [0, 1], "one ends in half a second"
    made.start(B).wait(0.5).end(B)
    assert ahead(made) == ["D"], "C has started there"


def test_the_more_wait_the_shorter_windows_are() -> None:
    assert ahead(quick(0.01)) == ["C", "D", "E"]
    assert ahead(quick(LONG_S)) == []
    assert len(ahead(quick(0.01, symbols="ABCDEFGHIJKLMN"))) == AHEAD_SLOTS == 8, "the fewer, the more messages"


def test_nothing_is_ahead_on_this_machine() -> None:
    made = Driver(cpu(1)).submit(batch(), [planned(symbol, rows=100) for symbol in "ABC"])
    made.start(A).wait(0.1).end(A)
    assert made.launched == ["B"]


def test_a_free_slot_comes_before_one_that_is_waited_for() -> None:
    made = quick()
    made.send(NodeJoined(host="n2", devices=(cpu(2, host="n2"),)))
    assert [(c.slot.device_id, c.at_once) for c in made.commands if isinstance(c, Launch)] == [("cpu@n2", 0)] * 2


@pytest.mark.parametrize(
    "event",
    [
        ChangeRequested(verb="hold", batch_id="b"),
        DrainRequested(device_id="cpu@n1"),
        ShutdownRequested(mode="drain"),
    ],
)
def test_what_is_to_wait_is_taken_back_from_its_node(event: Event) -> None:
    made = quick()
    made.send(event)
    assert withdrawn(made) == ["C"]
    take_back(made)
    assert made.state(C) == Queued(attempt=2)
    assert isinstance(made.state(B), Starting)


def test_a_cancelled_window_is_taken_back_from_its_node() -> None:
    made = quick()
    made.send(ChangeRequested(verb="cancel", batch_id="b", label=C.label))
    assert withdrawn(made) == ["C"]
    assert isinstance(made.state(C), Stopping)
    take_back(made)
    assert made.state(C) == Finished(attempts=1, outcome=Cancelled())


def test_one_that_has_started_meanwhile_is_ended_by_a_signal() -> None:
    made = quick()
    made.send(ChangeRequested(verb="cancel", batch_id="b", label=C.label)).start(C)
    assert made.terminated == [(C, 1)]


def test_a_window_does_not_wait_for_ever_behind_a_long_one() -> None:
    made = quick().start(B)
    made.wait(AHEAD_TIMEOUT_S)
    assert withdrawn(made) == ["C"]
    take_back(made)
    assert made.state(C) == Starting(attempt=2, slot=made.state(C).slot)  # type: ignore[union-attr]


def test_a_lost_node_costs_a_window_that_is_ahead_nothing() -> None:
    made = quick(limits=Limits(max_attempts=1))
    made.send(NodeLost(host="n1", reason="cut"))
    assert made.state(C) == Queued(attempt=2)
    entry = made.scheduler._books.batches["b"].entries[C.label]
    assert (entry.failures, entry.losses) == (0, 0)


def test_a_held_window_may_be_held_again_once_it_is_back() -> None:
    made = quick()
    made.send(ChangeRequested(verb="hold", batch_id="b"))
    take_back(made)
    made.send(ChangeRequested(verb="hold", batch_id="b", label=C.label))
    assert made.state(C) == Held(attempt=2)
