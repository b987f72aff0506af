"""The lines that listings and views are made of: a batch, a window, a result, an attempt, a device, a fault."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec

from gpusched.core.model import Device, Health, Reading, Slot, WindowKey
from gpusched.core.states import FailureKind, Usage
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
    #: time of this status by the daemon's clock, the only one to compare the other times with; None: from a 0.1 daemon
    at: float | None = None
    #: models that predict a constant, among those of succeeded and reused windows
    constants: int = 0
    #: uid of the client that submitted it; None: root or the daemon's own user, or from an older daemon
    owner: int | None = None
    #: of a stage, which has no windows yet, in words: "until teachers has succeeded"; empty for any other batch
    waits: str = ""


class WindowLine(msgspec.Struct, frozen=True, kw_only=True):
    """A window, as a listing shows it. Times of later events, and the fields that they fill, are None."""

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
    #: this and the next three: of the last launch
    slot: Slot | None
    pid: int | None
    started_at: float | None
    ended_at: float | None
    #: why it was skipped or failed
    reason: str | None
    #: kind of the failure, if it failed
    failure: FailureKind | None = None
    #: `file:line` of the exception, if it failed with one: as in `gpusched.core.states.Failure`
    source_line: str = ""
    #: the remedy, if its data cannot be trained on
    remedy: str = ""
    #: its point of a sweep: a key in the `points` of its batch's specification
    point: str = ""


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """A finished window and its result. A reused one has the launches and the times of its training."""

    key: WindowKey
    symbol: str
    start: dt.date
    end: dt.date
    #: name of the outcome
    status: str
    finished_at: float
    attempts: int
    #: duration of the last launch; None if there was none
    seconds: float | None
    device: str | None
    slot: int | None
    #: of the device; empty: the machine of the batch's supervisor
    node: str = ""
    artifacts_path: str | None
    metrics: dict[str, Any] | None
    sample_counts: dict[str, int] | None
    #: start and end of the last launch
    started_at: float | None = None
    ended_at: float | None = None
    #: seconds by phase, in order
    phases: dict[str, float] | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    #: peak GPU memory, as counted by the driver or seen by a reading
    device_memory_bytes: int | None = None
    #: seconds in which its kernels were executing on a GPU; None where the driver does not count them
    device_seconds: float | None = None
    #: whether its model gives every row of the validation the same prediction; None: not told
    constant: bool | None = None
    #: why it was skipped or failed
    reason: str | None
    #: kind of the failure, if it failed
    failure: FailureKind | None = None
    #: as in `WindowLine`
    point: str = ""


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
#: batch could not be written.
TroubleKind = Literal["store", "window", "launcher", "leftover", "node", "index"]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of the daemon that persists."""

    #: a `TroubleKind`, or another kind of a newer daemon
    kind: str
    #: the path, the window or the process
    about: str
    #: a sentence for people, which includes `about`
    text: str
    since: float
