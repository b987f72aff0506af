"""The scheduler's commands (imperative), which are carried out once the records of their turn are committed."""

from __future__ import annotations

import msgspec

from gpusched.core.model import Slot, WindowKey


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Fork the process of an attempt. Answered by `AttemptStarted` and `AttemptEnded`, or by the latter alone."""

    key: WindowKey
    attempt: int
    slot: Slot
    #: it is ahead: it waits on its node until fewer processes than this run on its device; 0: it starts at once
    at_once: int = 0


class Withdraw(msgspec.Struct, frozen=True, kw_only=True):
    """Take back an attempt that is ahead, if it waits still. Answered by an `AttemptEnded` that was not launched."""

    key: WindowKey
    attempt: int


class Terminate(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the process group of a running attempt to end (SIGTERM)."""

    key: WindowKey
    attempt: int


class CheckResults(msgspec.Struct, frozen=True, kw_only=True):
    """Check that the results of a batch, all of whose windows are finished, exist. Answered by `ResultsChecked`."""

    batch_id: str
    #: unique number of the check
    check: int
    labels: tuple[str, ...]


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """End the process group of a running attempt (SIGKILL)."""

    key: WindowKey
    attempt: int


Command = Launch | Withdraw | Terminate | Kill | CheckResults
