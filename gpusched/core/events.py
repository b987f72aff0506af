"""The scheduler's inputs, events (past tense), and the records that it has stored; its commands are `core.commands`.

`Scheduler.handle(event, now)` answers each event with records and commands. The records are committed first; only then
are the commands carried out. Every event about a process carries the number of its attempt, so that a late exit of
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
    Health,
    HoldKind,
    HoldReason,
    HostReading,
    PlannedWindow,
    Reading,
    WindowKey,
)
from gpusched.core.states import Ending, State, Usage
from gpusched.core.statuses import WindowVerb
from gpusched.core.terms import Terms

# -- events: work ------------------------------------------------------------------------------------------------------


class WindowsArrived(msgspec.Struct, frozen=True, kw_only=True):
    """The next windows of a batch that is too large for one turn; its last ones come with `BatchSubmitted`."""

    batch: Batch
    windows: tuple[PlannedWindow, ...]


class BatchSubmitted(msgspec.Struct, frozen=True, kw_only=True):
    """A planned batch. It replaces a finished batch of the same id."""

    batch: Batch
    windows: tuple[PlannedWindow, ...]
    notes: DataNotes = {}


class WindowsRecovered(msgspec.Struct, frozen=True, kw_only=True):
    """The next windows of a batch in the store that is too large for one turn; `BatchRecovered` comes last."""

    batch: Batch
    windows: tuple[tuple[PlannedWindow, State], ...]
    #: they are the first: earlier ones were of a recovery that was given up
    first: bool


class BatchRecovered(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as the store has it: in the state in which the last supervisor left it."""

    batch: Batch
    #: those that have not come with `WindowsRecovered`
    windows: tuple[tuple[PlannedWindow, State], ...]
    held: HoldReason | None = None
    #: the store has its `BatchFinished`; a pending change may reopen it
    finished: bool = False
    #: changes that were not completed when the last supervisor died
    changes: tuple[Change, ...] = ()
    #: by label of a window that was active: attempts that began and ended by no fault of its own, this one included
    losses: dict[str, int] = {}
    #: why it cannot go on now, so that it is held
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
    #: a further remark for people
    note: str = ""
    #: False: the launch was dropped before any launcher was asked to fork
    launched: bool = True


class ProcessStuck(msgspec.Struct, frozen=True, kw_only=True):
    """The process of an attempt was sent SIGKILL but does not die. `reason` is for people."""

    key: WindowKey
    attempt: int
    reason: str


class ResultsChecked(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `CheckResults`: the windows whose results are no longer where they were committed."""

    batch_id: str
    check: int
    missing: tuple[str, ...]
    #: False: the others of many missing windows come with further answers to the same check
    complete: bool = True


# -- events: requests of people ----------------------------------------------------------------------------------------


class ChangeRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Do `verb` to the windows of a batch that it applies to (`gpusched.core.statuses`)."""

    verb: WindowVerb
    batch_id: str
    #: None: the whole batch
    label: str | None = None


class SliceGranted(msgspec.Struct, frozen=True, kw_only=True):
    """There is time for a slice of the changes that are not completed."""

    #: windows that it may change; None: as many as the scheduler was made for
    windows: int | None = None


class TermsRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Run a batch on other terms from now on; terms that are not named stay as they are."""

    batch_id: str
    terms: Terms


class ShutdownRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Place no more windows; `stop` also ends those that run, which go back to the queue."""

    mode: Literal["drain", "stop"]


# -- events: devices and time ------------------------------------------------------------------------------------------


class NodeJoined(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's devices are in the pool, for the first time or again: a node that was silent has answered."""

    #: name of the node; empty: this machine
    host: str = ""
    devices: tuple[Device, ...]
    #: ids of the devices whose trial has not ended yet: nothing is placed there
    trying: frozenset[str] = frozenset()


class NodeSilent(msgspec.Struct, frozen=True, kw_only=True):
    """A node does not answer: nothing is placed there until it joins again, and its windows go on."""

    host: str
    reason: str


class NodeLost(msgspec.Struct, frozen=True, kw_only=True):
    """A node is gone, and every process on it has ended: its devices leave the pool, its windows go elsewhere."""

    host: str
    reason: str


class TrialBegan(msgspec.Struct, frozen=True, kw_only=True):
    """A trial of a device began: of one that has appeared, or that did not train in an earlier trial."""

    device: Device


class TrialEnded(msgspec.Struct, frozen=True, kw_only=True):
    """The device trains, with its device type, or `why` gives the reason why it does not."""

    device: Device
    why: str | None = None


class DeviceVanished(msgspec.Struct, frozen=True, kw_only=True):
    """The device has disappeared: it leaves the pool, and its windows go elsewhere."""

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
    """Open a drained or quarantined device again."""

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
    | ChangeRequested
    | SliceGranted
    | WindowsRecovered
    | TermsRequested
    | ShutdownRequested
    | NodeJoined
    | NodeSilent
    | NodeLost
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

# -- records: committed by the store before any command is carried out -------------------------------------------------


class WindowsAdded(msgspec.Struct, frozen=True, kw_only=True, tag="windows_added"):
    """Windows of a batch that is not accepted yet: they are hidden, and dropped after a crash."""

    batch: Batch
    windows: tuple[tuple[PlannedWindow, State], ...]
    first: bool
    at: float


class BatchAccepted(msgspec.Struct, frozen=True, kw_only=True, tag="batch_accepted"):
    """The batch and its windows, each `queued` or already `finished`, in the order of submission."""

    batch: Batch
    windows: tuple[tuple[PlannedWindow, State], ...]
    #: number of windows, from the first, that were recorded by `WindowsAdded` before
    added: int = 0
    #: windows by status
    counts: dict[str, int] = {}
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
    #: how the attempt ended, if this move ends one
    ending: Ending | None = None
    usage: Usage | None = None


class BatchHeld(msgspec.Struct, frozen=True, kw_only=True, tag="batch_held"):
    """No window of the batch is placed until it is released. `reason` is for people."""

    batch_id: str
    reason: str
    kind: HoldKind = "request"
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
    """The progress of a change that does not fit into a turn. `recorded`: an earlier record has told of the change."""

    batch_id: str
    change: Change
    recorded: bool
    at: float


class ChangeMade(msgspec.Struct, frozen=True, kw_only=True, tag="change_made"):
    """A change is completed. `recorded`: an earlier record has told of it."""

    batch_id: str
    change: Change
    recorded: bool
    at: float


class BatchFinished(msgspec.Struct, frozen=True, kw_only=True, tag="batch_finished"):
    """Every window of the batch is finished."""

    batch_id: str
    at: float


class DeviceChanged(msgspec.Struct, frozen=True, kw_only=True, tag="device_changed"):
    """The pool opened or closed a device, or a device appeared or vanished. `reason` is for people."""

    device_id: str
    health: Health
    reason: str
    at: float
    #: its trial has not succeeded yet; the fleet's notes say why
    untried: bool = False


class DeviceTuned(msgspec.Struct, frozen=True, kw_only=True, tag="device_tuned"):
    """The number of slots used on a device has changed to `slots`. `reason` is for people."""

    device_id: str
    slots: int
    reason: str
    at: float


class ProgressReported(msgspec.Struct, frozen=True, kw_only=True, tag="progress_reported"):
    """The progress of a running window. Shown to people, never stored."""

    key: WindowKey
    attempt: int
    phase: str
    #: boosting round, and the planned number of rounds; 0 in phases without rounds
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
#: an entry of the stream that followers receive, in order
Update = Record | ProgressReported
