"""What a workload is: the interface between gpusched and the function that a window process runs.

A workload is named by an entry point string `package.module:function`. The function has this shape::

    def train_window(task: Task, directory: Path, report: Report) -> Result

It writes its artifacts into `directory`, which gpusched hashes, fsyncs and renames into place when the function
returns; it calls `report` as often as it likes. It raises `NoData` where there is nothing to train on, and the window
is skipped; `BadData` or `BadParameters` for what no retry can cure; any other exception is a failure that may be tried
again.

Its module may also define

- `survey(task: SurveyTask) -> SymbolSurvey`: what the windows of a symbol would find, before anything is trained. It
  raises `NoData` or `BadData` for a symbol none of whose windows can be trained; any other exception says nothing about
  the data, and the windows run. A list of `WindowSurvey` is taken, too;
- `warm_up(device_type: DeviceType) -> Trial`: whether windows can really be trained on the one GPU that the process
  sees. Called in a process of its own, once for each model of GPU, before its slots open; what it leaves in the
  driver's kernel cache, windows will find. Without it, a GPU is taken for one that works;
- `preload_survey() -> None`, `preload() -> None`: import what surveys need, and all that windows need. Each is called
  once in the launcher, before the first is forked from it, and must not start threads nor touch a GPU.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any, Protocol

import msgspec

from gpusched.core.calendar import Days as Days
from gpusched.core.model import DataNote as DataNote
from gpusched.core.model import DeviceType as DeviceType
from gpusched.core.model import window_label as window_label


class DateRange(msgspec.Struct, frozen=True):
    """Calendar dates, both ends inclusive."""

    start: dt.date
    end: dt.date


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One window, as its process sees it."""

    symbol: str
    start: dt.date
    end: dt.date
    #: absolute path of the directory that holds the symbols' bars
    data_root: str
    #: absolute path of a directory for caches shared by all windows
    cache_dir: str
    #: the workload's own settings, opaque to gpusched
    settings: dict[str, Any]
    #: LightGBM's device type, already resolved for the slot
    device_type: DeviceType = "cpu"
    #: UUID of the GPU that the process is pinned to (it is device 0 inside), or "cpu"
    device: str = "cpu"
    #: threads that the window may use: its share of the cores
    threads: int = 1

    @property
    def label(self) -> str:
        return window_label(self.symbol, self.start, self.end)


class SurveyTask(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of one symbol, to be looked at but not trained."""

    symbol: str
    windows: tuple[DateRange, ...]
    data_root: str
    cache_dir: str
    settings: dict[str, Any]


class WindowSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """A window's data, as its training would find them. One with neither `skip_reason` nor `refusal` can be trained."""

    start: dt.date
    end: dt.date
    #: bars in the date range
    bars: int
    #: rows that can be trained on or validated with
    usable_rows: int
    #: there is nothing to train on
    skip_reason: str | None = None
    #: its data cannot be used
    refusal: str | None = None
    #: what would help with either, for people
    remedy: str = ""
    #: hex digest of all that determines the result except the device type; None if the workload has none
    fingerprint: str | None = None


class SymbolSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a symbol, as a survey found them."""

    #: those of the task, one by one, in its order
    windows: tuple[WindowSurvey, ...]
    #: what people should know about the data
    notes: tuple[DataNote, ...] = ()
    #: the calendar days that have data, within the windows; compared with those of the batch's other symbols. None: not
    #: to be compared
    days: Days | None = None
    #: days that are missing are a refusal, not a note
    strict: bool = False


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a workload function returns for a window that it trained."""

    #: JSON-compatible; undefined values are None, never NaN
    metrics: dict[str, Any]
    sample_counts: dict[str, int]
    #: further JSON-compatible entries for metadata.json (parameters, versions, …)
    metadata: dict[str, Any]
    #: seconds by phase, in order
    phases: dict[str, float]
    #: as in `WindowSurvey`
    fingerprint: str | None = None


class Trial(msgspec.Struct, frozen=True, kw_only=True, tag="trial"):
    """What came of training a tiny model on a device type."""

    trained: bool
    #: of the library that trains
    version: str | None = None
    #: as the library's driver names it
    device: str | None = None
    #: why it did not train; None if it did
    why: str | None = None


class Report(Protocol):
    """Tells the supervisor how far a window is. Cheap to call: calls in quick succession are merged."""

    def __call__(self, phase: str, round: int = 0, rounds: int = 0) -> None: ...


class NoData(Exception):
    """There is nothing to train on: no file, no bars in the range, too few rows, one class. The window is skipped."""

    def __init__(self, why: str = "", *, remedy: str = "") -> None:
        """`remedy` says what would help, in words that can follow any other sentence: `give --interval 1day`."""
        super().__init__(why)
        self.remedy = remedy


class BadData(Exception):
    """The data of this window cannot be used, and trying again will not change that. The window has failed."""

    def __init__(self, why: str = "", *, remedy: str = "") -> None:
        """As for `NoData`."""
        super().__init__(why)
        self.remedy = remedy


class BadParameters(Exception):
    """The workload's settings are wrong, and trying again will not change that."""


class DeviceMismatch(Exception):
    """The window did not get the device that it was promised."""


def device_fingerprint(fingerprint: str, device_type: DeviceType) -> str:
    """The fingerprint of a result: that of its inputs, and the device type that it was trained on."""
    return hashlib.sha256(f"{fingerprint}\n{device_type}".encode()).hexdigest()
