"""The interface of a workload: of the function that a window process runs.

A workload is named by an entry point, `package.module:function` or `./file.py:function`. The function has this shape::

    def train_window(task: Task, directory: Path, report: Report) -> Result

The function writes its artifacts into `directory`, which gpusched hashes, fsyncs and renames into place when it
returns, and calls `report` as often as it likes. It raises `NoData` if there is nothing to train on, and the window is
skipped; `BadData` or `BadParameters` for a fault that no retry can cure; any other exception is a failure that may be
retried.

Its module may also define

- `settings(raw: dict[str, Any]) -> Any`: check the settings that a user gave (the table `[workload]` of config.toml and
  `--set workload.alpha=0.1`), and return them as `Task.settings` shall have them. It may be a dataclass or a
  `msgspec.Struct` itself: then keys that it lacks and values of other types are refused. A ValueError, a TypeError or
  `BadParameters` refuses the batch before anything starts; best name the setting in its message. It is called in each
  process, so it should be quick. Without it any settings are taken as they are;
- `check_settings(settings: Any) -> None`: checks that take longer, called once before a batch starts with what
  `settings` returned, in a process of its own;
- `survey(task: SurveyTask) -> SymbolSurvey`: inspect the data of a symbol's windows before anything is trained. It
  raises `NoData` or `BadData` for a symbol none of whose windows can be trained; any other exception says nothing about
  the data, and the windows run. It may also return a list of `WindowSurvey`. In a sweep it is called for each point,
  with the settings there; the tasks of one symbol have one dict `shared`;
- `inputs(task: Task) -> Iterable[str | Path]`: the files below the data root that the windows of `task.symbol` read,
  absolute or relative to it. Where nodes of a cluster share no files with the supervisor, these are sent to them: it is
  called there once for each symbol and each settings. Without it, they are `<SYMBOL>/**` and `<SYMBOL>.*`;
- `warm_up(device_type: DeviceType) -> Trial`: try whether windows can be trained on the one GPU that the process sees.
  It is called in a separate process, once for each model of GPU, before its slots open; kernels that it leaves in the
  driver's cache are ready for the windows. Without this function, a GPU is assumed to work;
- `OPENS_DEVICE = False`: a window's own process leaves the GPU alone, since it starts a program that uses it;
- `preload_survey() -> None`, `preload() -> None`: import the modules that surveys need, and those that windows need.
  Each is called once in the launcher, before the first process of its kind is forked from it, and must neither start
  threads nor touch a GPU.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any, Literal, Protocol

import msgspec

from gpusched.core.calendar import Days as Days
from gpusched.core.model import DataNote as DataNote
from gpusched.core.model import DeviceType as DeviceType
from gpusched.core.model import window_label as window_label

#: kinds of failure of a program; "exited": another attempt may help
ProgramFault = Literal["exited", "permanent", "memory", "device_memory", "device_lost"]


class DateRange(msgspec.Struct, frozen=True):
    """Calendar dates, both ends inclusive."""

    start: dt.date
    end: dt.date


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """The input of a window's process."""

    symbol: str
    start: dt.date
    end: dt.date
    #: absolute path of the directory that holds the symbols' bars
    data_root: str
    #: absolute path of a directory for caches shared by all windows
    cache_dir: str
    #: the workload's own settings: the table `[workload]`, or what its `settings` made of that
    settings: Any
    #: LightGBM's device type, already resolved for the slot
    device_type: DeviceType = "cpu"
    #: UUID of the GPU that the process is pinned to (it is device 0 inside), or "cpu"
    device: str = "cpu"
    #: threads that the window may use: its share of the cores
    threads: int = 1
    #: paths of the indexes (teacher_runs.json) of the batches that its own had to wait for (`submit --after`)
    after: tuple[str, ...] = ()
    #: the label, where it is not made of the symbol and the dates alone
    name: str = ""

    @property
    def label(self) -> str:
        return self.name or window_label(self.symbol, self.start, self.end)


