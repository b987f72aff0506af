"""The vocabulary as types: windows, plans, batches, devices, readings and slots; states are `gpusched.core.states`.

All of them are frozen values. Wall-clock instants (`_at`) are seconds since the epoch and go to disk; monotonic
readings never do.
A batch may have 100,000 values of the types with `gc=False`. They form no cycles, and the garbage collector would keep
everybody waiting while it looked through them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import msgspec

DeviceType = Literal["cpu", "gpu", "cuda"]
#: `auto` comes to one device type for a whole batch, `mixed` uses every device at once
DeviceChoice = Literal["auto", "cpu", "gpu", "cuda", "mixed"]

#: the kinds of device, each with a module below `gpusched.devices`: NVIDIA's GPUs, and the processors of a machine
DeviceKind = Literal["nvidia", "host"]
#: id of the processors of this machine; those of node n1 are `cpu@n1`
CPU = "cpu"


class Instant(msgspec.Struct, frozen=True, kw_only=True):
    """Now. `monotonic` measures durations, `wall` is shown to people and written to disk; both in seconds."""

    monotonic: float
    wall: float


# -- work ------------------------------------------------------------------------------------------------------------


class WindowKey(msgspec.Struct, frozen=True, gc=False, order=True):
    """Names a window among all batches; written `BATCH/LABEL`."""

    batch_id: str
    label: str

    def __str__(self) -> str:
        return f"{self.batch_id}/{self.label}"


class Window(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One symbol × one date range, both dates inclusive, × one point of a sweep: the unit of work."""

    symbol: str
    start: dt.date
    end: dt.date
    #: key in `BatchSpec.points`; empty: the settings of the batch
    point: str = ""
    #: the label, where one was asked for
    name: str = ""
    #: windows with a higher one go first in their batch
    priority: int = 0
    #: estimates given with the request, 0 where there is none: the duration, and the memory of the GPU, or of the host
    #: if the window trains on the CPU
    expected_seconds: float = 0.0
    expected_memory_bytes: int = 0

    @property
    def label(self) -> str:
        return self.name or window_label(self.symbol, self.start, self.end, self.point)


def window_label(symbol: str, start: dt.date, end: dt.date, point: str = "") -> str:
    """A window's name within its batch, and that of its artifacts directory.

    `SYMBOL_2022-01-01_to_2022-06-30`, and in a sweep also the name of the point:
    `SYMBOL_2022-01-01_to_2022-06-30_horizon=5,num_leaves=31`.
    """
    label = f"{symbol}_{start.isoformat()}_to_{end.isoformat()}"
    return f"{label}_{point}" if point else label


#: a point of a sweep: `section.key` → value; they replace the settings of the batch
Parameters = dict[str, Any]
#: the points of a batch that is no sweep
NO_POINTS: Mapping[str, Parameters] = MappingProxyType({})


