"""The windows that a verb applies to, and the errors for changes that are impossible."""

from __future__ import annotations

from gpusched.core import lifecycle
from gpusched.core.requests import RETRIABLE
from gpusched.core.states import Finished, Held, Queued, State
from gpusched.errors import InputError
from gpusched.protocol import Verb


class TermsOfAWindow(InputError):
    problem = "limits, workers and priority are those of a whole batch"
    remedy = "name the batch alone: `gpusched {verb} {batch} --set …`"


class NothingToAlter(InputError):
    problem = "batch {batch} is finished, and none of its windows would run on other terms"
    remedy = "submit it again with them: what is finished and unchanged is reused"


#: statuses of the windows that a verb applies to
APPLIES_TO: dict[Verb, tuple[str, ...]] = {
    "cancel": ("queued", "held", "starting", "running"),
    "hold": ("queued",),
    "release": ("held",),
    "retry": ("failed", "timed_out", "cancelled", "lost"),
    "alter": ("queued", "held", "starting", "running", "stopping"),
}


def applies(verb: Verb, state: State) -> bool:
    match verb:
        case "cancel":
            return lifecycle.allows(state, "cancelled") or lifecycle.allows(state, "stopped")
        case "hold":
            return isinstance(state, Queued)
        case "release":
            return isinstance(state, Held)
        case "retry":
            return isinstance(state, Finished) and isinstance(state.outcome, RETRIABLE)
        case "alter":
            return not isinstance(state, Finished)
