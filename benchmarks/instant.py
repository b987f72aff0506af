"""An engine whose windows end as soon as they are launched, without a process: the rest is the supervisor's cost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import anyio
import msgspec

from benchmarks.makespan import RESULT
from gpusched.core.events import Event, HostRead
from gpusched.core.failures import Exit
from gpusched.core.model import Batch, BatchSpec, Device, DeviceChoice, HostReading, PlannedWindow, WindowResult
from gpusched.devices.kind import Discovery
from gpusched.devices.processors import Machine
from gpusched.engines.attendance import OnMessage
from gpusched.engines.condition import Condition
from gpusched.engines.engine import (
    End,
    Found,
    LeftBehind,
    LogPiece,
    Noticed,
    Verdict,
    WindowAttendant,
    WorkloadNotLoadable,
)
from gpusched.worker.messages import (
    Inspection,
    Needs,
    Progress,
    SettingsChecked,
    SettingsJob,
    SurveyedWindow,
    SurveyJob,
)

#: a window of this symbol runs until it is signalled
ENDLESS = "ENDLESS"
#: a workload that does not exist
NOWHERE = "nowhere:train"


class InstantEngine:
    """Windows succeed at once, but those of `ENDLESS`; every GPU trains, and every symbol has 100 rows a window."""

    def __init__(self, found: Discovery = Discovery(devices=(), notes=())) -> None:  # noqa: B008 - it is frozen
        self.condition = Condition()
        self.machines: tuple[Found, ...] = (Found(Machine(cores=1, processor="none"), found),)
        self.cache_dir = Path("/")
        self.starts = 0
        self._last_pid = 0
        self._running: set[InstantWindow] = set()
        self._results: dict[str, WindowResult] = {}
        self._logs: dict[str, bytes] = {}

    # -- the devices ---------------------------------------------------------------------------------------------------

    async def run(self, post: Callable[[Event], None], notice: Callable[[Noticed], None]) -> None:
        await anyio.sleep_forever()

    def watch(self, devices: Iterable[Device]) -> None:
        pass

    async def judge(
        self,
        devices: Iterable[Device],
        wanted: DeviceChoice,
        tell: Callable[[Verdict], None],
        *,
        afresh: Collection[str] = (),
    ) -> None:
        for device in devices:
            tell(Verdict(device, trains=True))

    def read_host(self) -> HostRead:
        return HostRead(reading=HostReading())

    # -- processes -----------------------------------------------------------------------------------------------------

    async def preload(self, spec: BatchSpec, needed_by: Needs = "window") -> None:
        if spec.workload == NOWHERE:
            raise WorkloadNotLoadable(message="there is no module 'nowhere'", traceback="")

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
        self._last_pid += 1
        directory = f"{batch.output_dir}/{planned.window.label}"
        window = InstantWindow(
            self._last_pid,
            msgspec.structs.replace(RESULT, artifacts_path=directory, device_type=device.lightgbm_type),
            attendant,
            self._running,
            endless=planned.window.symbol == ENDLESS,
        )
        if planned.fingerprint is not None:
            self._results[directory] = window.result
            self._logs[log] = f"trained {planned.window.label}\n".encode()
        asyncio.get_running_loop().call_soon(window.run)

    async def inspect(self, job: Inspection, on_message: OnMessage, *, log: str) -> str:
        if isinstance(job, SettingsJob):
            on_message(SettingsChecked(refusals={}))
            return "exit code 0"
        assert isinstance(job, SurveyJob)
        for piece in job.symbols:
            for window in piece.windows:
                on_message(
                    SurveyedWindow(
                        planned=PlannedWindow(window=window, bars=100, usable_rows=100, fingerprint="f" * 64)
                    )
                )
        return "exit code 0"

    def withdraw(self, log: str) -> None:
        pass

    def interrupt(self, spec: BatchSpec) -> None:
        pass

    async def abandon(self) -> list[LeftBehind]:
        for window in tuple(self._running):
            window.signal(signal.SIGKILL)
        return []

    async def sweep(self) -> tuple[int, ...]:
        return ()

    # -- results and logs ----------------------------------------------------------------------------------------------

    def verify(self, batch: Batch, planned: PlannedWindow) -> WindowResult | None:
        return self._results.get(f"{batch.output_dir}/{planned.window.label}")

    def log_path(self, log: str) -> Path:
        return Path("/", log)

    async def read_log(self, log: str, offset: int) -> LogPiece | None:
        text = self._logs.get(log)
        return None if text is None else LogPiece(offset, text[offset:])

    async def remove_logs(self, batch_id: str) -> None:
        self._logs = {name: text for name, text in self._logs.items() if not name.startswith(f"{batch_id}/")}


class InstantWindow:
    """A window that has been trained already, or never will be."""

    def __init__(
        self,
        pid: int,
        result: WindowResult,
        attendant: WindowAttendant,
        running: set[InstantWindow],
        *,
        endless: bool,
    ) -> None:
        """It is one of `running` until its end."""
        self.pid = pid
        self.result = result
        self._attendant = attendant
        self._running = running
        self._endless = endless
        running.add(self)

    def run(self) -> None:
        """Start, and end at once."""
        self._attendant.started(self)
        if self._endless:
            self._attendant.heard(Progress(phase="waiting"))
        else:
            self._attendant.heard(self.result)
            self._end(Exit(exit_code=0))

    def signal(self, signum: int) -> None:
        if self in self._running:
            self._end(Exit(signal=signum, killer="gpusched" if signum == signal.SIGKILL else "unknown"))

    def _end(self, how: Exit) -> None:
        self._running.discard(self)
        self._attendant.ended(End(exit=how))
