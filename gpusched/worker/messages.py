"""The messages between processes: supervisor ↔ launcher packets, and JSON lines from a window process.

Everything is a tagged msgspec struct, encoded as JSON. Packets between the supervisor and the launcher travel on a
`SOCK_SEQPACKET` socket pair, one message per packet; the messages of a window process travel on its own pipe, one per
line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from gpusched.core.calendar import Days
from gpusched.core.model import DataNote, DeviceType, PlannedWindow, Window, WindowResult
from gpusched.workload import ProgramFault, Task, Trial

#: A request that is longer travels in a memory file that is passed with an empty packet.
MAX_PACKET_BYTES = 64 * 1024
#: the first bytes of the packets of a reply that is longer, and of the last one of them; no message begins so
CONTINUED, LAST = b"+", b"."
#: A line from a window process that is longer than this fails the window.
MAX_LINE_BYTES = 4 * 1024 * 1024
#: A window process that sends more than this in all fails its window.
MAX_STREAM_BYTES = 64 * 1024 * 1024
#: Progress messages that a window process may send at once and per second; it merges its workload's reports.
PROGRESS_BURST = 200
PROGRESS_PER_S = 50


# -- jobs: the work of a forked process --------------------------------------------------------------------------------


class WindowJob(msgspec.Struct, frozen=True, kw_only=True, tag="window"):
    """Train one window and commit its artifacts to `output_dir/<label>`."""

    #: entry point, `package.module:function`
    workload: str
    task: Task
    output_dir: str
    #: no link may lead to `output_dir`
    guarded: bool = False
    #: modules that the launcher has imported for it, beside those of the workload
    imports: tuple[str, ...] = ()
    #: the windows of this name share content (`gpusched.shared`); empty: it shares none
    shares: str = ""


class SymbolWindows(msgspec.Struct, frozen=True):
    """Windows of one symbol that are to be looked at."""

    symbol: str
    windows: tuple[Window, ...]


class SurveyJob(msgspec.Struct, frozen=True, kw_only=True, tag="survey"):
    """Look at the windows of some symbols, and at results already committed for them."""

    workload: str
    data_root: str
    cache_dir: str
    #: `Task.settings` by point
    settings: dict[str, dict[str, Any]]
    symbols: tuple[SymbolWindows, ...]
    output_dir: str
    #: a committed result is reusable if it was trained on one of these
    device_types: tuple[DeviceType, ...]
    #: other output directories whose results may be reused
    reuse_from: tuple[str, ...] = ()
    #: whether results in the index below the cache may be reused, too, and of which client: as in `Existing`
    reuse_known: bool = False
    owner: int | None = None
    #: as in `WindowJob`: the same launcher serves both
    imports: tuple[str, ...] = ()
    #: as in `Task`
    after: tuple[str, ...] = ()


class SettingsJob(msgspec.Struct, frozen=True, kw_only=True, tag="settings"):
    """Check settings by the workload's own functions, each as `Task.settings` has them."""

    workload: str
    settings: tuple[dict[str, Any], ...]
    #: as in `WindowJob`
    imports: tuple[str, ...] = ()


class TrialJob(msgspec.Struct, frozen=True, kw_only=True, tag="trial"):
    """Try the workload on the device that the process is pinned to."""

    workload: str
    device_type: DeviceType
    #: UUID
    device: str
    #: as in `WindowJob`: the same launcher serves both; a trial needs none
    imports: tuple[str, ...] = ()


class InputsJob(msgspec.Struct, frozen=True, kw_only=True, tag="inputs"):
    """Say which files the windows of the task's symbol read, by the workload's own function or by their names."""

    workload: str
    task: Task
    #: as in `WindowJob`: the same launcher serves both
    imports: tuple[str, ...] = ()


Job = WindowJob | SurveyJob | SettingsJob | TrialJob | InputsJob
#: an engine's inspection in a process, without a device
Inspection = SurveyJob | SettingsJob | InputsJob
#: a survey needs less of the workload than a window does
Needs = Literal["survey", "window"]


# -- supervisor → launcher --------------------------------------------------------------------------------------------


class Preload(msgspec.Struct, frozen=True, kw_only=True, tag="preload"):
    """Import now the modules that the next forks need. Answered with `Preloaded` or `PreloadFailed`."""

    workload: str
    needed_by: Needs
    #: further modules that windows need
    imports: tuple[str, ...] = ()


class Fork(msgspec.Struct, frozen=True, kw_only=True, tag="fork"):
    """Fork a process for `job`. The packet carries two descriptors: the pipe's write end and the log file.

    Answered with `Forked`, `Refused` or `PreloadFailed`. The workload is loaded first if it is not yet; only a survey
    imports the modules that were not preloaded for it in its own process.
    """

    id: int
    job: Job
    #: environment on top of the launcher's own; None removes a variable
    env: dict[str, str | None]
    #: CPUs that the process may run on; empty: all of the launcher's
    cpus: tuple[int, ...] = ()
    #: limit on the process's private writable memory (RLIMIT_DATA), including inherited memory; None: unlimited
    memory_limit_bytes: int | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True, tag="claim"):
    """To a launcher process that was started before its supervisor; the packet carries its log. Not answered."""

    #: see `gpusched.engines.local.leftovers`
    mark: str
    #: variables on top of its environment
    environment: dict[str, str]


LauncherRequest = Preload | Fork | Claim