class Training(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """When and how a result was made that is reused; for people, and for reports."""

    started_at: float
    seconds: float
    #: launches until it succeeded
    attempts: int = 1
    #: index of its slot; None: not known
    slot: int | None = None
    node: str = ""


class WindowResult(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="result", omit_defaults=True):
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
    #: the new name, in the same directory, of something else that stood at `artifacts_path` and was moved aside
    moved_aside: str | None = None
    #: whether its code or data are no longer those that it was planned with
    changed: bool = False
    #: whether the model gives every row of the validation the same prediction; None: not told
    constant: bool | None = None
    #: of a result that is reused; None: it is new, or from before 0.2
    training: Training | None = None


class DataNote(msgspec.Struct, frozen=True):
    """A remark about a symbol's data that does not prevent training on it."""

    #: a short name for programs: "dropped", "conflicts", "gaps", "jumps", …
    kind: str
    #: for people, without the symbol: "12 of 756 rows dropped: volume is negative"
    text: str


#: notes on the data of a batch, by symbol, in the order of its symbols
DataNotes = dict[str, tuple[DataNote, ...]]


class Existing(msgspec.Struct, frozen=True, kw_only=True):
    """The treatment of results that are there before a batch."""

    #: absolute paths of other output directories whose results are reused
    reuse_from: tuple[str, ...] = ()
    #: whether results are reused from every directory that earlier batches of the same client have written to
    reuse_known: bool = False
    #: output directories of this user from which the daemon reuses results without being told to; only it fills this in
    related: tuple[str, ...] = ()
    #: uid of that client, which the daemon fills in; None: root or the daemon's own user, as in a run
    owner: int | None = None
    #: whether results of other parameters may be replaced
    replace: bool = True


Standing = Literal["nothing", "result", "stranger"]


class PlannedWindow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A window in a plan: to be trained, reused from a committed result, or finished without a launch.

    A `committed` result in another directory is copied to its place before the batch is accepted.

    At most one of `skip_reason`, `refusal` and `doubt` is given.
    """

    window: Window
    #: bars in the date range; rows usable for training or validation
    bars: int = 0
    usable_rows: int = 0
    #: why there is nothing to train on, so that the window is skipped
    skip_reason: str | None = None
    #: why its data cannot be used, so that the window fails without a launch
    refusal: str | None = None
    #: why the survey could not look at its data; the window runs, and its outcome decides
    doubt: str | None = None
    #: advice to people about a window that is skipped or refused; empty: not known
    remedy: str = ""
    #: hex digest of all that determines the result except the device type
    fingerprint: str | None = None
    committed: WindowResult | None = None
    #: the present occupant of its place: a result of other parameters, data or versions, or a stranger to gpusched
    replaces: Standing = "nothing"
    #: the result that it replaces is of another workload or of other settings, not only of other data or code
    replaces_others: bool = False
    #: a directory in which an earlier batch has put the result that is to be trained here
    known_in: str = ""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits on a batch's windows."""

    #: launches that may fail by the window's own fault before it counts as failed
    max_attempts: int = 3
    #: seconds that an attempt may take; 0: no limit
    timeout_s: float = 3600.0
    #: seconds between the request to stop and the kill
    grace_s: float = 10.0
    #: seconds before the second attempt; doubled for each further one
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    #: private memory of a window's process; 0: no limit
    memory_limit_bytes: int = 0
    #: size of an attempt's log; 0: no limit
    log_limit_bytes: int = 10 << 20
    #: share of windows that may fail before the batch counts as failed
    max_failure_rate: float = 0.0
    #: consecutive windows that fail in the same way before the batch is held; 0: never
    breaker_failures: int = 10


class BatchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The request of a `submit` or `run`, with every path resolved and every default filled in."""

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
    #: windows of this batch that may run at once; 0: one on every slot
    workers: int = 0
    priority: int = 0
    limits: Limits = Limits()
    #: calendar days from the start of a window to that of the next one; 0: they lie side by side
    stride_days: int = 0
    #: all windows begin at `start`, and each ends a stride later than the one before it
    anchored: bool = False
    #: the points of a sweep by name; every symbol and date range is trained at each
    points: dict[str, Parameters] = {}
    #: the windows one by one; empty: they are made of the symbols, the dates and the points
    windows: tuple[Window, ...] = ()
    #: paths of the indexes of the batches that had to be done before it
    after: tuple[str, ...] = ()


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """The expected duration of a batch on all devices of a type."""

    device_type: DeviceType
    #: GPUs, or cores
    devices: int
    seconds: float
    #: it would take longer than `seconds`; how much longer is not known
    at_least: bool = False


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The device type that `auto` chose for a batch."""

    device: DeviceType
    #: for people; empty if there was no alternative
    reason: str = ""
    expected: tuple[Expected, ...] = ()
    #: expected duration on all devices at once; None: not known
    mixed_seconds: float | None = None


#: `request`: a person asked for it; `breaker`: its windows keep failing in the same way; `stranded`: no device is left
#: that could run them, and the hold ends when one opens; `obstacle`: it could not be taken up again after a restart
HoldKind = Literal["request", "breaker", "stranded", "obstacle"]


class HoldReason(msgspec.Struct, frozen=True, kw_only=True):
    """The reason why no window of a batch is placed until it is released."""

    kind: HoldKind
    #: for people
    text: str


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted `BatchSpec`."""

    id: str
    #: hex digest of the request; the same id with another digest is another batch
    digest: str
    output_dir: str
    submitted_at: float
    spec: BatchSpec
    #: uid of the client; None for root and the daemon's own user
    owner: int | None = None
    #: `output_dir` is a real path, and nothing is written there if a part of it has become a link
    guarded: bool = False
    #: the choice of `auto`; None: the spec names a device type or `mixed`
    choice: Choice | None = None

    @property
    def device(self) -> DeviceChoice:
        """The devices on which its windows may run."""
        return self.choice.device if self.choice else self.spec.device


# -- devices ---------------------------------------------------------------------------------------------------------

#: `trying`: a trial is under way; `suspect`: a window on it was killed but does not die; `silent`: its node does not
#: answer; `gone`: the device has vanished, and leaves the pool after its windows
Health = Literal["open", "trying", "draining", "suspect", "quarantined", "silent", "gone"]


class Device(msgspec.Struct, frozen=True, kw_only=True, rename={"lightgbm_type": "device_type"}):
    """A GPU, a MIG instance, or the processors of a machine."""

    #: UUID, or "cpu"
    id: str
    name: str
    kind: DeviceKind = "nvidia"
    #: name of the node whose device it is; empty: this machine
    host: str = ""
    #: LightGBM's `device_type` for windows on this device, as it is called in frames; the core only compares it
    lightgbm_type: DeviceType
    #: number of slots
    capacity: int
    #: slots used at first, if their number is tuned while windows run; 0: always all of them
    tuned_from: int = 0
    #: offered to batches that ask for `auto`
    auto: bool = True
    #: cores near the device, on which its windows run; empty: any
    cpus: tuple[int, ...] = ()
    #: CPU threads for each window on the device
    threads: int = 1
    #: cores that its windows may keep busy; 0: it is a GPU
    cores: int = 0
    memory_total_bytes: int | None = None
    #: its driver keeps account of each process (NVML's accounting mode)
    accounting: bool = False
    #: `0000:41:00.0`; a MIG instance has its card's; empty: not known
    pci_bus_id: str = ""
    #: version of its driver; empty: not known
    driver: str = ""
    #: how its driver runs it, for people: `persistence on, compute mode default`; empty: not known
    modes: str = ""


class ForeignProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process on a device that is none of the windows."""

    pid: int
    #: name of its user, or the number where nobody has it; empty: not known
    user: str = ""
    #: its command line, cut; empty: not known
    command: str = ""
    memory_bytes: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One timed sample of a device. Values that the card does not report are None, never zero."""

    device_id: str
    at: float
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    #: 0..1
    utilisation: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    #: most power that the card may take
    power_limit_w: float | None = None
    #: speed of the fan, as a share of its most: 0..1
    fan: float | None = None
    #: memory by PID as NVML reports it; None where it cannot be known (host PIDs in a container)
    process_memory_bytes: dict[int, int] | None = None
    #: the processes among them that are no windows, the largest first; more of them may not be named
    foreign: tuple[ForeignProcess, ...] = ()

    @property
    def memory_used_bytes(self) -> int | None:
        """Memory in use by any process."""
        if self.memory_total_bytes is None or self.memory_free_bytes is None:
            return None
        return self.memory_total_bytes - self.memory_free_bytes


class HostReading(msgspec.Struct, frozen=True, kw_only=True):
    """One sample of a host's memory, or of the part that this service is limited to. None: not known."""

    #: name of the node; empty: this machine
    host: str = ""
    total_bytes: int | None = None
    #: memory that could be used without swapping
    free_bytes: int | None = None
    #: by PID of a window's process: memory that it does not share with its launcher
    process_bytes: dict[int, int] | None = None


class Slot(msgspec.Struct, frozen=True, gc=False, order=True, omit_defaults=True):
    """A schedulable share of a device; one window process holds one slot."""

    #: below zero it is no share, but a place: a window waits there, on the device's node, for a slot
    index: int
    device_id: str
    #: of the device; empty: this machine
    node: str = ""

    @property
    def waits(self) -> bool:
        return self.index < 0

    @property
    def number(self) -> int | None:
        """Its number for people; None: it is a place."""
        return None if self.waits else self.index
