"""The frames of the Ray engine: orders to a node, its reports, and the envelopes in which a bridge carries both.

Everything is msgpack; `connection` sends it behind its length. Orders that are answered have a number, which the answer
repeats. A node's frame has all the reports that have gathered, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from gpusched.core.model import Batch, BatchSpec, Device, DeviceChoice, HostReading, PlannedWindow, Reading
from gpusched.devices.kind import Discovery
from gpusched.devices.processors import Machine
from gpusched.engines.condition import TroubleChanged
from gpusched.engines.engine import End, LeftBehind, LogPiece, Verdict
from gpusched.worker.messages import Needs, PipeMessage

#: seconds between the signs of life of a supervisor and a node
BEAT_S = 1.0
#: seconds after which a node that hears nothing of its supervisor ends its windows
LEASE_S = 15.0
#: seconds of silence after which nothing is placed on a node; and after which it counts as lost: by then it has ended
#: its windows, so that none runs twice at once
SILENT_S, LOST_S = 5.0, 20.0

# -- daemon → node -----------------------------------------------------------------------------------------------------


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag="begin"):
    """The first order: the parts of the node's local engine.

    The paths are on a file system that nodes share, unless there is a scratch directory: then that is all there is.
    """

    host: str
    version: str
    cwd: str
    state_dir: str
    logs_dir: str
    cache_dir: str
    workload: str
    allow_cpu_opencl: bool
    standing: bool
    #: of this node alone; empty: files are shared
    scratch: str = ""


class Piece(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A part of a file in the data root."""

    name: str
    mtime_ns: int
    offset: int
    data: bytes


class Stage(msgspec.Struct, frozen=True, kw_only=True, tag="stage"):
    """Inputs for windows, in as many orders as they need; none: ask for them. Answered by `Staged` or `Refused`."""

    id: int
    digest: str
    pieces: tuple[Piece, ...] = ()
    last: bool = False


class Launch(msgspec.Struct, frozen=True, kw_only=True, tag="launch"):
    """Answered by `Launched` or `Refused`; then `Said` and `Stuck` until `Ended`."""

    id: int
    batch: Batch
    planned: PlannedWindow
    device: Device
    log: str
    #: digest of the staged inputs; empty: files are shared
    inputs: str = ""
    #: it waits until fewer windows than that run on the device; 0: it starts at once
    at_once: int = 0


class Withdraw(msgspec.Struct, frozen=True, kw_only=True, tag="withdraw"):
    """Refuse a launch that waits still."""

    id: int


class Fetch(msgspec.Struct, frozen=True, kw_only=True, tag="fetch"):
    """Read a file of a result in the scratch directory. Answered by `Fetched` or `Refused`."""

    id: int
    output_dir: str
    label: str
    name: str
    offset: int


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="kept"):
    """Results are committed where they belong: the scratch directory need not keep them. Answered by `Done`."""

    id: int
    #: labels by output directory
    results: dict[str, list[str]]


class RemoveLogs(msgspec.Struct, frozen=True, kw_only=True, tag="remove_logs"):
    batch_id: str


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """The supervisor is there. A node that has heard nothing for `LEASE_S` ends its windows."""


class Signal(msgspec.Struct, frozen=True, kw_only=True, tag="signal"):
    id: int
    signum: int


class Preload(msgspec.Struct, frozen=True, kw_only=True, tag="preload"):
    """Answered by `Done` or `Refused`."""

    id: int
    spec: BatchSpec
    needed_by: Needs


class Interrupt(msgspec.Struct, frozen=True, kw_only=True, tag="interrupt"):
    spec: BatchSpec


class Watch(msgspec.Struct, frozen=True, kw_only=True, tag="watch"):
    devices: tuple[Device, ...]


class Judge(msgspec.Struct, frozen=True, kw_only=True, tag="judge"):
    """Answered by a `Judged` for each device, then `Done`."""

    id: int
    devices: tuple[Device, ...]
    wanted: DeviceChoice
    #: ids of those for which no earlier trial is good enough
    afresh: tuple[str, ...] = ()


class ReadLog(msgspec.Struct, frozen=True, kw_only=True, tag="read_log"):
    """Answered by `LogRead`."""

    id: int
    log: str
    offset: int


class Abandon(msgspec.Struct, frozen=True, kw_only=True, tag="abandon"):
    """Answered by `Left`."""

    id: int


Order = (
    Begin
    | Stage
    | Launch
    | Withdraw
    | Fetch
    | Kept
    | Beat
    | Signal
    | Preload
    | Interrupt
    | Watch
    | Judge
    | ReadLog
    | RemoveLogs
    | Abandon
)

# -- node → daemon -----------------------------------------------------------------------------------------------------


