"""The states of a window, its outcomes, and how its attempts end.

A state carries exactly the data that is true in it, so that no field's meaning depends on another's.

Where every window passes, states are told apart by their types themselves, `type(state) is Finished` and `is_active`:
`isinstance` asks the metaclass of msgspec, which takes five to ten times as long. All of them are final.
"""

from __future__ import annotations

from typing import Literal, TypeGuard, final, get_args

import msgspec

from gpusched.core.model import Slot, WindowResult

# -- how an attempt ends -----------------------------------------------------------------------------------------------

FailureKind = Literal[
    "no_data",
    "bad_data",
    "bad_parameters",
    "permanent",
    "raised",
    "exited",
    "killed",
    "crashed",
    "protocol",
    "memory",
    "host_memory",
    "device_memory",
    "device_mismatch",
    "device_lost",
    "node_lost",
    "launch_refused",
    "launcher_lost",
    "interrupted",
    "timed_out",
    "missing",
]


@final
class Failure(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="failure"):
    """Why an attempt has no result."""

    kind: FailureKind
    message: str
    traceback: str = ""
    #: for programs: the same for failures of one kind that have one cause, whatever their messages say: the name of the
    #: exception's type or of the signal
    cause: str = ""
    #: type and line of the exception that was raised; empty: there was none, or another attempt can pass that line
    place: str = ""
    #: for people: file:line of the exception, where possible the deepest outside of libraries; empty: none
    source_line: str = ""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """The resources that an attempt used, as the kernel and the driver account for them."""

    cpu_seconds: float = 0.0
    #: peak resident memory, including the part shared with the launcher
    peak_memory_bytes: int = 0
    #: peak GPU memory, by the driver's account or the readings; None: neither has it
    device_memory_bytes: int | None = None
    #: time during which its kernels were executing on a GPU; None: the driver does not count that
    device_seconds: float | None = None
    #: peak memory without the part shared with the launcher; None: not known
    own_memory_bytes: int | None = None


Ending = WindowResult | Failure


# -- states ------------------------------------------------------------------------------------------------------------

StopReason = Literal["cancelled", "timed_out", "interrupted"]


@final
class Queued(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="queued"):
    """Waits for a slot; `attempt` is the number that its next launch will have."""

    attempt: int = 1


@final
class Held(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="held"):
    """Waits for a release."""

    attempt: int = 1


@final
class Starting(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="starting"):
    """Holds a slot; its process is being forked."""

    attempt: int
    slot: Slot
    #: it was ahead on its node when it was to be held: it is held once it is back, unless it has started
    to_hold: bool = False


@final
class Running(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="running"):
    attempt: int
    slot: Slot
    pid: int
    started_at: float


@final
class Stopping(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="stopping"):
    """Told to end, still holds its slot. `pid` is None until the fork is confirmed."""

    attempt: int
    slot: Slot
    pid: int | None
    reason: StopReason
    #: as of one that starts
    to_hold: bool = False


@final
class Succeeded(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="succeeded"):
    result: WindowResult


@final
class Reused(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="reused"):
    result: WindowResult


@final
class Skipped(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="skipped"):
    reason: str


@final
class Failed(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="failed"):
    failure: Failure


@final
class TimedOut(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="timed_out"):
    seconds: float


@final
class Cancelled(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="cancelled"):
    pass


@final
class Lost(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="lost"):
    """Given up after its processes kept disappearing by no fault of its own, or finished but its result is gone."""

    failure: Failure


Outcome = Succeeded | Reused | Skipped | Failed | TimedOut | Cancelled | Lost


@final
class Finished(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="finished"):
    """Finished after `attempts` launches; 0 for a window that needed none."""

    attempts: int
    outcome: Outcome


State = Queued | Held | Starting | Running | Stopping | Finished
#: states that hold a slot
Active = Starting | Running | Stopping
_ACTIVE = frozenset(get_args(Active))


def is_active(state: State) -> TypeGuard[Active]:
    """Whether a window in this state holds a slot."""
    return type(state) in _ACTIVE


def is_to_hold(state: State) -> bool:
    """Whether a window in this state is held once its attempt is over, unless it has started."""
    return (type(state) is Starting or type(state) is Stopping) and state.to_hold
