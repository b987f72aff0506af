"""The lines that listings and views are made of: a batch, a window, an attempt, a device, a fault."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec

from gpusched.core.model import Device, Health, Reading, Slot, WindowKey, WindowResult
from gpusched.core.states import Failure, FailureKind, Usage
from gpusched.core.statuses import BatchState


class BatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A batch, as a listing shows it."""

    id: str
    output_dir: str
    submitted_at: float
    state: BatchState
    held_reason: str | None
    finished_at: float | None
    #: windows by status: the name of their state, or of their outcome once finished; zeros are left out
    counts: dict[str, int]
    #: time of this status by the daemon's clock, the only one to compare the other times with; None: not told
    at: float | None = None
    #: models that predict a constant, among those of succeeded and reused windows
    constants: int = 0
    #: uid of the client that submitted it; None: root or the daemon's own user
    owner: int | None = None
    #: of a stage, which has no windows yet, in words: "until teachers has succeeded"; empty for any other batch
    waits: str = ""


class WindowLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A window: a row of the store, and a line of a listing.

    Times of later events, and the fields that they fill, are None. Only lines of results have the last four fields.
    """

    key: WindowKey
    symbol: str
    start: dt.date
    end: dt.date
    #: name of the state, or of the outcome once finished
    status: str
    moved_at: float
    usable_rows: int
    #: launches so far, including the current one
    attempts: int
    #: this and the next three: of the last launch. In lines of results, a reused one has those of its training
    slot: Slot | None = None
    pid: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    #: why it was skipped, or stopped for its time, or waits
    why: str | None = None
    failure: Failure | None = None
    #: the remedy, if its data cannot be trained on
    remedy: str = ""
    #: its point of a sweep: a key in the `points` of its batch's specification
    point: str = ""
    result: WindowResult | None = None
    #: instant at which its last launch was placed; None: there was none
    placed_at: float | None = None
    #: duration of the last launch, or of the training of a reused result; None: neither is known
    seconds: float | None = None
    usage: Usage | None = None

    @property
    def kind(self) -> FailureKind | None:
        """The kind of its failure, if it has failed."""
        return self.failure.kind if self.failure is not None else None

    @property
    def reason(self) -> str | None:
        """Why it was skipped, has failed or was stopped, a failure's kind first."""
        return f"{self.failure.kind}: {self.failure.message}" if self.failure is not None else self.why

    @property
    def device(self) -> str | None:
        """The device of its last launch, or the one that trained its reused result."""
        if self.slot is not None:
            return self.slot.device_id
        return self.result.device if self.result is not None else None

    @property
    def metrics(self) -> dict[str, Any] | None:
        return self.result.metrics if self.result is not None else None


class AttemptLine(msgspec.Struct, frozen=True, kw_only=True):
    """One launch of a window. Fields of events that are yet to happen are None."""

    attempt: int
    slot: Slot
    placed_at: float
    pid: int | None
    started_at: float | None
    ended_at: float | None
    #: "result", or the kind of failure
    ending: str | None
    message: str | None
    traceback: str | None
    usage: Usage | None


class StoryLine(msgspec.Struct, frozen=True, kw_only=True):
    """One move of a window: `old` and `new` name states, or outcomes where the window is finished."""

    at: float
    old: str
    new: str
    attempt: int
    reason: str


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A device, the windows that hold its slots, and its last reading."""

    device: Device
    health: Health
    #: why its health is not "open"
    reason: str
    slots: tuple[Slot, ...]
    #: slot index → the window that holds it; below zero: the window waits on the device's node for one that ends
    allocations: dict[int, WindowKey]
    reading: Reading | None
    #: number of slots that are used at a time
    width: int = 0
    #: memory promised to windows that no reading has shown using it yet
    reserved_bytes: int = 0
    #: memory used by processes other than the daemon's windows; None where the device does not tell whose it is
    foreign_bytes: int | None = None
    #: time of the last change of `health`
    since_at: float = 0.0

    @property
    def busy(self) -> int:
        """The number of slots whose windows run, or are about to."""
        return min(len(self.allocations), self.device.capacity)

    @property
    def ahead(self) -> int:
        """The number of windows that wait on the device's node for one that ends."""
        return len(self.allocations) - self.busy


#: Kinds of trouble: the store cannot be written; a window's process does not die; a launcher hangs; processes of an
#: earlier daemon or launcher do not die; a node, or the whole cluster, is not in the pool; the index of a finished
#: batch could not be written; windows of a batch cannot be started, since their logs cannot be written.
TroubleKind = Literal["store", "window", "launcher", "leftover", "node", "index", "log"]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of the daemon that persists."""

    #: a `TroubleKind`, or another kind of a newer daemon
    kind: str
    #: the path, the window or the process
    about: str
    #: a sentence for people, which includes `about`
    text: str
    since: float