# -- launcher → supervisor --------------------------------------------------------------------------------------------


class Forked(msgspec.Struct, frozen=True, kw_only=True, tag="forked"):
    """The process exists. It shares `shared_bytes` of its memory with the launcher."""

    id: int
    pid: int
    shared_bytes: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The process could not be forked (no processes left, the launcher has more than one thread, …)."""

    id: int
    reason: str
    #: there is no memory for it
    out_of_memory: bool = False


class Gone(msgspec.Struct, frozen=True, kw_only=True, tag="gone"):
    """The process and its whole group are gone. Exactly one of `exit_code` and `signal` is set.

    `peak_memory_bytes` is resident memory, including memory shared with the launcher. `killed`: the launcher killed the
    process because the launcher itself was about to exit.
    """

    id: int
    exit_code: int | None
    signal: int | None
    cpu_seconds: float
    peak_memory_bytes: int
    killed: bool = False


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """The state of a file when it was read, or zeros for one that could not be seen."""

    path: str
    mtime_ns: int
    size: int
    inode: int


class Imported(msgspec.Struct, frozen=True, kw_only=True, tag="imported"):
    """The files of a user's workload that the launcher has imported: once one has changed, it runs old code."""

    files: tuple[Stamp, ...]


class Preloaded(msgspec.Struct, frozen=True, kw_only=True, tag="preloaded"):
    """The requested modules are imported: forked processes inherit them."""

    workload: str
    needed_by: Needs
    seconds: float


class PreloadFailed(msgspec.Struct, frozen=True, kw_only=True, tag="preload_failed"):
    """The workload cannot be imported: no window of it can run."""

    #: the fork that needed it; None in answer to `Preload`
    id: int | None = None
    workload: str
    needed_by: Needs
    message: str
    traceback: str


LauncherReply = Forked | Refused | Gone | Imported | Preloaded | PreloadFailed


def in_packets(reply: bytes) -> Sequence[bytes]:
    """The packets of an encoded reply."""
    if len(reply) <= MAX_PACKET_BYTES:
        return (reply,)
    *pieces, last = (reply[at : at + MAX_PACKET_BYTES - 1] for at in range(0, len(reply), MAX_PACKET_BYTES - 1))
    return [*(CONTINUED + piece for piece in pieces), LAST + last]


# -- window process → supervisor, one JSON object a line ---------------------------------------------------------------


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    pid: int


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    phase: str
    #: boosting round and the planned number of rounds, 0 outside of boosting
    round: int = 0
    rounds: int = 0


class SurveyedWindow(msgspec.Struct, frozen=True, kw_only=True, tag="surveyed"):
    """The plan of one window, as the survey found its data; `committed` can be reused instead of training."""

    planned: PlannedWindow


class SurveyedSymbol(msgspec.Struct, frozen=True, kw_only=True, tag="surveyed_symbol"):
    """The notes on a symbol's data, and its days with bars, sent before its windows; see `SymbolSurvey`.

    It is sent again for a point that finds others.
    """

    symbol: str
    notes: tuple[DataNote, ...]
    days: Days | None
    strict: bool


class SurveyFailed(msgspec.Struct, frozen=True, kw_only=True, tag="survey_failed"):
    """No window of a symbol, or none at one point of a sweep, can be trained.

    It has no data, or its data cannot be used, or the survey failed (`unknown`), which says nothing about the data.
    """

    symbol: str
    kind: Literal["no_data", "bad_data", "unknown"]
    reason: str
    remedy: str = ""
    #: None: all points
    point: str | None = None


class SurveyDone(msgspec.Struct, frozen=True, kw_only=True, tag="survey_done"):
    pass


class SettingsChecked(msgspec.Struct, frozen=True, kw_only=True, tag="settings_checked"):
    """The reasons why settings are refused, by their index in the job; after the first 20 no more are checked."""

    refusals: dict[int, str]


class InputFiles(msgspec.Struct, frozen=True, kw_only=True, tag="input_files"):
    """The files that the windows of a symbol read, by their paths within the data root."""

    names: tuple[str, ...]


ErrorKind = ProgramFault | Literal["no_data", "bad_data", "bad_parameters", "device_mismatch", "raised"]


class Error(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """The workload raised. `kind` says whether and how trying again can help."""

    kind: ErrorKind
    message: str
    traceback: str
    #: these three as in `gpusched.core.states.Failure`
    cause: str = ""
    place: str = ""
    source_line: str = ""


PipeMessage = (
    Started
    | Progress
    | WindowResult
    | SurveyedSymbol
    | SurveyedWindow
    | SurveyFailed
    | SurveyDone
    | SettingsChecked
    | InputFiles
    | Trial
    | Error
)


# -- the supervisor's view of how a process ended ----------------------------------------------------------------------


class ProcessEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The process and its whole group are gone, and its pipe is read to the end.

    `exit_code` and `signal` are both None if the launcher died first, which takes its windows with it; nothing was
    measured then either.
    """

    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    launcher_lost: bool = False
    #: bytes that were left out of its log, which had grown beyond its limit
    log_left_out_bytes: int = 0
    #: gpusched sent it SIGKILL
    killed: bool = False
    #: the forbidden output that the process wrote to its pipe; it was killed for it
    violation: str | None = None

    @property
    def status(self) -> str:
        """`signal 9` or `exit code 1`."""
        return f"signal {self.signal}" if self.signal else f"exit code {self.exit_code}"
