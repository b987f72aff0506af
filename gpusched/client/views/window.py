"""One window as a view shows it: while it holds a slot, and after it has left it."""

from __future__ import annotations

from typing import Any

import msgspec

from gpusched.core.events import WindowMoved
from gpusched.core.states import (
    Active,
    Cancelled,
    Failed,
    Failure,
    Finished,
    Lost,
    Outcome,
    Running,
    Succeeded,
    TimedOut,
)
from gpusched.core.statuses import name_of, result_of


class RunningWindow(msgspec.Struct, kw_only=True):
    """A window that holds a slot."""

    label: str
    #: index; below zero: it waits on its node for another window to end
    slot: int
    device: str
    node: str = ""
    attempt: int
    #: the phase that it reported last, or the name of its state
    phase: str
    #: boosting round and their planned number, 0 where there is none
    round: int = 0
    rounds: int = 0
    #: monotonic instant at which it was placed
    since: float


class FinishedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A window that was trained, or has failed, or was stopped."""

    label: str
    #: name of the outcome
    outcome: str
    #: why it is not trained; empty if it is
    reason: str
    #: kind of the last failure, or None
    kind: str | None
    attempts: int
    #: of the last attempt, slot included
    seconds: float
    slot: int | None
    device: str | None
    node: str = ""
    metrics: dict[str, Any] | None = None
    #: as in `gpusched.core.states.Failure`
    source_line: str = ""


def _failure(outcome: Outcome) -> Failure | None:
    return outcome.failure if isinstance(outcome, Failed | Lost) else None


def ended_window(update: WindowMoved, seconds: float | None = None) -> FinishedWindow:
    """A window that has left its slot for good, after `seconds` there: None where its placement was not seen.

    One whose result is missed at the end has left it long before.
    """
    old, new = update.old, update.new
    assert isinstance(new, Finished)
    outcome, failure = new.outcome, _failure(new.outcome)
    slot = old.slot if isinstance(old, Active) else None
    return FinishedWindow(
        label=update.key.label,
        outcome=name_of(outcome),
        reason="" if isinstance(outcome, Succeeded | Cancelled) else failure.message if failure else update.reason,
        kind=failure.kind if failure else "timed_out" if isinstance(outcome, TimedOut) else None,
        attempts=new.attempts,
        seconds=_seconds(update, outcome) if seconds is None else seconds,
        slot=slot.number if slot else None,
        device=slot.device_id if slot else None,
        node=slot.node if slot else "",
        metrics=None if (result := result_of(new)) is None else result.metrics,
        source_line=failure.source_line if failure else "",
    )


def _seconds(update: WindowMoved, outcome: Outcome) -> float:
    """Wall time on the slot; 0 if the window's end does not tell it."""
    match update.old, outcome:
        case _, TimedOut(seconds=seconds):
            return seconds
        case Running(started_at=started_at), _:
            return max(0.0, update.at - started_at)
        case _, Succeeded(result=result):
            return result.seconds
        case _:
            return 0.0
