"""The scheduler's commands (imperative), which are carried out once the records of their turn are committed."""

from __future__ import annotations

import msgspec

from gpusched.core.model import Slot, WindowKey


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Fork the process of an attempt. Answered by `AttemptStarted` and `AttemptEnded`, or by the latter alone."""

    key: WindowKey
    attempt: int
    slot: Slot


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


Command = Launch | Terminate | Kill | CheckResults
