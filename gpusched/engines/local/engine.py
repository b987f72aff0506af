"""This machine as an engine: its GPUs and processors, and the processes that launchers fork here."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Collection, Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread

from gpusched import artifacts, directories, files
from gpusched.command import imports
from gpusched.config import Config
from gpusched.config.workloads import workload_settings
from gpusched.core.events import Event, HostRead
from gpusched.core.failures import CRASHES, Exit, Killer
from gpusched.core.model import (
    Batch,
    BatchSpec,
    Device,
    DeviceChoice,
    DeviceKind,
    PlannedWindow,
    WindowKey,
    WindowResult,
)
from gpusched.core.placement import types_for
from gpusched.core.states import Usage
from gpusched.devices.host import Processors
from gpusched.devices.kind import UNKNOWN, Accounted, Answers, Discovery, Kind
from gpusched.devices.memory import HostMemory
from gpusched.devices.nvidia.gpus import Gpus
from gpusched.devices.processors import this_machine
from gpusched.engines.attendance import OnMessage
from gpusched.engines.condition import Condition
from gpusched.engines.engine import End, Found, LeftBehind, LogPiece, Noticed, Verdict, WindowAttendant
from gpusched.engines.local import leftovers, proc
from gpusched.engines.local.groups import KILL_GRACE_S
from gpusched.engines.local.jobs import window_job
from gpusched.engines.local.launcher import Confines, Launcher
from gpusched.engines.local.logs import end_of_log
from gpusched.engines.local.process import Process
from gpusched.engines.local.warm_up import WarmUp, launcher_environment
from gpusched.engines.tasks import Tasks
from gpusched.errors import LaunchError
from gpusched.worker.messages import Inspection, Needs, PipeMessage, ProcessEnd
from gpusched.worker.threads import capped
from gpusched.workload import device_fingerprint

#: bytes in a piece of a log
PIECE_BYTES = 128 * 1024
#: seconds after which the messages of a window are read as they come; those of a shorter one are read at its end
READ_AFTER_S = 0.1


class LocalEngine:
    """See the module. Use as an async context manager: leaving it ends all of its processes.

    Logs are kept below `logs_dir`, by default `<state_dir>/logs`, those of the launcher and of trials in `state_dir`.
    `discovery`: the GPUs that the operator's mask allows. `mark`: the store's, by which the next supervisor finds what
    this one leaves. `standing`: it works for a daemon, so GPUs may appear later, launchers without windows exit, and a
    user's own workload is found on PYTHONPATH only, not in the current directory. Entering it raises NoProc.
    """

    def __init__(
        self,
        config: Config,
        state_dir: Path,
        discovery: Discovery,
        *,
        logs_dir: Path | None = None,
        mark: str | None = None,
        standing: bool = False,
    ) -> None:
        self.condition = Condition()
        self.machines: tuple[Found, ...] = (Found(this_machine(), discovery),)
        self.cache_dir = config.cache.dir
        self.memory = HostMemory()
        self.kinds: dict[DeviceKind, Kind] = {
            "nvidia": Gpus(discovery, standing=standing, windows=self.memory.windows),
            "host": Processors(self.memory),
        }
        self.launcher = Launcher(
            log_path=state_dir / "launcher.log",
            search_path=None if standing else Path.cwd(),
            idle_timeout_s=config.daemon.idle_launcher_s if standing else None,
            kept=_kept_ready(config) if standing and config.daemon.warm else None,
            environment=launcher_environment(config),
            mark=mark,
            condition=self.condition,
        )
        self._warm_up = WarmUp(
            self.launcher, self.environment, workload=config.run.workload, log_path=state_dir / "warm_up.log"
        )
        self.logs_dir = logs_dir or state_dir / "logs"
        self._mark = mark
        #: processes that an earlier supervisor has left and that do not die
        self._undying: list[int] = []
        #: the windows of the processes that run now
        self._windows: dict[int, WindowKey] = {}
        self._accounting = Tasks()

    async def __aenter__(self) -> Self:
        proc.require()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self.kinds.values():
            one.close()
        with anyio.CancelScope(shield=True):
            await self.launcher.aclose()

    # -- the devices ---------------------------------------------------------------------------------------------------

    async def run(self, post: Callable[[Event], None], notice: Callable[[Noticed], None]) -> None:
        (here,) = self.machines

        def found_or_answers(noticed: Answers | Discovery) -> None:
            notice(Found(here.machine, noticed) if isinstance(noticed, Discovery) else noticed)

        async with anyio.create_task_group() as tasks:
            for kind in self.kinds.values():
                tasks.start_soon(kind.run, post, found_or_answers)
            for pid in self._undying:
                tasks.start_soon(leftovers.watch, pid, self.condition)

    def watch(self, devices: Iterable[Device]) -> None:
        watched = tuple(devices)
        for name, kind in self.kinds.items():
            kind.watch(device for device in watched if device.kind == name)

    async def judge(
        self,
        devices: Iterable[Device],
        wanted: DeviceChoice,
        tell: Callable[[Verdict], None],
        *,
        afresh: Collection[str] = (),
    ) -> None:
        await self._warm_up.judge(devices, wanted, tell, afresh=afresh)

    def read_host(self) -> HostRead:
        return self.memory.read()

    # -- processes -----------------------------------------------------------------------------------------------------

    async def preload(self, spec: BatchSpec, needed_by: Needs = "window") -> None:
        await self.launcher.preload(spec.workload, needed_by, imports(spec.workload, spec.settings))

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
        limits = batch.spec.limits
        confines = Confines(
            log_path=self.log_path(log),
            env=self.environment(device),
            cpus=device.cpus,
            memory_limit_bytes=limits.memory_limit_bytes or None,
            log_limit_bytes=limits.log_limit_bytes,
        )
        window = LocalWindow(self, WindowKey(batch.id, planned.window.label), device, attendant, confines)
        job = window_job(batch, planned, device, self.cache_dir)
        try:
            self.launcher.start(job, window, confines, read_after_s=READ_AFTER_S)
        except (LaunchError, OSError) as error:
            attendant.refused(error)

    def environment(self, device: Device) -> dict[str, str | None]:
        """The variables that pin a process to `device`, and limit it to the device's share of the cores."""
        return self.kinds[device.kind].environment(device) | capped(device.threads)

    def take(self, process: Process, key: WindowKey) -> None:
        """Take note of a window's process."""
        self._windows[process.pid] = key
        self.memory.follow(process.pid, process.shared_bytes)

    def forget(self, process: Process) -> None:
        """Take note that a window's process is gone."""
        self._windows.pop(process.pid, None)
        self.memory.forget(process.pid)

    def account(self, accounting: Coroutine[Any, Any, None]) -> None:
        """Ask a device's driver for its account of a process, in a task."""
        self._accounting.start(accounting)

    async def inspect(self, job: Inspection, on_message: OnMessage, *, log: str) -> str:
        confines = Confines(log_path=self.log_path(log), env={"CUDA_VISIBLE_DEVICES": ""})
        process = await self.launcher.fork(job, confines)
        end = await process.wait(on_message)
        if end.launcher_lost:
            raise self.launcher.loss()
        return end.violation or end.status

    def withdraw(self, log: str) -> None:
        """No window is ahead on this machine."""

    def interrupt(self, spec: BatchSpec) -> None:
        self.launcher.kill(spec.workload, imports(spec.workload, spec.settings))

    async def abandon(self) -> list[LeftBehind]:
        windows = dict(self._windows)
        left = []
        for pid in await self.launcher.abandon():
            seen = proc.look(pid)
            left.append(LeftBehind(pid, None if seen is None else windows.get(seen.group), proc.doing(pid)))
        return left

    async def sweep(self) -> tuple[int, ...]:
        if self._mark is None:
            return ()
        ended, self._undying = await leftovers.end(self._mark, KILL_GRACE_S)
        return tuple(ended)

    @property
    def starts(self) -> int:
        return self.launcher.starts

    # -- results and logs ----------------------------------------------------------------------------------------------

    def verify(self, batch: Batch, planned: PlannedWindow) -> WindowResult | None:
        if planned.fingerprint is None:
            return None
        fingerprints = {device_fingerprint(planned.fingerprint, kind) for kind in types_for(batch.device)}
        directory = Path(batch.output_dir) / planned.window.label
        metadata = artifacts.verify(directory, fingerprints)
        return None if metadata is None else metadata.result(directory)

    def log_path(self, log: str) -> Path:
        return self.logs_dir / log

    async def read_log(self, log: str, offset: int) -> LogPiece | None:
        path = self.log_path(log)
        try:
            descriptor = files.open_regular(path)
        except OSError:
            return None
        try:
            position, most, offset = self.launcher.logs.find(path, offset)
            return LogPiece(offset, os.pread(descriptor, min(most, PIECE_BYTES), position))
        finally:
            os.close(descriptor)

    async def remove_logs(self, batch_id: str) -> None:
        await anyio.to_thread.run_sync(_remove_logs, self.logs_dir, batch_id)


