"""The names of states and outcomes.

A window's *status* is the name of its state, or of its outcome once it is finished: its name on disk, on the wire and
on screen.
"""

from __future__ import annotations

from typing import Literal

from gpusched.core.states import Failed, Finished, Lost, Outcome, Reused, Skipped, State, Succeeded, TimedOut

StateName = Literal["queued", "held", "starting", "running", "stopping", "finished"]

#: outcomes in the order in which they are counted and shown
OUTCOMES = ("succeeded", "reused", "skipped", "failed", "timed_out", "cancelled", "lost")


def reason_of(outcome: Outcome) -> str | None:
    """The reason why a window was skipped or has failed; None if it was not and has not."""
    match outcome:
        case Skipped(reason=reason):
            return reason
        case Failed(failure=failure) | Lost(failure=failure):
            return f"{failure.kind}: {failure.message}"
        case TimedOut(seconds=seconds):
            return f"stopped after {seconds:g} s"
        case _:
            return None


def has_result(state: State) -> bool:
    """Whether a window is finished with artifacts."""
    return isinstance(state, Finished) and isinstance(state.outcome, Succeeded | Reused)


def name_of(state: State | Outcome) -> str:
    """The tag of a state or an outcome: its name on disk and on screen."""
    tag = type(state).__struct_config__.tag
    assert isinstance(tag, str)
    return tag
