"""Reasons why a window waits, as people are told of them."""

from __future__ import annotations

from typing import assert_never

import msgspec

from gpusched.core.states import Finished, Held, Queued, Running, Starting, State, Stopping
from gpusched.core.statuses import reason_of
from gpusched.core.wording import counted


class Hindrance(msgspec.Struct, frozen=True):
    """A circumstance other than the devices that keeps a window waiting."""

    #: `shutdown`: the daemon places nothing more; `batch`, `window`: it is held; `cancelled`: its batch is being
    #: cancelled; `backoff`: a pause after a failure; `workers`: the batch's own limit; `turn`: other batches go first;
    #: `order`: other windows of its batch go first; `store`: nothing can be launched until the store can be written
    kind: str
    text: str


class DeviceReason(msgspec.Struct, frozen=True):
    """The reason against giving a window to a device; None: there is none, and only the window's turn is to come."""

    device_id: str
    reason: str | None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a window, and if it waits, the reasons."""

    status: str
    summary: str
    hindrances: tuple[Hindrance, ...] = ()
    #: of all devices, in the order of the pool; empty unless the window is queued
    devices: tuple[DeviceReason, ...] = ()


def summary(state: State) -> str:
    """A clause about a window in this state."""
    match state:
        case Queued(attempt=attempt):
            return f"waits for attempt {attempt}"
        case Held():
            return "is held by request"
        case Starting(attempt=attempt, slot=slot):
            return f"attempt {attempt} is being launched on slot {slot.index} of {slot.device_id}"
        case Running(attempt=attempt, slot=slot, pid=pid):
            return f"runs as process {pid} on slot {slot.index} of {slot.device_id}, attempt {attempt}"
        case Stopping(slot=slot, reason=reason):
            return f"is being stopped ({reason.replace('_', ' ')}) on slot {slot.index} of {slot.device_id}"
        case Finished(attempts=attempts, outcome=outcome):
            attempted = f"after {counted(attempts, 'attempt')}" if attempts else "without an attempt"
            why = reason_of(outcome)
            return f"finished {attempted}" + (f": {why}" if why else "")
        case _ as never:
            assert_never(never)
