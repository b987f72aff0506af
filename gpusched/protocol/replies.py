"""The daemon's replies to requests, and the updates that follow a `Snapshot`; `Welcome` comes before all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from gpusched.core.events import (
    BatchFinished,
    BatchHeld,
    BatchReleased,
    BatchReopened,
    DeviceChanged,
    DeviceTuned,
    ProgressReported,
    WindowMoved,
)
from gpusched.core.model import (
    BatchSpec,
    Choice,
    DataNote,
    DataNotes,
    DeviceChoice,
    Parameters,
    PlannedWindow,
    Reading,
    WindowKey,
)
from gpusched.core.reasons import Explanation
from gpusched.core.samples import Sample
from gpusched.core.states import State
from gpusched.protocol.listings import (
    AttemptLine,
    BatchStatus,
    DeviceStatus,
    StoryLine,
    Trouble,
    WindowLine,
)


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """The daemon speaks the client's protocol."""

    protocol: int
    version: str
    pid: int
    started_at: float
    #: absolute path
    state_dir: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """The request failed and changed nothing. The fields are those of a `gpusched.errors.GpuschedError`."""

    problem: str
    remedy: str
    exit_code: int
    #: name of its class, for errors that a client has an answer to
    kind: str = ""


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """The last of several replies."""


class Surveyed(msgspec.Struct, frozen=True, kw_only=True, tag="surveyed"):
    """Progress of a survey, in symbols of the batch."""

    done: int
    total: int
    #: the GPUs that are being tried, which the survey waits for; empty if it has begun
    trying: str = ""


class Submitted(msgspec.Struct, frozen=True, kw_only=True, tag="submitted"):
    """The batch is durable. `known`: a batch that was already at work; `again`: a new round of a finished one."""

    batch: BatchStatus
    how: Literal["new", "known", "again"]
    #: the choice made for `auto`
    choice: Choice | None = None
    #: number of results of other parameters that it replaces, and of entries other than results that it moves aside
    replaces: int = 0
    moves_aside: int = 0
    #: for `known`: changes of its limits, workers or priority, in words
    changes: tuple[str, ...] = ()
    #: sentences for people about the request
    notes: tuple[str, ...] = ()


class Batches(msgspec.Struct, frozen=True, kw_only=True, tag="batches"):
    batches: tuple[BatchStatus, ...]


class BatchDetail(msgspec.Struct, frozen=True, kw_only=True, tag="batch"):
    batch: BatchStatus
    spec: BatchSpec
    #: the choice made for `auto`
    choice: Choice | None = None
    #: notes on the first symbols that have any, if the request wanted them
    notes: DataNotes = {}


class WindowPage(msgspec.Struct, frozen=True, kw_only=True, tag="windows"):
    windows: tuple[WindowLine, ...]


class WindowDetail(msgspec.Struct, frozen=True, kw_only=True, tag="window"):
    window: WindowLine
    plan: PlannedWindow
    state: State
    story: tuple[StoryLine, ...]
    attempts: tuple[AttemptLine, ...]
    #: the device that its batch asks for, and the choice made for `auto`
    device: DeviceChoice = "auto"
    choice: Choice | None = None
    #: notes on its symbol's data
    notes: tuple[DataNote, ...] = ()
    #: its point of a sweep: the settings that it has in place of its batch's
    parameters: Parameters = {}


class Explained(msgspec.Struct, frozen=True, kw_only=True, tag="explained"):
    """The state of a window, and the reasons if it waits."""

    key: WindowKey
    explanation: Explanation


class LogChunk(msgspec.Struct, frozen=True, kw_only=True, tag="log"):
    attempt: int
    #: position of the first byte of `data` in the log as it was written
    offset: int
    data: bytes


class History(msgspec.Struct, frozen=True, kw_only=True, tag="history"):
    """Readings of the devices, of a batch's time or of the last minutes: by device, in the order of time."""

    samples: tuple[Sample, ...]


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag="changed"):
    """`windows` is the number of windows that the change applied to."""

    batch: BatchStatus
    windows: int
    #: changes of its terms, in words
    changes: tuple[str, ...] = ()
    #: why a cancellation, which has taken effect, could not be written to the store; None: it is written
    not_durable: str | None = None
    #: why a window is not held now, in words; empty: it is, or something else was asked for
    note: str = ""


class Forgotten(msgspec.Struct, frozen=True, kw_only=True, tag="forgotten"):
    """The batches removed, and the numbers of windows and results removed."""

    batches: tuple[str, ...] = ()
    windows: int = 0
    results: int = 0
    #: paths that were kept: not provably results of the batch and nothing else, or also of another batch or client
    kept: tuple[str, ...] = ()


def summed(parts: Sequence[Forgotten]) -> Forgotten:
    return Forgotten(
        batches=tuple(batch for part in parts for batch in part.batches),
        windows=sum(part.windows for part in parts),
        results=sum(part.results for part in parts),
        kept=tuple(path for part in parts for path in part.kept),
    )


class Devices(msgspec.Struct, frozen=True, kw_only=True, tag="devices"):
    devices: tuple[DeviceStatus, ...]


class Pong(msgspec.Struct, frozen=True, kw_only=True, tag="pong"):
    #: whether the daemon places nothing more and exits when the running windows have ended
    draining: bool
    #: windows that hold a slot, and windows that have not finished
    active: int
    unfinished: int
    #: why the daemon cannot write its store, or None
    trouble: str | None
    #: the GPUs that are being tried, and for how long; empty if none is
    trying: str = ""
    #: all faults, the oldest first
    troubles: tuple[Trouble, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """The state that a view starts from: batches with their counts, the windows that hold a slot, devices."""

    at: float
    batches: tuple[BatchStatus, ...]
    active: tuple[WindowLine, ...]
    #: the last report of each running window
    progress: tuple[ProgressReported, ...]
    devices: tuple[DeviceStatus, ...]
    #: the moves by which the latest windows left their slots for good, and those of the latest failures; newest last
    ended: tuple[WindowMoved, ...] = ()
    failed: tuple[WindowMoved, ...] = ()
    #: faults of the daemon, the oldest first; a new snapshot follows when they change
    troubles: tuple[Trouble, ...] = ()


class BatchAnnounced(msgspec.Struct, frozen=True, kw_only=True, tag="batch_announced"):
    """A batch was accepted: a new one, or a new round of a known one."""

    batch: BatchStatus


class DeviceReported(msgspec.Struct, frozen=True, kw_only=True, tag="device_reported"):
    reading: Reading


Delta = (
    BatchAnnounced
    | WindowMoved
    | BatchHeld
    | BatchReleased
    | BatchReopened
    | BatchFinished
    | DeviceChanged
    | DeviceTuned
    | ProgressReported
    | DeviceReported
)

Reply = (
    Welcome
    | Problem
    | End
    | Surveyed
    | Submitted
    | Batches
    | BatchDetail
    | WindowPage
    | WindowDetail
    | Explained
    | LogChunk
    | History
    | Changed
    | Forgotten
    | Devices
    | Pong
    | Snapshot
    | Delta
)
