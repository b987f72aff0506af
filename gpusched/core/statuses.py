"""The names of states and outcomes, the groups that they form, and the verbs that apply to them.

A window's *status* is the name of its state, or of its outcome once it is finished: its name on disk, on the wire and
on screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from gpusched.core.model import WindowResult
from gpusched.core.states import Failed, Finished, Lost, Outcome, Reused, Skipped, State, Succeeded, TimedOut

StateName = Literal["queued", "held", "starting", "running", "stopping", "finished"]
#: "waiting": for other batches, or for an instant; it has no windows yet
BatchState = Literal["waiting", "open", "held", "finished"]

#: statuses of windows that wait
WAITING = ("queued", "held")
#: statuses of windows that hold a slot
ACTIVE = ("starting", "running", "stopping")
UNFINISHED = (*WAITING, *ACTIVE)
#: outcomes in the order in which they are counted and shown
OUTCOMES = ("succeeded", "reused", "skipped", "failed", "timed_out", "cancelled", "lost")
#: outcomes that count as failed in totals
FAILURES = ("failed", "timed_out", "lost")
STATUSES = (*UNFINISHED, *OUTCOMES)
#: the reverse of urgency: statuses that people look for come first
BY_URGENCY = (
    "failed", "timed_out", "lost", "stopping", "running", "starting", "held", "queued",
    "cancelled", "skipped", "succeeded", "reused",
)  # fmt: skip

#: the changes that people can ask for
WindowVerb = Literal["cancel", "hold", "release", "retry"]
#: `alter` changes the terms of a batch
Verb = Literal[WindowVerb, "alter"]
#: statuses of the windows that a verb applies to
APPLIES_TO: Mapping[Verb, tuple[str, ...]] = {
    "cancel": UNFINISHED,
    "hold": ("queued",),
    "release": ("held",),
    "retry": (*FAILURES, "cancelled"),
    "alter": UNFINISHED,
}
#: the effect of a verb on windows, as a past participle
PARTICIPLES: Mapping[WindowVerb, str] = {
    "cancel": "cancelled",
    "hold": "held",
    "release": "released",
    "retry": "queued again",
}


def name_of(state: State | Outcome) -> str:
    """The tag of a state or an outcome."""
    return _TAGS[type(state)]


_TAGS: Mapping[type[Any], str] = {
    kind: str(kind.__struct_config__.tag) for union in (State, Outcome) for kind in get_args(union)
}


def status_of(state: State) -> str:
    """The status of a window in this state."""
    return name_of(state.outcome) if type(state) is Finished else name_of(state)


def attempt_of(state: State) -> int:
    """The number of a window's attempt: of its last one, once it is finished."""
    return state.attempts if type(state) is Finished else state.attempt


def applies(verb: Verb, state: State) -> bool:
    """Whether a verb applies to a window in this state."""
    return status_of(state) in APPLIES_TO[verb]


def result_of(state: State) -> WindowResult | None:
    """The result of a window that is finished with artifacts; None for any other."""
    if type(state) is Finished and (type(state.outcome) is Succeeded or type(state.outcome) is Reused):
        return state.outcome.result
    return None


def reason_of(outcome: Outcome) -> str | None:
    """The reason why a window was skipped or has failed; None if it was not and has not."""
    match outcome:
        case Succeeded() | Reused():  # most of them
            return None
        case Skipped(reason=reason):
            return reason
        case Failed(failure=failure) | Lost(failure=failure):
            return f"{failure.kind}: {failure.message}"
        case TimedOut(seconds=seconds):
            return f"stopped after {seconds:g} s"
        case _:
            return None


def tally(counts: Mapping[str, int], statuses: tuple[str, ...]) -> int:
    """The number of windows in any of these statuses. `counts`: windows by status; zeros may be left out."""
    return sum(counts.get(status, 0) for status in statuses)


def totals(counts: Mapping[str, int]) -> dict[str, int]:
    """A batch's windows as its JSON counts them: those that timed out or were lost have failed."""
    return {
        "total": sum(counts.values()),
        "succeeded": counts.get("succeeded", 0),
        "reused": counts.get("reused", 0),
        "skipped": counts.get("skipped", 0),
        "failed": tally(counts, FAILURES),
        "cancelled": counts.get("cancelled", 0),
    }


def words(status: str) -> str:
    """A status in words: `timed out`."""
    return status.replace("_", " ")
