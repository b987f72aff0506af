"""What happens to the scheduler (events, past tense), what it remembers (records), what it asks for (commands).

`Scheduler.handle(event, now)` answers each event with a list of effects. Records are committed first; only then are the
commands carried out. Every event that comes from a process carries the number of its attempt, so that a late exit of
attempt 1 cannot end attempt 2.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gpusched.core.changes import Change
from gpusched.core.model import (
    Batch,
    DataNotes,
    Device,
    Ending,
    HostReading,
    PlannedWindow,
    Reading,
    Slot,
    State,
    Usage,
    WindowKey,
)
from gpusched.core.placement import Health
from gpusched.core.terms import Terms

# -- events: work ------------------------------------------------------------------------------------------------------


class WindowsArrived(msgspec.Struct, frozen=True, kw_only=True):
    """The next windows of a batch that is too large for a turn; `BatchSubmitted` brings the last of them."""

    batch: Batch
    windows: tuple[PlannedWindow, ...]


class BatchSubmitted(msgspec.Struct, frozen=True, kw_only=True):
    """A planned batch. One with the id of a finished batch takes its place."""

    batch: Batch
    windows: tuple[PlannedWindow, ...]
    notes: DataNotes = {}


class BatchRecovered(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as the store remembers it, as it was when the last supervisor died."""

    batch: Batch
    windows: tuple[tuple[PlannedWindow, State], ...]
    held_reason: str | None = None
    #: the store has its `BatchFinished`; changes may be about to open it again
    finished: bool = False
    #: that were not through when the last supervisor died
    changes: tuple[Change, ...] = ()
    #: by label of a window that was active: its attempts that began and ended by no doing of its own, this one included
    losses: dict[str, int] = {}
    #: why it cannot go on now, and is to be held
    obstacle: str | None = None


class AttemptStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The process of an attempt exists."""

    key: WindowKey
    attempt: int
    pid: int


class AttemptEnded(msgspec.Struct, frozen=True, kw_only=True):
    """The process of an attempt is gone, with its whole group, or could not be started."""

    key: WindowKey
    attempt: int
    ending: Ending
    usage: Usage = Usage()
    #: what else there is to say of it, in words for people
    note: str = ""
    #: False: nobody was asked to fork it
    launched: bool = True


class ProcessStuck(msgspec.Struct, frozen=True, kw_only=True):
    """The process of an attempt was sent SIGKILL, and does not die. `reason` is for people."""

    key: WindowKey
    attempt: int
    reason: str


class ResultsChecked(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `CheckResults`: windows whose results are not where they were committed."""

    batch_id: str
    check: int
    missing: tuple[str, ...]


# -- events: what people ask for; `label` None means the whole batch ---------------------------------------------------


class CancelRequested(msgspec.Struct, frozen=True, kw_only=True):
    batch_id: str
    label: str | None = None


class HoldRequested(msgspec.Struct, frozen=True, kw_only=True):
    batch_id: str
    label: str | None = None


class ReleaseRequested(msgspec.Struct, frozen=True, kw_only=True):
    batch_id: str
    label: str | None = None


class RetryRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Run again what failed, timed out, was cancelled or lost."""

    batch_id: str
    label: str | None = None


class SliceGranted(msgspec.Struct, frozen=True, kw_only=True):
    """There is time for a slice of the changes that are not through."""


class TermsRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Run a batch on other terms from now on; those that are not named stay as they are."""

    batch_id: str
    terms: Terms


class ShutdownRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Place nothing more; `stop` also ends what is running (it goes back to the queue)."""

    mode: Literal["drain", "stop"]


# -- events: devices and time ------------------------------------------------------------------------------------------


class DevicesFound(msgspec.Struct, frozen=True, kw_only=True):
    """The devices of the pool. Sent once, before any batch."""

    devices: tuple[Device, ...]
    #: ids of those of which it is still to be found out whether they train
    trying: frozenset[str] = frozenset()


class TrialBegan(msgspec.Struct, frozen=True, kw_only=True):
    """It is being found out whether a device trains: one that has appeared, or that could not before."""

    device: Device


class TrialEnded(msgspec.Struct, frozen=True, kw_only=True):
    """The device trains, with its device type, or it does not, and `why` says why not."""

    device: Device
    why: str | None = None


class DeviceVanished(msgspec.Struct, frozen=True, kw_only=True):
    """The device is not there any more: it leaves the pool, and its windows go elsewhere."""

    device_id: str
    reason: str


class DeviceRead(msgspec.Struct, frozen=True, kw_only=True):
    reading: Reading


class HostRead(msgspec.Struct, frozen=True, kw_only=True):
    reading: HostReading


class DeviceLost(msgspec.Struct, frozen=True, kw_only=True):
    """The device cannot be trusted any more: nothing is placed on it, its windows are stopped and go elsewhere."""

    device_id: str
    reason: str


class DrainRequested(msgspec.Struct, frozen=True, kw_only=True):
    device_id: str


class ResumeRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Opens a drained or quarantined device again."""

    device_id: str


class TimePassed(msgspec.Struct, frozen=True, kw_only=True):
    """The instant of `Scheduler.deadline` has come."""