class LocalWindow:
    """A window's process, and what the kernel and the driver say of its end."""

    def __init__(
        self,
        engine: LocalEngine,
        key: WindowKey,
        device: Device,
        attendant: WindowAttendant,
        confines: Confines,
    ) -> None:
        self.pid = 0
        self._confines = confines
        self._engine = engine
        self._key = key
        self._device = device
        self._attendant = attendant
        self._process: Process

    def signal(self, signum: int) -> None:
        self._process.signal(signum)

    # -- the attendant of the process ----------------------------------------------------------------------------------

    def refused(self, error: LaunchError | OSError) -> None:
        self._attendant.refused(error)

    def started(self, process: Process) -> None:
        self._process, self.pid = process, process.pid
        self._engine.take(process, self._key)
        self._attendant.started(self)

    def heard(self, message: PipeMessage) -> None:
        self._attendant.heard(message)

    def stuck(self, trouble: str) -> None:
        self._attendant.stuck(trouble)

    def ended(self, end: ProcessEnd) -> None:
        self._engine.forget(self._process)
        if self._engine.kinds[self._device.kind].counts(self._device):
            self._engine.account(self._account(end))
        else:
            self._tell(end, UNKNOWN)

    async def _account(self, end: ProcessEnd) -> None:
        self._tell(end, await self._engine.kinds[self._device.kind].account(self._device, self.pid))

    def _tell(self, end: ProcessEnd, accounted: Accounted) -> None:
        own = max(0, end.peak_memory_bytes - self._process.shared_bytes) if end.peak_memory_bytes else None
        usage = Usage(
            cpu_seconds=end.cpu_seconds,
            peak_memory_bytes=end.peak_memory_bytes,
            device_memory_bytes=accounted.memory_bytes,
            device_seconds=accounted.seconds,
            own_memory_bytes=own,
        )
        self._attendant.ended(
            End(exit=self._exit(end), usage=usage, violation=end.violation, log_left_out_bytes=end.log_left_out_bytes)
        )

    def _exit(self, end: ProcessEnd) -> Exit:
        return Exit(
            launcher_lost=end.launcher_lost,
            exit_code=end.exit_code,
            signal=end.signal,
            killer=self._killer(end) if end.signal == signal.SIGKILL else "unknown",
            on_cpu=self._device.kind == "host",
            memory_limited=self._confines.memory_limit_bytes is not None or self._engine.memory.limited,
            log_end=end_of_log(self._confines.log_path) if end.exit_code or end.signal in CRASHES else "",
        )

    def _killer(self, end: ProcessEnd) -> Killer:
        """The sender of the SIGKILL that has ended the process."""
        if end.killed:
            return "gpusched"
        by_kernel = self._engine.memory.take_kill()
        return "unknown" if by_kernel is None else "kernel" if by_kernel else "somebody"


def _kept_ready(config: Config) -> tuple[str, tuple[str, ...]]:
    """The workload whose launcher `daemon.warm` keeps, and the modules that are imported beside it."""
    return config.run.workload, imports(config.run.workload, workload_settings(config))


def _remove_logs(logs_dir: Path, batch_id: str) -> None:
    with contextlib.suppress(FileNotFoundError), directories.opened(logs_dir) as logs:
        directories.remove(batch_id, logs)
