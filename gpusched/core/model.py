"""The vocabulary as types: windows, batches, devices, slots, states and outcomes.

All of them are frozen values. A state carries exactly the data that is true in it, so that no field's meaning depends
on another's. Wall-clock instants (`_at`) are seconds since the epoch and go to disk; monotonic readings never do.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec

DeviceType = Literal["cpu", "gpu", "cuda"]
#: `auto` comes to one device type for a whole batch, `mixed` uses every device at once
DeviceChoice = Literal["auto", "cpu", "gpu", "cuda", "mixed"]

#: id of the one device that is the host's processors
CPU = "cpu"


class Instant(msgspec.Struct, frozen=True, kw_only=True):
    """Now. `monotonic` measures durations, `wall` is shown to people and written to disk; both in seconds."""

    monotonic: float
    wall: float


# -- work ------------------------------------------------------------------------------------------------------------


class WindowKey(msgspec.Struct, frozen=True, order=True):
    """Names a window among all batches; written `BATCH/LABEL`."""

    batch_id: str
    label: str

    def __str__(self) -> str:
        return f"{self.batch_id}/{self.label}"


class Window(msgspec.Struct, frozen=True):
    """One symbol × one date range, both dates inclusive: the unit of work."""

    symbol: str
    start: dt.date
    end: dt.date

    @property
    def label(self) -> str:
        return window_label(self.symbol, self.start, self.end)


def window_label(symbol: str, start: dt.date, end: dt.date) -> str:
    """`SYMBOL_2022-01-01_to_2022-06-30`: a window's name within its batch and that of its artifacts directory."""
    return f"{symbol}_{start.isoformat()}_to_{end.isoformat()}"


class WindowResult(msgspec.Struct, frozen=True, kw_only=True, tag="result", omit_defaults=True):
    """A trained window whose artifacts are committed."""

    artifacts_path: str
    metrics: dict[str, Any]
    sample_counts: dict[str, int]
    #: includes the device type; None if the workload has no fingerprints
    fingerprint: str | None
    device_type: DeviceType
    #: UUID of the GPU that trained it, or "cpu"
    device: str
    #: seconds by phase, in order
    phases: dict[str, float]
    seconds: float
    #: what stood at `artifacts_path` and was no result of ours has this name now, beside it
    moved_aside: str | None = None


class DataNote(msgspec.Struct, frozen=True):
    """One thing to know about a symbol's data that does not keep it from being trained on."""

    #: a short name that programs can compare: "dropped", "conflicts", "gaps", "jumps", …
    kind: str
    #: for people, without the symbol: "12 of 756 rows dropped: volume is negative"
    text: str


#: what there is to know about the data of a batch, by symbol, in the order of its symbols
DataNotes = dict[str, tuple[DataNote, ...]]


Standing = Literal["nothing", "result", "stranger"]


class PlannedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A window as the plan sees it: to be trained, or reused from a committed result, or finished before it began.

    At most one of `skip_reason`, `refusal` and `doubt` is given.
    """

    window: Window
    #: bars in the date range; rows that can be trained on or validated with
    bars: int = 0
    usable_rows: int = 0
    #: there is nothing to train on: it is skipped
    skip_reason: str | None = None
    #: its data cannot be used: it has failed, without a launch
    refusal: str | None = None
    #: the survey could not look at its data: it runs, and is judged by that
    doubt: str | None = None
    #: what would help with a window that is skipped or refused, for people; empty: not known
    remedy: str = ""
    #: hex digest of all that determines the result except the device type
    fingerprint: str | None = None
    committed: WindowResult | None = None
    #: what stands where its result goes: one of other parameters or data, or something that is none of gpusched's
    replaces: Standing = "nothing"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch allows its windows."""

    #: launches that may fail by the window's own fault before it counts as failed
    max_attempts: int = 3
    #: seconds that an attempt may take; 0: any
    timeout_s: float = 3600.0
    #: seconds between the request to stop and the kill
    grace_s: float = 10.0
    #: seconds before the second attempt; doubled for each further one
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    #: private memory of a window process; 0: any
    memory_limit_bytes: int = 0
    #: of an attempt's log; 0: any
    log_limit_bytes: int = 10 << 20
    #: share of windows that may fail before the batch counts as failed
    max_failure_rate: float = 0.0
    #: consecutive windows that fail in the same way before the batch is held; 0: never
    breaker_failures: int = 10


class BatchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What `submit` or `run` asked for, with every path resolved and every default filled in."""

    symbols: tuple[str, ...]
    start: dt.date
    end: dt.date
    window_days: int
    data_root: str
    #: entry point of the workload, `package.module:function`
    workload: str
    #: the workload's own settings, opaque to the core
    settings: dict[str, Any]
    device: DeviceChoice = "auto"
    #: windows of this batch that may run at once; 0: as many as there are slots
    workers: int = 0
    priority: int = 0
    limits: Limits = Limits()


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """How long a batch would take on all devices of a type."""

    device_type: DeviceType
    #: GPUs, or cores
    devices: int
    seconds: float
    #: it would take longer than `seconds`; how much longer is not known
    at_least: bool = False


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What `auto` came to for a batch."""

    device: DeviceType
    #: in words for people; empty where there was nothing to choose between
    reason: str = ""
    expected: tuple[Expected, ...] = ()
    #: on all devices at once; None: not known
    mixed_seconds: float | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted `BatchSpec`."""

    id: str
    #: hex digest of what was asked for; the same id with another digest is another batch
    digest: str
    output_dir: str
    submitted_at: float
    spec: BatchSpec
    #: uid of the client, where that is neither root nor the daemon's own user
    owner: int | None = None
    #: nothing is written to `output_dir`, a real path, where a link leads there
    guarded: bool = False
    #: what `auto` came to; None: the spec names a device type or `mixed`
    choice: Choice | None = None

    @property
    def device(self) -> DeviceChoice:
        """Where its windows may run."""
        return self.choice.device if self.choice else self.spec.device


# -- devices ---------------------------------------------------------------------------------------------------------


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU, a MIG instance, or the host CPU."""

    #: UUID, or "cpu"
    id: str
    name: str
    #: what LightGBM is told for windows on this device
    device_type: DeviceType
    #: slots on it
    capacity: int
    #: slots used at first, where their number is tuned while windows run; 0: all of them, always
    tuned_from: int = 0
    #: offered to batches that ask for `auto`
    auto: bool = True
    #: cores near it; empty: any
    cpus: tuple[int, ...] = ()
    #: CPU threads that a window on it may use
    threads: int = 1
    memory_total_bytes: int | None = None
    #: its driver counts what each process uses
    accounting: bool = False
    #: `0000:41:00.0`; a MIG instance has its card's; empty: not known
    pci_bus_id: str = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One timed sample of a device. What the card does not report is None, never zero."""

    device_id: str
    at: float
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    #: 0..1
    utilisation: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    #: memory by PID as NVML reports it; None where it cannot be known (host PIDs in a container)
    process_memory_bytes: dict[int, int] | None = None

    @property
    def memory_used_bytes(self) -> int | None:
        """By whoever it may be."""
        if self.memory_total_bytes is None or self.memory_free_bytes is None:
            return None
        return self.memory_total_bytes - self.memory_free_bytes


class HostReading(msgspec.Struct, frozen=True, kw_only=True):
    """One sample of the host's memory, as far as a limit of this service lets windows have it. None: not known."""

    total_bytes: int | None = None
    #: what could be used without anything being pushed out
    free_bytes: int | None = None
    #: of the processes of windows that run, by PID: what each does not share with the launcher
    process_bytes: dict[int, int] | None = None


class Slot(msgspec.Struct, frozen=True, order=True):
    """A schedulable share of a device; one window process holds one slot."""

    index: int
    device_id: str


# -- how an attempt ends -----------------------------------------------------------------------------------------------