Event = (
    WindowsArrived
    | BatchSubmitted
    | BatchRecovered
    | AttemptStarted
    | AttemptEnded
    | ResultsChecked
    | ProcessStuck
    | CancelRequested
    | HoldRequested
    | ReleaseRequested
    | RetryRequested
    | SliceGranted
    | TermsRequested
    | ShutdownRequested
    | DevicesFound
    | TrialBegan
    | TrialEnded
    | DeviceVanished
    | DeviceRead
    | HostRead
    | DeviceLost
    | DrainRequested
    | ResumeRequested
    | TimePassed
)

# -- records: what the store commits before anything else happens ------------------------------------------------------


class WindowsAdded(msgspec.Struct, frozen=True, kw_only=True, tag="windows_added"):
    """Windows of a batch that is not accepted yet: nobody sees them, and after a crash they are dropped."""

    batch: Batch
    windows: tuple[tuple[PlannedWindow, State], ...]
    first: bool
    at: float


class BatchAccepted(msgspec.Struct, frozen=True, kw_only=True, tag="batch_accepted"):
    """The batch and its windows, each `queued` or already `finished`, in the order of submission."""

    batch: Batch
    windows: tuple[tuple[PlannedWindow, State], ...]
    #: so many of them, from the first, were `WindowsAdded` before
    added: int = 0
    notes: DataNotes = {}
    at: float


class WindowMoved(msgspec.Struct, frozen=True, kw_only=True, tag="window_moved"):
    """One line of a window's story."""

    key: WindowKey
    old: State
    new: State
    #: why, in words for people
    reason: str
    at: float
    #: how the attempt ended, where this move ends one
    ending: Ending | None = None
    usage: Usage | None = None


class BatchHeld(msgspec.Struct, frozen=True, kw_only=True, tag="batch_held"):
    """Nothing of the batch is placed until it is released. `reason` is for people."""

    batch_id: str
    reason: str
    at: float


class BatchReleased(msgspec.Struct, frozen=True, kw_only=True, tag="batch_released"):
    batch_id: str
    at: float


class BatchAltered(msgspec.Struct, frozen=True, kw_only=True, tag="batch_altered"):
    """A batch is run on other terms from now on. `changes` are for people."""

    batch: Batch
    changes: tuple[str, ...]
    at: float

    @property
    def batch_id(self) -> str:
        return self.batch.id


class BatchReopened(msgspec.Struct, frozen=True, kw_only=True, tag="batch_reopened"):
    """Some windows of a finished batch are to run again."""

    batch_id: str
    at: float


class ChangeAdvanced(msgspec.Struct, frozen=True, kw_only=True, tag="change_advanced"):
    """So far is a change that does not fit into a turn. `recorded`: this is not the first that is told of it."""

    batch_id: str
    change: Change
    recorded: bool
    at: float


class ChangeMade(msgspec.Struct, frozen=True, kw_only=True, tag="change_made"):
    """A change is through. `recorded`: more has been told of it."""

    batch_id: str
    change: Change
    recorded: bool
    at: float


class BatchFinished(msgspec.Struct, frozen=True, kw_only=True, tag="batch_finished"):
    """Every window of the batch is finished."""

    batch_id: str
    at: float


class DeviceChanged(msgspec.Struct, frozen=True, kw_only=True, tag="device_changed"):
    """The pool opened or closed a device, or it came or went. `reason` is for people."""

    device_id: str
    health: Health
    reason: str
    at: float
    #: it has not trained yet; whoever tries it says more
    untried: bool = False


class DeviceTuned(msgspec.Struct, frozen=True, kw_only=True, tag="device_tuned"):
    """From now on `slots` slots of the device are used. `reason` is for people."""

    device_id: str
    slots: int
    reason: str
    at: float


class ProgressReported(msgspec.Struct, frozen=True, kw_only=True, tag="progress_reported"):
    """How far a running window is. Shown to people, never stored."""

    key: WindowKey
    attempt: int
    phase: str
    #: boosting round and their planned number, 0 where there is none
    round: int = 0
    rounds: int = 0


Record = (
    WindowsAdded
    | BatchAccepted
    | WindowMoved
    | BatchHeld
    | BatchReleased
    | BatchAltered
    | BatchReopened
    | ChangeAdvanced
    | ChangeMade
    | BatchFinished
    | DeviceChanged
    | DeviceTuned
)
#: what happens, in order
Update = Record | ProgressReported

# -- commands: what to do once the records are committed ---------------------------------------------------------------


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Fork the process of an attempt. Is answered by `AttemptStarted` and `AttemptEnded`, or by the latter alone."""

    key: WindowKey
    attempt: int
    slot: Slot


class Terminate(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the process group of a running attempt to end (SIGTERM)."""

    key: WindowKey
    attempt: int


class CheckResults(msgspec.Struct, frozen=True, kw_only=True):
    """See whether the results of a batch, which has run, are there. Is answered by `ResultsChecked`."""

    batch_id: str
    #: no other has this number
    check: int
    labels: tuple[str, ...]


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """End the process group of a running attempt (SIGKILL)."""

    key: WindowKey
    attempt: int


Command = Launch | Terminate | Kill | CheckResults
