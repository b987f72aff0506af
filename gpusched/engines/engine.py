"""The engine: where windows run, and on which devices. The supervisor and its neighbours know no more of it than this.

`gpusched.engines.local` is this machine. Every engine passes the tests of `tests/engines/test_contract.py`. Logs have
names relative to the engine's own place for them: `BATCH/LABEL.ATTEMPT.log`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from gpusched.core.events import Event, HostRead
from gpusched.core.failures import Exit
from gpusched.core.model import Batch, BatchSpec, Device, DeviceChoice, PlannedWindow, WindowKey, WindowResult
from gpusched.core.states import Usage
from gpusched.devices.kind import Answers, Discovery, Note
from gpusched.devices.naming import Selected
from gpusched.devices.processors import Machine
from gpusched.engines.attendance import Attendant, Awaited, OnMessage, Signalled
from gpusched.engines.condition import Condition
from gpusched.errors import LaunchError
from gpusched.worker.messages import Inspection, Needs


class LauncherLost(LaunchError):
    """The launcher died before it answered."""

    problem = "the launcher process died (exit status {status}); the end of its log:\n{log}"
    remedy = "the next window starts a new one; if this repeats, run `gpusched doctor`"


class LaunchRefused(LaunchError):
    """The launcher is alive but could not fork."""

    problem = "the window process could not be started: {reason}"
    remedy = "free memory or processes, or mend the workload's imports, then retry the window"


class NoMemoryToFork(LaunchError):
    """The launcher is alive, but the kernel has no memory for another process."""

    problem = "out of host memory: a window process could not be forked"
    remedy = "it is tried again when there is more room; free memory, or give the service more"


class WorkloadNotLoadable(LaunchError):
    """The workload's module cannot be imported or has no such function: no window of it can run."""

    problem = "{message}"
    remedy = (
        "check its name and what it imports: ./file.py:function, a module in the directory that the command is given"
        " in, or what is installed or on PYTHONPATH where it runs; then retry"
    )

    def __init__(self, *, message: str, traceback: str, **details: str) -> None:
        self.traceback = traceback
        super().__init__(message=message, **details)


class LibraryNotLoadable(WorkloadNotLoadable):
    """The machine lacks a library that the workload's module needs."""

    problem = "{message}"
    remedy = "{first}, then retry"


class Withdrawn(LaunchError):
    """The window was taken back before it started."""

    problem = "the window was taken back before it started"
    remedy = "it goes on when its batch and a device may"


class Upgraded(LaunchError):
    """The files of gpusched were replaced: a new launcher would be of another version than the running supervisor."""

    problem = "gpusched {running} was replaced by {installed} while it ran"
    remedy = "restart the daemon (`systemctl restart gpusched`): it takes up its batches as the new version"


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a window's process: its whole group is gone, and every message of it has been delivered."""

    exit: Exit
    usage: Usage = Usage()
    #: the forbidden output that the process wrote to its pipe; it was killed for it
    violation: str | None = None
    #: bytes that were left out of its log, which had grown beyond its limit
    log_left_out_bytes: int = 0


#: the process of a window
Launched = Signalled


#: who hears of the process of a window
WindowAttendant = Attendant[Launched, End]


class LeftBehind(msgspec.Struct, frozen=True):
    """A process that was killed but does not die, and its window if that is known; `doing` is its state, for people."""

    pid: int
    window: WindowKey | None
    doing: str


class LogPiece(msgspec.Struct, frozen=True):
    """A piece of a log. Offsets count every byte that was written, also those that have been cut out since."""

    offset: int
    #: empty at the end of the log
    data: bytes


class Verdict(msgspec.Struct, frozen=True):
    """The result of a GPU's trial. `why`: why it does not train, or not with the preferred device type."""

    #: with its working device type, if it trains
    device: Device
    trains: bool
    why: str = ""

    def note(self, name: str) -> Note | None:
        """A note on the device, which people know by `name`; None if all is well."""
        if not self.why:
            return None
        if self.trains:
            return Note(f"{name} is used with device type {self.device.lightgbm_type}: {self.why}")
        return Note(f"{name} is not used: {self.why}", "run `gpusched doctor`")


#: calls the last argument with the verdict on each device, as soon as it is known
Judge = Callable[[Iterable[Device], DeviceChoice, Callable[[Verdict], None]], Awaitable[None]]


class Found(msgspec.Struct, frozen=True):
    """A machine that windows may run on, and its GPUs; again whenever these have changed."""

    machine: Machine
    discovery: Discovery


class Gone(msgspec.Struct, frozen=True):
    """A node is gone, and every process on it has ended."""

    host: str
    reason: str


class Silent(msgspec.Struct, frozen=True):
    """A node does not answer; its windows may be running, or have ended."""

    host: str
    reason: str


class Heard(msgspec.Struct, frozen=True):
    """A node that was silent answers again, and its windows have gone on."""

    host: str


