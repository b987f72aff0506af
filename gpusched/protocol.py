"""The socket protocol: what clients and the daemon say to each other, one JSON object a line over a unix socket.

A client opens with `Hello` and is answered with `Welcome`; then it sends requests, each answered before the next one is
looked at: by one reply, or by several of which the last is `End`, or by `Problem`. After `Subscribe` the connection
carries nothing but what happens: a `Snapshot`, then deltas. A further `Snapshot` may follow at any time; it replaces
everything that was known.

Fields that a side does not know are ignored, and new fields have defaults, so that versions can differ; `PROTOCOL`
grows only when that is not enough. `Hello`, `Welcome` and `Problem` never change.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Literal

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
    Device,
    DeviceChoice,
    FailureKind,
    PlannedWindow,
    Reading,
    Slot,
    State,
    Usage,
    WindowKey,
)
from gpusched.core.placement import Health
from gpusched.core.samples import Sample

PROTOCOL = 1
#: a longer request ends the connection
MAX_REQUEST_BYTES = 8 * 1024 * 1024
#: a longer reply means that the other side is not a daemon
MAX_REPLY_BYTES = 64 * 1024 * 1024


# -- handshake ---------------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """The first frame of a client."""

    protocol: int
    #: of the client's gpusched, for messages
    version: str


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """The daemon speaks the client's protocol."""

    protocol: int
    version: str
    pid: int
    started_at: float
    #: absolute path
    state_dir: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """Nothing was done; as in `gpusched.errors`."""

    problem: str
    remedy: str
    exit_code: int


# -- requests ----------------------------------------------------------------------------------------------------------


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag="submit"):
    """Plan a batch and accept it. Answered with any number of `Surveyed`, then `Submitted`, when it is durable."""

    spec: BatchSpec
    #: stem of the symbols file; the batch is named after it unless it has a `name`
    source: str
    name: str | None = None
    #: absolute; None: below the daemon's output root
    output_dir: str | None = None
    #: the terms (`gpusched.core.terms`) that were asked for, and not only defaults: a batch at work goes on with them;
    #: None: all
    terms: tuple[str, ...] | None = None


class ListBatches(msgspec.Struct, frozen=True, kw_only=True, tag="list_batches"):
    """Answered with `Batches`."""


class GetBatch(msgspec.Struct, frozen=True, kw_only=True, tag="get_batch"):
    """Answered with `BatchDetail`."""

    batch_id: str
    #: with what there is to know about its data
    notes: bool = False


class ListWindows(msgspec.Struct, frozen=True, kw_only=True, tag="list_windows"):
    """Answered with any number of `WindowPage`, then `End`. `status` is that of a `WindowLine`; None: all."""

    batch_id: str
    status: str | None = None


class GetWindow(msgspec.Struct, frozen=True, kw_only=True, tag="get_window"):
    """Answered with `WindowDetail`."""

    batch_id: str
    label: str


class ReadLog(msgspec.Struct, frozen=True, kw_only=True, tag="read_log"):
    """Answered with any number of `LogChunk`, then `End`.

    `attempt` None: the last one. `follow` goes on until the attempt has ended, or where `attempt` is None until the
    window is finished, through all further attempts.
    """

    batch_id: str
    label: str
    attempt: int | None = None
    #: bytes to leave out
    offset: int = 0
    follow: bool = False


class GetResults(msgspec.Struct, frozen=True, kw_only=True, tag="get_results"):
    """Answered with any number of `ResultPage`, then `End`: the windows that are finished, in that order."""

    batch_id: str


class GetHistory(msgspec.Struct, frozen=True, kw_only=True, tag="get_history"):
    """Answered with `History`."""

    batch_id: str


#: `alter` does nothing but change terms
Verb = Literal["cancel", "hold", "release", "retry", "alter"]


class Change(msgspec.Struct, frozen=True, kw_only=True, tag="change"):
    """Do something to a batch or to one of its windows. Answered with `Changed`, when it is durable."""

    verb: Verb
    batch_id: str
    #: None: the whole batch
    label: str | None = None
    #: with which it is to go on, by name: see `gpusched.core.terms`
    terms: dict[str, Any] = {}


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    """Remove what is known of finished batches, their logs, and maybe their results. Answered with `Forgotten`."""

    #: either a batch, or all that finished so many seconds ago
    batch_id: str | None = None
    older_than_s: float | None = None
    results: bool = False


class ListDevices(msgspec.Struct, frozen=True, kw_only=True, tag="list_devices"):
    """Answered with `Devices`."""


class ChangeDevice(msgspec.Struct, frozen=True, kw_only=True, tag="change_device"):
    """Place nothing more on a device, or open it again. Answered with `Devices`: those it was done to."""

    verb: Literal["drain", "resume"]
    #: id or an unambiguous prefix of one; None: all devices
    device: str | None = None


