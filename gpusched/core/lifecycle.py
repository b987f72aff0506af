"""The life of a window: a table of the moves that each state allows.

The table is the only definition of the states' order. `check` refuses any other move, with the window's story, and
changes nothing; `diagram` draws the table for docs/architecture.md, so that the picture cannot disagree with the code.

A window is `queued` until it is placed. From `starting` on it holds a slot, and every way out of `starting`, `running`
and `stopping` goes through `ended`, which is reported when its whole process group is gone: only then is the slot free.
A hold of one that is ahead on its node is a wish until it is back, and `held` and `released` leave it where it is.
`missed` turns a finished window whose result is gone at the end of its batch into a lost one. `stuck` reports that a
process was killed but does not die; the state stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gpusched.core.states import State
from gpusched.core.statuses import StateName, name_of

Move = Literal["placed", "started", "ended", "stopped", "held", "released", "cancelled", "retried", "missed", "stuck"]

#: state → move → states to which the move may lead
TRANSITIONS: dict[StateName, dict[Move, frozenset[StateName]]] = {
    "queued": {
        "placed": frozenset({"starting"}),
        "held": frozenset({"held"}),
        "cancelled": frozenset({"finished"}),
    },
    "held": {
        "released": frozenset({"queued"}),
        "cancelled": frozenset({"finished"}),
    },
    "starting": {
        "held": frozenset({"starting"}),
        "released": frozenset({"starting"}),
        "started": frozenset({"running"}),
        "stopped": frozenset({"stopping"}),
        "ended": frozenset({"queued", "finished"}),
    },
    "running": {
        "stopped": frozenset({"stopping"}),
        "stuck": frozenset({"running"}),
        "ended": frozenset({"queued", "finished"}),
    },
    "stopping": {
        "released": frozenset({"stopping"}),
        "started": frozenset({"stopping"}),
        "stopped": frozenset({"stopping"}),
        "stuck": frozenset({"stopping"}),
        "ended": frozenset({"queued", "finished"}),
    },
    "finished": {
        "retried": frozenset({"queued"}),
        "missed": frozenset({"finished"}),
    },
}

#: the table as a set, for `check`
_MOVES = {(old, move, new) for old, moves in TRANSITIONS.items() for move, news in moves.items() for new in news}


class IllegalMove(AssertionError):
    """A move that is not in the table: a bug in the scheduler, never the user's fault."""

    def __init__(self, window: str, old: State, move: Move, new: State, story: Sequence[str]) -> None:
        lines = "".join(f"\n    {line}" for line in story)
        super().__init__(
            f"{window}: {move} cannot lead from {name_of(old)} to {name_of(new)}; its story:{lines or ' (none)'}"
        )


def check(window: object, old: State, move: Move, new: State, story: Sequence[str]) -> None:
    """Raise `IllegalMove` unless the table has `old` —move→ `new`. `window`: its name is shown."""
    if (name_of(old), move, name_of(new)) not in _MOVES:
        raise IllegalMove(str(window), old, move, new, story)


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> queued: submitted"]
    for old, moves in TRANSITIONS.items():
        targets: dict[StateName, list[str]] = {}
        for move, news in moves.items():
            for new in sorted(news):
                targets.setdefault(new, []).append(move)
        lines += [f"    {old} --> {new}: {' · '.join(moves)}" for new, moves in targets.items()]
    lines.append("    finished --> [*]")
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())  # noqa: T201