class Make(msgspec.Struct, frozen=True, kw_only=True):
    """All of a node that the bytes of a result may depend on."""

    lightgbm: str
    #: version of the built-in workload
    workload: int
    python: str
    processor: str


class Joined(msgspec.Struct, frozen=True, kw_only=True, tag="joined"):
    """The node works, or its GPUs have changed."""

    machine: Machine
    discovery: Discovery
    make: Make


class Beats(msgspec.Struct, frozen=True, kw_only=True, tag="beats"):
    """The node is there."""


class Unfit(msgspec.Struct, frozen=True, kw_only=True, tag="unfit"):
    """The node cannot be used; `why` is a sentence."""

    why: str


class Launched(msgspec.Struct, frozen=True, kw_only=True, tag="launched"):
    id: int
    pid: int


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The order failed: a LaunchError or an OSError, by its kind."""

    id: int
    kind: Literal["not_loadable", "no_memory", "withdrawn", "refused"]
    message: str
    traceback: str = ""


class Said(msgspec.Struct, frozen=True, kw_only=True, tag="said"):
    id: int
    message: PipeMessage


class Stuck(msgspec.Struct, frozen=True, kw_only=True, tag="stuck"):
    id: int
    trouble: str


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    id: int
    end: End
    #: of its result, from a scratch directory; the longer ones are fetched
    files: dict[str, bytes] = {}
    #: the end of the log of a window that failed, from a scratch directory
    log: bytes = b""


class Staged(msgspec.Struct, frozen=True, kw_only=True, tag="staged"):
    id: int
    complete: bool


class Fetched(msgspec.Struct, frozen=True, kw_only=True, tag="fetched"):
    id: int
    data: bytes


class Judged(msgspec.Struct, frozen=True, kw_only=True, tag="judged"):
    id: int
    verdict: Verdict


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    id: int


class LogRead(msgspec.Struct, frozen=True, kw_only=True, tag="log_read"):
    id: int
    piece: LogPiece | None


class Left(msgspec.Struct, frozen=True, kw_only=True, tag="left"):
    id: int
    left: tuple[LeftBehind, ...]


class Read(msgspec.Struct, frozen=True, kw_only=True, tag="read"):
    reading: Reading


class MemoryRead(msgspec.Struct, frozen=True, kw_only=True, tag="memory_read"):
    reading: HostReading


class Lost(msgspec.Struct, frozen=True, kw_only=True, tag="lost"):
    device_id: str
    reason: str


class AnswersAgain(msgspec.Struct, frozen=True, kw_only=True, tag="answers_again"):
    device_id: str


class Troubled(msgspec.Struct, frozen=True, kw_only=True, tag="troubled"):
    change: TroubleChanged


Report = (
    Joined
    | Beats
    | Unfit
    | Launched
    | Refused
    | Said
    | Stuck
    | Ended
    | Staged
    | Fetched
    | Judged
    | Done
    | LogRead
    | Left
    | Read
    | MemoryRead
    | Lost
    | AnswersAgain
    | Troubled
)

# -- daemon ↔ bridge ---------------------------------------------------------------------------------------------------


class Carry(msgspec.Struct, frozen=True, kw_only=True, tag="carry"):
    """Frames to a node or from it, in order."""

    host: str
    frames: tuple[bytes, ...]


class NodeUp(msgspec.Struct, frozen=True, kw_only=True, tag="node_up"):
    """A node is reserved, and its agent runs; it is told to `Begin` now."""

    host: str


class NodeDown(msgspec.Struct, frozen=True, kw_only=True, tag="node_down"):
    host: str
    reason: str


class NodeWaits(msgspec.Struct, frozen=True, kw_only=True, tag="node_waits"):
    """A node cannot be reserved, since others in the cluster hold its processors or GPUs."""

    host: str


class Release(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """To the bridge: a node that does not answer, or is unfit, is let go; it is held again after a while."""

    host: str


class NodeLeft(msgspec.Struct, frozen=True, kw_only=True, tag="node_left"):
    """A node that was not held is no longer in the cluster."""

    host: str


class Connected(msgspec.Struct, frozen=True, kw_only=True, tag="connected"):
    """The bridge is in the cluster, which has these nodes now."""

    hosts: tuple[str, ...]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The bridge cannot reach the cluster, and ends."""

    why: str


Tidings = Carry | Release | NodeUp | NodeDown | NodeWaits | NodeLeft | Connected | Failed

_encoder = msgspec.msgpack.Encoder()
order_decoder = msgspec.msgpack.Decoder(Order)
reports_decoder = msgspec.msgpack.Decoder(tuple[Report, ...])
tidings_decoder = msgspec.msgpack.Decoder(Tidings)


Frame = Order | Sequence[Report] | Tidings


def packed(frame: Frame) -> bytes:
    return _encoder.encode(frame)