class Subscribe(msgspec.Struct, frozen=True, kw_only=True, tag="subscribe"):
    """Answered with a `Snapshot` and deltas until the client hangs up; of one batch, or of all."""

    batch_id: str | None = None


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag="ping"):
    """Answered with `Pong`."""


Request = (
    Submit
    | ListBatches
    | GetBatch
    | ListWindows
    | GetWindow
    | ReadLog
    | GetResults
    | GetHistory
    | Change
    | Forget
    | ListDevices
    | ChangeDevice
    | Subscribe
    | Ping
)


# -- values ------------------------------------------------------------------------------------------------------------


class BatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A batch, as a listing shows it."""

    id: str
    output_dir: str
    submitted_at: float
    state: Literal["open", "held", "finished"]
    held_reason: str | None
    finished_at: float | None
    #: windows by status: the name of their state, or of their outcome once finished; zeros are left out
    counts: dict[str, int]
    #: when it was so, by the daemon's clock, with which alone the other instants can be compared; None: by one of 0.1
    at: float | None = None


class WindowLine(msgspec.Struct, frozen=True, kw_only=True):
    """A window, as a listing shows it. What has not happened yet is None."""

    key: WindowKey
    symbol: str
    start: dt.date
    end: dt.date
    #: name of the state, or of the outcome once finished
    status: str
    moved_at: float
    usable_rows: int
    #: launches, the present one included
    attempts: int
    #: the last launch
    slot: Slot | None
    pid: int | None
    started_at: float | None
    ended_at: float | None
    #: why it was skipped or has failed
    reason: str | None
    #: kind of the failure, for one that has failed
    failure: FailureKind | None = None
    #: what would help, where its data gave nothing
    remedy: str = ""


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """A finished window and what it gave."""

    key: WindowKey
    symbol: str
    start: dt.date
    end: dt.date
    #: name of the outcome
    status: str
    finished_at: float
    attempts: int
    #: of the last launch, from start to end; None if there was none
    seconds: float | None
    device: str | None
    slot: int | None
    artifacts_path: str | None
    metrics: dict[str, Any] | None
    sample_counts: dict[str, int] | None
    #: of the last launch
    started_at: float | None = None
    ended_at: float | None = None
    #: seconds by phase, in order
    phases: dict[str, float] | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    #: most GPU memory that it used, as its driver counted or a reading saw
    device_memory_bytes: int | None = None
    #: its kernels were executing on a GPU, where the driver counts that
    device_seconds: float | None = None
    #: why it was skipped or has failed
    reason: str | None
    #: kind of the failure, for one that has failed
    failure: FailureKind | None = None


class AttemptLine(msgspec.Struct, frozen=True, kw_only=True):
    """One launch of a window. What has not happened yet is None."""

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
    """A device, who holds its slots, and what was last read of it."""

    device: Device
    health: Health
    #: why it is not open
    reason: str
    slots: tuple[Slot, ...]
    #: by slot index
    allocations: dict[int, WindowKey]
    reading: Reading | None
    #: of the slots, so many are used at a time
    width: int = 0
    #: memory promised to windows that have not been seen to use it
    reserved_bytes: int = 0
    #: memory that processes of others use; None where it cannot be told whose it is
    foreign_bytes: int | None = None
    #: when it came to be in that health
    since_at: float = 0.0


#: What is in trouble: the store cannot be written; a window's process does not die; a launcher hangs; processes of a
#: daemon or a launcher that has gone do not die.
TroubleKind = Literal["store", "window", "launcher", "leftover"]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong with the daemon at the moment."""

    #: one of `TroubleKind`; a newer daemon may know more
    kind: str
    #: the path, the window or the process
    about: str
    #: a sentence for people, with what `about` says
    text: str
    since: float


# -- replies -----------------------------------------------------------------------------------------------------------


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """The last of several replies."""


class Surveyed(msgspec.Struct, frozen=True, kw_only=True, tag="surveyed"):
    """How many symbols of a batch's have been looked at."""

    done: int
    total: int
    #: nothing has been looked at yet, since it waits for these GPUs to be tried
    trying: str = ""


class Submitted(msgspec.Struct, frozen=True, kw_only=True, tag="submitted"):
    """The batch is durable. `known` is a batch that was at work already; `again`, a new round of a finished one."""

    batch: BatchStatus
    how: Literal["new", "known", "again"]
    #: what `auto` came to
    choice: Choice | None = None
    #: results of other parameters that it replaces; things that are no results, which it moves aside
    replaces: int = 0
    moves_aside: int = 0
    #: of one that was at work, and now goes on with other limits, workers or priority: what is different, in words
    changes: tuple[str, ...] = ()
    #: sentences for people about what was asked for
    notes: tuple[str, ...] = ()