class SurveyTask(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of one symbol at one point of a sweep, to be looked at but not trained."""

    symbol: str
    windows: tuple[DateRange, ...]
    data_root: str
    cache_dir: str
    #: as in `Task`
    settings: Any
    #: kept for the next points of the same symbol: a place for what does not depend on the point
    shared: dict[Any, Any] = {}


class WindowSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """The data of one window. A window with neither `skip_reason` nor `refusal` can be trained."""

    start: dt.date
    end: dt.date
    #: bars in the date range
    bars: int
    #: rows that can be used for training or validation
    usable_rows: int
    #: why there is nothing to train on, or None
    skip_reason: str | None = None
    #: why its data cannot be used, or None
    refusal: str | None = None
    #: the remedy for either, for people
    remedy: str = ""
    #: hex digest of all that determines the result except the device type; None if the workload has none. The `Result`
    #: of the function has to repeat it: else the data count as changed, and the window is trained each time
    fingerprint: str | None = None


class SymbolSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a symbol: the result of its survey."""

    #: one for each window of the task, in the same order
    windows: tuple[WindowSurvey, ...]
    #: notes on the data, for people
    notes: tuple[DataNote, ...] = ()
    #: the calendar days within the windows that have data, to be compared with those of the batch's other symbols;
    #: None: not compared
    days: Days | None = None
    #: True: windows with missing days are refused; False: they only get a note
    strict: bool = False


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The return value of a workload function: a trained window. A dictionary alone is its metrics."""

    #: JSON-compatible; undefined values are None, never NaN
    metrics: dict[str, Any]
    sample_counts: dict[str, int] = {}
    #: further JSON-compatible entries for metadata.json (parameters, versions, …)
    metadata: dict[str, Any] = {}
    #: seconds by phase, in order
    phases: dict[str, float] = {}
    #: as in `WindowSurvey`
    fingerprint: str | None = None
    #: whether the model gives every row of the validation the same prediction: such models are counted; None: not told
    constant: bool | None = None


class Trial(msgspec.Struct, frozen=True, kw_only=True, tag="trial"):
    """The result of training a tiny model on a device type."""

    trained: bool
    #: version of the training library
    version: str | None = None
    #: name of the device, from the library's driver
    device: str | None = None
    #: why it did not train; None if it did
    why: str | None = None


class Report(Protocol):
    """Report the progress of a window, from any thread. Cheap: calls in quick succession are merged."""

    def __call__(self, phase: str, round: int = 0, rounds: int = 0) -> None: ...


class NoData(Exception):
    """There is nothing to train on: no file, no bars in the range, too few rows, one class. The window is skipped."""

    def __init__(self, why: str = "", *, remedy: str = "") -> None:
        """`remedy` is a phrase that can follow any sentence, such as `give --interval 1day`."""
        super().__init__(why)
        self.remedy = remedy


class BadData(Exception):
    """The data of this window cannot be used, and a retry will not change that. The window fails."""

    def __init__(self, why: str = "", *, remedy: str = "") -> None:
        """As for `NoData`."""
        super().__init__(why)
        self.remedy = remedy


class BadParameters(Exception):
    """The workload's settings are wrong, and a retry will not change that."""


class ProgramSkipped(NoData):
    """The program of a window has said that there is nothing to train on."""

    def __init__(self, why: str, output: str = "") -> None:
        """`output` is the end of the program's output, which is in the log already."""
        super().__init__(why)
        self.output = output


class ProgramFailed(Exception):
    """The program of a window has failed."""

    def __init__(self, why: str, kind: ProgramFault, output: str = "") -> None:
        """`output` as for `ProgramSkipped`."""
        super().__init__(why)
        self.kind = kind
        self.output = output


class ProgramKilled(Exception):
    """The program of a window has died of a signal; the window's process dies of the same."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"killed by signal {signal}")
        self.signal = signal


class DeviceMismatch(Exception):
    """The window did not get the device that it was promised."""


def device_fingerprint(fingerprint: str, device_type: DeviceType) -> str:
    """The fingerprint of a result: a digest of the inputs' fingerprint and the device type it was trained on."""
    return hashlib.sha256(f"{fingerprint}\n{device_type}".encode()).hexdigest()
