"""The socket protocol between clients and the daemon: one JSON object per line, over a unix socket.

A client opens with `Hello` and the daemon answers with `Welcome`. Then the client sends requests, each answered before
the next one is read: by one reply, by several of which the last is `End`, or by `Problem`. After `Subscribe` the
connection carries only updates: a `Snapshot`, then deltas. A further `Snapshot` may follow at any time; it replaces
everything received before.

Fields that a side does not know are ignored, and new fields have defaults, so that versions can differ; `PROTOCOL`
is raised only when that is not enough. `Hello`, `Welcome` and `Problem` never change.
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
    Health,
    PlannedWindow,
    Reading,
    Slot,
    State,
    Usage,
    WindowKey,
)
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
    #: version of the client's gpusched, for messages
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
    """The request failed and changed nothing. The fields are those of a `gpusched.errors.GpuschedError`."""

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
    #: names of the terms (`gpusched.core.terms`) that were given explicitly, which a batch at work adopts; None: all
    terms: tuple[str, ...] | None = None


class ListBatches(msgspec.Struct, frozen=True, kw_only=True, tag="list_batches"):
    """Answered with `Batches`."""


class GetBatch(msgspec.Struct, frozen=True, kw_only=True, tag="get_batch"):
    """Answered with `BatchDetail`."""

    batch_id: str
    #: whether the reply includes the notes on its data
    notes: bool = False


class ListWindows(msgspec.Struct, frozen=True, kw_only=True, tag="list_windows"):
    """Answered with any number of `WindowPage`, then `End`. `status` as in `WindowLine`; None: all windows."""

    batch_id: str
    status: str | None = None


class GetWindow(msgspec.Struct, frozen=True, kw_only=True, tag="get_window"):
    """Answered with `WindowDetail`."""

    batch_id: str
    label: str


class ReadLog(msgspec.Struct, frozen=True, kw_only=True, tag="read_log"):
    """Answered with any number of `LogChunk`, then `End`.

    `attempt` None: the last one. `follow` continues until the attempt has ended or, if `attempt` is None, until the
    window is finished, through all further attempts.
    """

    batch_id: str
    label: str
    attempt: int | None = None
    #: bytes to skip at the start
    offset: int = 0
    follow: bool = False


class GetResults(msgspec.Struct, frozen=True, kw_only=True, tag="get_results"):
    """Answered with any number of `ResultPage`, then `End`: the finished windows, in the order of finishing."""

    batch_id: str


class GetHistory(msgspec.Struct, frozen=True, kw_only=True, tag="get_history"):
    """Answered with `History`."""

    batch_id: str


#: `alter` only changes terms
Verb = Literal["cancel", "hold", "release", "retry", "alter"]


class Change(msgspec.Struct, frozen=True, kw_only=True, tag="change"):
    """Apply a verb to a batch or to one of its windows. Answered with `Changed`, when it is durable."""

    verb: Verb
    batch_id: str
    #: None: the whole batch
    label: str | None = None
    #: the batch's new terms, by name: see `gpusched.core.terms`
    terms: dict[str, Any] = {}


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    """Remove the records and logs of finished batches, and their results on request. Answered with `Forgotten`."""

    #: either one batch, or (`older_than_s`) all that finished at least that many seconds ago
    batch_id: str | None = None
    older_than_s: float | None = None
    results: bool = False


class ListDevices(msgspec.Struct, frozen=True, kw_only=True, tag="list_devices"):
    """Answered with `Devices`."""


class ChangeDevice(msgspec.Struct, frozen=True, kw_only=True, tag="change_device"):
    """Place nothing more on a device, or open it again. Answered with `Devices`: those that the verb applied to."""

    verb: Literal["drain", "resume"]
    #: id, or an unambiguous prefix of an id; None: all devices
    device: str | None = None


class Subscribe(msgspec.Struct, frozen=True, kw_only=True, tag="subscribe"):
    """Answered with a `Snapshot` and deltas of one batch, or of all (None), until the client hangs up."""

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
    #: time of this status by the daemon's clock, the only one to compare the other times with; None: from a 0.1 daemon
    at: float | None = None


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
    #: the remedy, if its data cannot be trained on
    remedy: str = ""


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """A finished window and its result."""

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
    #: why it was skipped or failed
    reason: str | None
    #: kind of the failure, if it failed
    failure: FailureKind | None = None


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
    #: slot index → the window that holds it
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


#: Kinds of trouble: the store cannot be written; a window's process does not die; a launcher hangs; processes of an
#: earlier daemon or launcher do not die.
TroubleKind = Literal["store", "window", "launcher", "leftover"]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of the daemon that persists."""

    #: a `TroubleKind`, or another kind of a newer daemon
    kind: str
    #: the path, the window or the process
    about: str
    #: a sentence for people, which includes `about`
    text: str
    since: float


# -- replies -----------------------------------------------------------------------------------------------------------


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


class LogChunk(msgspec.Struct, frozen=True, kw_only=True, tag="log"):
    attempt: int
    #: position of the first byte of `data` in the log as it was written
    offset: int
    data: bytes


class ResultPage(msgspec.Struct, frozen=True, kw_only=True, tag="results"):
    results: tuple[ResultLine, ...]


class History(msgspec.Struct, frozen=True, kw_only=True, tag="history"):
    """Readings of the devices while windows of the batch ran: by device, in the order of time."""

    samples: tuple[Sample, ...]


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag="changed"):
    """`windows` is the number of windows that the change applied to."""

    batch: BatchStatus
    windows: int
    #: changes of its terms, in words
    changes: tuple[str, ...] = ()
    #: why a cancellation, which has taken effect, could not be written to the store; None: it is written
    not_durable: str | None = None


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
    """A line that is not a message of this protocol; its text is the reason."""


_encoder = msgspec.json.Encoder()


def encode(message: Hello | Request | Reply) -> bytes:
    """The frame of a message: one line of JSON, with its newline."""
    return _encoder.encode(message) + b"\n"


def _decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decode_frame(line: bytes) -> Any:
        try:
            return decode(line)
        except RecursionError:
            raise BadFrame("it is nested too deeply") from None
        except ValueError as error:  # the base of msgspec's errors and of UnicodeDecodeError
            raise BadFrame(str(error)) from error

    return decode_frame


#: Each decodes one line. Raises BadFrame.
decode_hello: Callable[[bytes], Hello] = _decoder(msgspec.json.Decoder(Hello).decode)
decode_request: Callable[[bytes], Request] = _decoder(msgspec.json.Decoder(Request).decode)
decode_reply: Callable[[bytes], Reply] = _decoder(msgspec.json.Decoder(Reply).decode)