FailureKind = Literal[
    "no_data",
    "bad_data",
    "bad_parameters",
    "raised",
    "exited",
    "killed",
    "crashed",
    "protocol",
    "memory",
    "host_memory",
    "device_memory",
    "device_mismatch",
    "device_lost",
    "launch_refused",
    "launcher_lost",
    "interrupted",
    "timed_out",
    "missing",
]


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """Why an attempt has no result."""

    kind: FailureKind
    message: str
    traceback: str = ""


class Usage(msgspec.Struct, frozen=True):
    """What an attempt cost, as the kernel accounts it."""

    cpu_seconds: float = 0.0
    #: resident memory, what it shares with the launcher included
    peak_memory_bytes: int = 0
    #: most GPU memory that its process used, as its driver counted or a reading saw; None: neither did
    device_memory_bytes: int | None = None
    #: its kernels were executing on a GPU; None: the driver does not count that
    device_seconds: float | None = None
    #: of its peak of memory, what it did not share with the launcher; None: not known
    own_memory_bytes: int | None = None


Ending = WindowResult | Failure


# -- states ------------------------------------------------------------------------------------------------------------

StopReason = Literal["cancelled", "timed_out", "interrupted"]


class Queued(msgspec.Struct, frozen=True, kw_only=True, tag="queued"):
    """Waits for a slot; `attempt` is the number that its next launch will have."""

    attempt: int = 1


class Held(msgspec.Struct, frozen=True, kw_only=True, tag="held"):
    """Waits for a release."""

    attempt: int = 1


class Starting(msgspec.Struct, frozen=True, kw_only=True, tag="starting"):
    """Holds a slot; its process is being forked."""

    attempt: int
    slot: Slot


class Running(msgspec.Struct, frozen=True, kw_only=True, tag="running"):
    attempt: int
    slot: Slot
    pid: int
    started_at: float


class Stopping(msgspec.Struct, frozen=True, kw_only=True, tag="stopping"):
    """Told to end, still holds its slot. `pid` is None until the fork is confirmed."""

    attempt: int
    slot: Slot
    pid: int | None
    reason: StopReason


class Succeeded(msgspec.Struct, frozen=True, kw_only=True, tag="succeeded"):
    result: WindowResult


class Reused(msgspec.Struct, frozen=True, kw_only=True, tag="reused"):
    result: WindowResult


class Skipped(msgspec.Struct, frozen=True, kw_only=True, tag="skipped"):
    reason: str


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    failure: Failure


class TimedOut(msgspec.Struct, frozen=True, kw_only=True, tag="timed_out"):
    seconds: float


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, tag="cancelled"):
    pass


class Lost(msgspec.Struct, frozen=True, kw_only=True, tag="lost"):
    """Its processes kept disappearing through no fault of the window."""

    failure: Failure


Outcome = Succeeded | Reused | Skipped | Failed | TimedOut | Cancelled | Lost


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """`attempts` launches were made, 0 for a window that needed none."""

    attempts: int
    outcome: Outcome


State = Queued | Held | Starting | Running | Stopping | Finished
#: states that hold a slot
Active = Starting | Running | Stopping
StateName = Literal["queued", "held", "starting", "running", "stopping", "finished"]

#: outcomes in the order in which they are counted and shown
OUTCOMES = ("succeeded", "reused", "skipped", "failed", "timed_out", "cancelled", "lost")


def reason_of(outcome: Outcome) -> str | None:
    """Why a window was skipped or has failed, in words; None if it was not."""
    match outcome:
        case Skipped(reason=reason):
            return reason
        case Failed(failure=failure) | Lost(failure=failure):
            return f"{failure.kind}: {failure.message}"
        case TimedOut(seconds=seconds):
            return f"stopped after {seconds:g} s"
        case _:
            return None


def has_result(state: State) -> bool:
    """Whether a window is finished with artifacts."""
    return isinstance(state, Finished) and isinstance(state.outcome, Succeeded | Reused)


def name_of(state: State | Outcome) -> str:
    """The tag of a state or an outcome: its name on disk and on screen."""
    tag = type(state).__struct_config__.tag
    assert isinstance(tag, str)
    return tag
