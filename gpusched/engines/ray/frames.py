"""The frames of the Ray engine: orders to a node, its reports, and the envelopes in which a bridge carries both.

Everything is msgpack behind a length of four bytes. Orders that are answered have a number, which the answer repeats.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Literal

import msgspec

from gpusched.core.model import Batch, BatchSpec, Device, DeviceChoice, HostReading, PlannedWindow, Reading
from gpusched.devices.kind import Discovery
from gpusched.devices.processors import Machine
from gpusched.engines.condition import TroubleChanged
from gpusched.engines.engine import End, LeftBehind, LogPiece, Verdict
from gpusched.worker.messages import Needs, PipeMessage

_LENGTH = struct.Struct(">I")

# -- daemon → node -----------------------------------------------------------------------------------------------------


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag="begin"):
    """The first order: what the node's local engine is made of. All paths are on a file system that nodes share."""

    host: str
    version: str
    cwd: str
    state_dir: str
    logs_dir: str
    cache_dir: str
    workload: str
    allow_cpu_opencl: bool
    standing: bool


class Launch(msgspec.Struct, frozen=True, kw_only=True, tag="launch"):
    """Answered by `Launched` or `Refused`; then `Said` and `Stuck` until `Ended`."""

    id: int
    batch: Batch
    planned: PlannedWindow
    device: Device
    log: str


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


class ReadLog(msgspec.Struct, frozen=True, kw_only=True, tag="read_log"):
    """Answered by `LogRead`."""

    id: int
    log: str
    offset: int


class Abandon(msgspec.Struct, frozen=True, kw_only=True, tag="abandon"):
    """Answered by `Left`."""

    id: int


Order = Begin | Launch | Signal | Preload | Interrupt | Watch | Judge | ReadLog | Abandon

# -- node → daemon -----------------------------------------------------------------------------------------------------


class Joined(msgspec.Struct, frozen=True, kw_only=True, tag="joined"):
    """The node works, or its GPUs have changed."""

    machine: Machine
    discovery: Discovery


class Unfit(msgspec.Struct, frozen=True, kw_only=True, tag="unfit"):
    """The node cannot be used; `why` is a sentence."""

    why: str


class Launched(msgspec.Struct, frozen=True, kw_only=True, tag="launched"):
    id: int
    pid: int


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The order failed: a LaunchError or an OSError, by its kind."""

    id: int
    kind: Literal["not_loadable", "no_memory", "refused"]
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
    | Unfit
    | Launched
    | Refused
    | Said
    | Stuck
    | Ended
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


class Connected(msgspec.Struct, frozen=True, kw_only=True, tag="connected"):
    """The bridge is in the cluster, which has these nodes now."""

    hosts: tuple[str, ...]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The bridge cannot reach the cluster, and ends."""

    why: str


Tidings = Carry | NodeUp | NodeDown | NodeWaits | Connected | Failed

_encoder = msgspec.msgpack.Encoder()
order_decoder = msgspec.msgpack.Decoder(Order)
report_decoder = msgspec.msgpack.Decoder(Report)
tidings_decoder = msgspec.msgpack.Decoder(Tidings)


def packed(frame: Order | Report | Tidings) -> bytes:
    return _encoder.encode(frame)


def framed(data: bytes) -> bytes:
    """The bytes with their length before them."""
    return _LENGTH.pack(len(data)) + data


async def next_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The bytes of the next frame; None at the end."""
    try:
        return await reader.readexactly(_LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0])
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