class Batches(msgspec.Struct, frozen=True, kw_only=True, tag="batches"):
    batches: tuple[BatchStatus, ...]


class BatchDetail(msgspec.Struct, frozen=True, kw_only=True, tag="batch"):
    batch: BatchStatus
    spec: BatchSpec
    #: what `auto` came to
    choice: Choice | None = None
    #: of the first symbols that have any, if they were asked for
    notes: DataNotes = {}


class WindowPage(msgspec.Struct, frozen=True, kw_only=True, tag="windows"):
    windows: tuple[WindowLine, ...]


class WindowDetail(msgspec.Struct, frozen=True, kw_only=True, tag="window"):
    window: WindowLine
    plan: PlannedWindow
    state: State
    story: tuple[StoryLine, ...]
    attempts: tuple[AttemptLine, ...]
    #: where its batch runs, and what `auto` came to
    device: DeviceChoice = "auto"
    choice: Choice | None = None
    #: of its symbol's data
    notes: tuple[DataNote, ...] = ()


class LogChunk(msgspec.Struct, frozen=True, kw_only=True, tag="log"):
    attempt: int
    #: of the first byte
    offset: int
    data: bytes


class ResultPage(msgspec.Struct, frozen=True, kw_only=True, tag="results"):
    results: tuple[ResultLine, ...]


class History(msgspec.Struct, frozen=True, kw_only=True, tag="history"):
    """What was read of the devices while windows of the batch ran: by device, in the order of time."""

    samples: tuple[Sample, ...]


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag="changed"):
    """`windows` is the number of windows that the change applied to."""

    batch: BatchStatus
    windows: int
    #: of its terms, in words
    changes: tuple[str, ...] = ()
    #: what keeps a cancellation from being written, which has taken effect all the same; None: it is written
    not_durable: str | None = None


class Forgotten(msgspec.Struct, frozen=True, kw_only=True, tag="forgotten"):
    """What has been removed."""

    batches: tuple[str, ...] = ()
    windows: int = 0
    results: int = 0
    #: paths where results should be, and that were left because they are not provably that and nothing else
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
    #: it places nothing more and leaves when what runs has ended
    draining: bool
    #: windows that hold a slot, and those that have not finished
    active: int
    unfinished: int
    #: what keeps the daemon from writing its store, or None
    trouble: str | None
    #: the GPUs that are being tried, and for how long; empty if none is
    trying: str = ""
    #: all that is wrong, the oldest first
    troubles: tuple[Trouble, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """All that a view starts from: batches with their counts, the windows that hold a slot, devices."""

    at: float
    batches: tuple[BatchStatus, ...]
    active: tuple[WindowLine, ...]
    #: the last report of each window that runs
    progress: tuple[ProgressReported, ...]
    devices: tuple[DeviceStatus, ...]
    #: how the last windows left their slots for good, and how the last of those that failed did: the latest at the end
    ended: tuple[WindowMoved, ...] = ()
    failed: tuple[WindowMoved, ...] = ()
    #: what is wrong with the daemon, the oldest first; a new snapshot follows when that changes
    troubles: tuple[Trouble, ...] = ()


class BatchAnnounced(msgspec.Struct, frozen=True, kw_only=True, tag="batch_announced"):
    """A batch was accepted: a new one, or a new round of one that was known."""

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
    | LogChunk
    | ResultPage
    | History
    | Changed
    | Forgotten
    | Devices
    | Pong
    | Snapshot
    | Delta
)


# -- frames ------------------------------------------------------------------------------------------------------------


class BadFrame(Exception):
    """A line that is not a message of this protocol; says why."""


_encoder = msgspec.json.Encoder()


def encode(message: Hello | Request | Reply) -> bytes:
    """The frame of a message: a line."""
    return _encoder.encode(message) + b"\n"


def _decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decode_frame(line: bytes) -> Any:
        try:
            return decode(line)
        except RecursionError:
            raise BadFrame("it is nested too deeply") from None
        except ValueError as error:  # what msgspec raises, UnicodeDecodeError included
            raise BadFrame(str(error)) from error

    return decode_frame


#: Each takes a line and raises BadFrame.
decode_hello: Callable[[bytes], Hello] = _decoder(msgspec.json.Decoder(Hello).decode)
decode_request: Callable[[bytes], Request] = _decoder(msgspec.json.Decoder(Request).decode)
decode_reply: Callable[[bytes], Reply] = _decoder(msgspec.json.Decoder(Reply).decode)
