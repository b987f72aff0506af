"""The schema: every section and key, with its type, default and bounds.

Each section of config.toml is a struct here, and each key one of its fields; `config.toml` explains them to users.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

from gpusched.command.schema import ExitCodes
from gpusched.core.model import DeviceChoice, Limits
from gpusched.teacher.schema import Fraction, Horizon, MinRows, Threshold, ValidationDays
from gpusched.users import home

#: directory of a run's state, within the output directory
STATE_DIR = ".gpusched"
BUILT_IN_WORKLOAD = "gpusched.teacher:train_window"
#: the sections whose keys a workload checks, LightGBM's parameters and those of a user's workload: they have no struct
LIGHTGBM = "lightgbm"
WORKLOAD = "workload"
OPEN_SECTIONS = (LIGHTGBM, WORKLOAD)
#: bytes of the unit of settings `_mb`
MEGABYTE = 1024 * 1024
#: the defaults of a batch's limits
_LIMITS = Limits()

Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=10_000_000)]
Days = Annotated[float, Meta(ge=0, le=100_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
#: of a batch: an option of `submit`, not a setting
Priority = Annotated[int, Meta(ge=-1_000_000, le=1_000_000)]
#: calendar days of a window, at most a century
MOST_DAYS = 36_500
WindowDays = Annotated[int, Meta(ge=1, le=MOST_DAYS)]
Slots = Literal["auto"] | Annotated[int, Meta(ge=1, le=64)]


def _cache_dir() -> Path:
    if directory := os.environ.get("CACHE_DIRECTORY"):
        return Path(directory.partition(":")[0])
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "gpusched"


def _state_dir() -> Path:
    if directory := os.environ.get("STATE_DIRECTORY"):
        return Path(directory.partition(":")[0])
    return Path(os.environ.get("XDG_STATE_HOME") or home() / ".local" / "state") / "gpusched"


class Data(Struct, frozen=True, kw_only=True):
    root: Path = Path("data")
    #: empty: 1d, or a symbol's only interval
    interval: str = ""
    columns: Annotated[dict[str, str], Meta(description='a table such as {volume = "vol"}')] = {}
    timezone: str = ""
    date_format: str = ""
    decimal: Literal[".", ","] = "."
    strict: bool = False


class Windows(Struct, frozen=True, kw_only=True):
    start: dt.date | None = None
    end: dt.date | None = None
    days: WindowDays = 180
    #: 0: as long as a window
    stride_days: Annotated[int, Meta(ge=0, le=MOST_DAYS)] = 0
    anchored: bool = False


class Labels(Struct, frozen=True, kw_only=True):
    horizon: Horizon = 7
    threshold: Threshold = 0.02


class Split(Struct, frozen=True, kw_only=True):
    method: Literal["chronological", "random"] = "chronological"
    validation_fraction: Fraction = 0.2
    validation_days: ValidationDays = 0


class Training(Struct, frozen=True, kw_only=True):
    min_rows: MinRows = 20


class Run(Struct, frozen=True, kw_only=True):
    output: Path = Path("gpusched-runs")
    #: None: within the output directory
    state_dir: Path | None = None
    #: results of all directories that earlier batches have written to
    reuse_known: bool = False
    #: an entry point (`gpusched.core.entry_point`)
    workload: str = BUILT_IN_WORKLOAD
    device: DeviceChoice = "auto"
    workers: Count = 0
    max_failure_rate: Share = _LIMITS.max_failure_rate
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = _LIMITS.max_attempts
    timeout_s: Seconds = _LIMITS.timeout_s
    grace_s: Seconds = _LIMITS.grace_s
    backoff_s: Seconds = _LIMITS.backoff_s
    backoff_max_s: Seconds = _LIMITS.backoff_max_s
    memory_limit_mb: Count = _LIMITS.memory_limit_bytes // MEGABYTE
    log_limit_mb: Count = _LIMITS.log_limit_bytes // MEGABYTE
    breaker_failures: Count = _LIMITS.breaker_failures


class Command(Struct, frozen=True, kw_only=True):
    #: a program and its arguments, as one text or as a list of words
    line: str | tuple[str, ...] = ()
    exit_codes: Annotated[
        ExitCodes,
        Meta(description="a table such as {success = [0], skip = [2], permanent = [3]} of codes from 0 to 255"),
    ] = ExitCodes()
    preload: tuple[str, ...] = ()


class Devices(Struct, frozen=True, kw_only=True):
    fallback: Literal["cpu", "none"] = "cpu"
    slots: Slots = "auto"
    #: slots by device, which is named as in `include`
    slots_by_device: dict[str, Slots] = {}
    #: GPUs to use (empty: all), and GPUs not to use: `gpusched.devices.naming` explains the names
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_cpu_opencl: bool = False
    cpu_slots: Literal["auto"] | Annotated[int, Meta(ge=0, le=1024)] = "auto"


class Cache(Struct, frozen=True, kw_only=True):
    dir: Path = msgspec.field(default_factory=_cache_dir)
    keep_days: Days = 30.0
    limit_mb: Count = 20_000


class Daemon(Struct, frozen=True, kw_only=True):
    state_dir: Path = msgspec.field(default_factory=_state_dir)
    socket: Path | None = None
    group: str = ""
    #: octal; empty: as the umask says
    output_mode: Annotated[str, Meta(pattern="^(|0?7[0-7]{2})$", description="a mode such as 0750")] = ""
    #: directories that data and outputs must be in (empty: anywhere), and the workloads allowed (empty: any)
    roots: tuple[Path, ...] = ()
    workloads: tuple[str, ...] = ()
    idle_launcher_s: Seconds = 300.0
    #: keep a launcher ready for run.workload, whatever idle_launcher_s says
    warm: bool = False
    stop_limit_s: Annotated[float, Meta(ge=1, le=10_000_000)] = 300.0
    keep_days: Days = 90.0


class Engine(Struct, frozen=True, kw_only=True):
    kind: Literal["local", "ray"] = "local"
    #: of a Ray cluster
    address: str = "auto"
    #: the cluster's interpreter; empty: this one
    python: str = ""
    #: the nodes have this machine's data, outputs, cache and state, at the same paths
    shared_root: bool = False
    #: where nodes keep inputs and results if there is no shared root; `%u` is the user's number
    scratch: Annotated[str, Meta(pattern="^/")] = "/var/tmp/gpusched-%u"  # noqa: S108  # private


class Hooks(Struct, frozen=True, kw_only=True):
    command: tuple[str, ...] = ()
    timeout_s: Seconds = 30.0


class Metrics(Struct, frozen=True, kw_only=True):
    listen: Annotated[str, Meta(pattern=r"^(|(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5})$", description="HOST:PORT")] = ""


class Config(Struct, frozen=True, kw_only=True):
    """All settings; paths are absolute."""

    data: Data = Data()
    windows: Windows = Windows()
    labels: Labels = Labels()
    split: Split = Split()
    training: Training = Training()
    #: LightGBM's parameters, which override the workload's defaults
    lightgbm: dict[str, Any] = {}
    #: the settings of a user's workload, JSON-compatible
    workload: dict[str, Any] = {}
    run: Run = Run()
    command: Command = Command()
    devices: Devices = Devices()
    cache: Cache = msgspec.field(default_factory=Cache)
    daemon: Daemon = msgspec.field(default_factory=Daemon)
    engine: Engine = Engine()
    hooks: Hooks = Hooks()
    metrics: Metrics = Metrics()


SECTIONS: dict[str, type[Struct]] = {
    "data": Data,
    "windows": Windows,
    "labels": Labels,
    "split": Split,
    "training": Training,
    "run": Run,
    "command": Command,
    "devices": Devices,
    "cache": Cache,
    "engine": Engine,
    "daemon": Daemon,
    "hooks": Hooks,
    "metrics": Metrics,
}
#: the names of all sections
ALL_SECTIONS = (*SECTIONS, *OPEN_SECTIONS)


def bounds(section: type[Struct], key: str) -> tuple[float, float]:
    """The least and the greatest value of a setting that is a number with both."""
    return range_of(get_type_hints(section, include_extras=True)[key])


def range_of(number: Any) -> tuple[float, float]:
    """The least and the greatest value of an annotated type such as `Count`."""
    (meta,) = number.__metadata__
    return meta.ge, meta.le


def keys() -> list[str]:
    """Every `section.key` of the sections that have a struct."""
    return [f"{section}.{key}" for section, struct in SECTIONS.items() for key in struct.__struct_fields__]