Noticed = Answers | Found | Gone | Silent | Heard


class Engine(Protocol):
    """Where windows run. All of it is called in the event loop's thread."""

    #: the troubles that the engine and its supervisor meet
    condition: Condition
    #: the machines that were there at the start
    machines: tuple[Found, ...]
    #: the cache of bars, where the surveys look for it
    cache_dir: Path

    # -- the devices ---------------------------------------------------------------------------------------------------

    async def run(self, post: Callable[[Event], None], notice: Callable[[Noticed], None]) -> None:
        """Post readings and losses, and notice machines and GPUs that come, go or answer again, until cancelled."""

    def watch(self, devices: Iterable[Device]) -> None:
        """Read these GPUs from now on and account for processes on them, and on no others."""

    async def judge(
        self,
        devices: Iterable[Device],
        wanted: DeviceChoice,
        tell: Callable[[Verdict], None],
        *,
        afresh: Collection[str] = (),
    ) -> None:
        """Try the devices, and call `tell` with the verdict on each as soon as it is known.

        An earlier trial of a device, or of another of its model, is good enough, but not for those whose ids are in
        `afresh`.
        """

    def read_host(self) -> HostRead:
        """The memory of the host now."""

    # -- processes -----------------------------------------------------------------------------------------------------

    async def preload(self, spec: BatchSpec, needed_by: Needs = "window") -> None:
        """Import what windows or surveys of a batch need, once. Raises WorkloadNotLoadable, LaunchError."""

    def start(
        self,
        batch: Batch,
        planned: PlannedWindow,
        device: Device,
        attendant: WindowAttendant,
        *,
        log: str,
        at_once: int = 0,
    ) -> None:
        """Start the process that trains a window on a device; `attendant` hears of it, perhaps before this returns.

        `at_once`: on its node it waits until fewer processes than that run on the device; 0: it starts at once.
        It is refused with WorkloadNotLoadable, NoMemoryToFork, Upgraded or another LaunchError; OSError if the log
        cannot be opened.
        """

    async def inspect(self, job: Inspection, on_message: OnMessage, *, log: str) -> str:
        """Look at data or settings in a process; return a phrase on how it ended. Raises LaunchError, OSError."""

    def withdraw(self, log: str) -> None:
        """Take back the window with this log if it waits on its node: it is refused with Withdrawn."""

    def interrupt(self, spec: BatchSpec) -> None:
        """End launches of a workload that hang: each raises LaunchError, and its windows end with it."""

    async def abandon(self) -> list[LeftBehind]:
        """Kill everything and wait only a moment; whoever waits for a process is told that it is gone."""

    async def sweep(self) -> tuple[int, ...]:
        """Kill what an earlier supervisor of the same store has left; return the PIDs. Call before any launch."""

    @property
    def starts(self) -> int:
        """The number of launcher processes started so far."""

    # -- results and logs ----------------------------------------------------------------------------------------------

    def verify(self, batch: Batch, planned: PlannedWindow) -> WindowResult | None:
        """The verified result of a window, if it is the one that training would produce; otherwise None."""

    def log_path(self, log: str) -> Path:
        """The file of a log, for people."""

    async def read_log(self, log: str, offset: int) -> LogPiece | None:
        """A piece of a log from `offset` on, or from the next byte that is left; None if there is no such log."""

    async def remove_logs(self, batch_id: str) -> None:
        """Remove the logs of a batch."""


async def resolve(judge: Judge, selected: Selected, wanted: DeviceChoice) -> Selected:
    """Find the GPUs that work for batches which ask for `wanted`, each with its device type, and the notes."""
    verdicts: dict[str, Verdict] = {}
    await judge(selected.devices, wanted, lambda verdict: verdicts.update({verdict.device.id: verdict}))
    notes = (verdict.note(name_among(verdict.device, verdicts)) for verdict in verdicts.values())
    return Selected(
        tuple(verdicts[device.id].device for device in selected.devices if verdicts[device.id].trains),
        (*selected.notes, *sorted({note for note in notes if note}, key=str)),
    )


def name_among(device: Device, verdicts: Mapping[str, Verdict]) -> str:
    """A device's name in notes: its model if all GPUs of that model have the same verdict, otherwise with its id."""
    twins = {verdict.trains for verdict in verdicts.values() if verdict.device.name == device.name}
    return device.name if len(twins) == 1 else f"{device.name} {device.id}"


async def launched(
    engine: Engine, batch: Batch, planned: PlannedWindow, device: Device, *, log: str
) -> Awaited[Launched, End]:
    """Start the process of a window, and wait until it exists; its `wait` must be awaited.

    Raises LaunchError, OSError.
    """
    awaited: Awaited[Launched, End] = Awaited()
    engine.start(batch, planned, device, awaited, log=log)
    return await awaited.launched()
