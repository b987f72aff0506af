"""The table of moves, cell by cell."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from gpusched.core import lifecycle
from gpusched.core.lifecycle import TRANSITIONS, IllegalMove, Move
from gpusched.core.model import Slot
from gpusched.core.states import Cancelled, Finished, Held, Queued, Running, Starting, State, Stopping, is_active
from gpusched.core.statuses import ACTIVE, StateName, name_of

SLOT = Slot(0, "cpu")
STATES: dict[StateName, State] = {
    "queued": Queued(),
    "held": Held(),
    "starting": Starting(attempt=1, slot=SLOT),
    "running": Running(attempt=1, slot=SLOT, pid=7, started_at=0.0),
    "stopping": Stopping(attempt=1, slot=SLOT, pid=7, reason="cancelled"),
    "finished": Finished(attempts=1, outcome=Cancelled()),
}
MOVES: tuple[Move, ...] = get_args(Move)
CELLS = list(itertools.product(get_args(StateName), MOVES, get_args(StateName)))
#: written by hand, so that a slip in the table is not repeated by the test that reads it
LEGAL = {
    ("queued", "placed", "starting"),
    ("queued", "held", "held"),
    ("queued", "cancelled", "finished"),
    ("held", "released", "queued"),
    ("held", "cancelled", "finished"),
    ("starting", "held", "starting"),
    ("starting", "released", "starting"),
    ("starting", "started", "running"),
    ("starting", "stopped", "stopping"),
    ("starting", "ended", "queued"),
    ("starting", "ended", "finished"),
    ("running", "stopped", "stopping"),
    ("running", "stuck", "running"),
    ("running", "ended", "queued"),
    ("running", "ended", "finished"),
    ("stopping", "released", "stopping"),
    ("stopping", "started", "stopping"),
    ("stopping", "stopped", "stopping"),
    ("stopping", "stuck", "stopping"),
    ("stopping", "ended", "queued"),
    ("stopping", "ended", "finished"),
    ("finished", "retried", "queued"),
    ("finished", "missed", "finished"),
}
DIAGRAM = """\
stateDiagram-v2
    [*] --> queued: submitted
    queued --> starting: placed
    queued --> held: held
    queued --> finished: cancelled
    held --> queued: released
    held --> finished: cancelled
    starting --> starting: held · released
    starting --> running: started
    starting --> stopping: stopped
    starting --> finished: ended
    starting --> queued: ended
    running --> stopping: stopped
    running --> running: stuck
    running --> finished: ended
    running --> queued: ended
    stopping --> stopping: released · started · stopped · stuck
    stopping --> finished: ended
    stopping --> queued: ended
    finished --> queued: retried
    finished --> finished: missed
    finished --> [*]"""


def test_the_states_here_are_all_the_states() -> None:
    assert set(STATES) == set(get_args(StateName)) == set(TRANSITIONS)
    assert {type(state) for state in STATES.values()} == set(get_args(State))
    assert all(name_of(state) == name for name, state in STATES.items())
    assert {name for name, state in STATES.items() if is_active(state)} == set(ACTIVE)


@pytest.mark.parametrize(("old", "move", "new"), CELLS, ids="-".join)
def test_cell(old: StateName, move: Move, new: StateName) -> None:
    story = ("queued → starting: placed, on slot 0", "starting → running: started, as process 7")
    if (old, move, new) in LEGAL:
        lifecycle.check("b/w", STATES[old], move, STATES[new], story)
        return
    with pytest.raises(IllegalMove) as refused:
        lifecycle.check("b/w", STATES[old], move, STATES[new], story)
    text = str(refused.value)
    assert text.startswith(f"b/w: {move} cannot lead from {old} to {new}")
    assert all(line in text for line in story)


def test_a_refusal_without_a_story_says_so() -> None:
    with pytest.raises(IllegalMove, match=r"its story: \(none\)"):
        lifecycle.check("b/w", STATES["finished"], "placed", STATES["starting"], ())


def test_every_state_can_be_reached_and_left_for_the_end() -> None:
    edges = {(old, new) for old, _, new in LEGAL}
    reached = {"queued"}
    for _ in STATES:
        reached |= {new for old, new in edges if old in reached}
    assert reached == set(STATES)
    ends = {"finished"}
    for _ in STATES:
        ends |= {old for old, new in edges if new in ends}
    assert ends == set(STATES)


def test_a_slot_is_left_only_by_the_end_of_the_attempt() -> None:
    holding = {"starting", "running", "stopping"}
    assert {move for old, move, new in LEGAL if old in holding and new not in holding} == {"ended"}
    assert {move for old, move, new in LEGAL if old not in holding and new in holding} == {"placed"}


def test_diagram() -> None:
    assert lifecycle.diagram() == DIAGRAM
