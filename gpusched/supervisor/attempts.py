"""Attempts: one attempt of a window from its launch to the verdict on it, doubts about its GPU included.

Two guards keep a GPU from being over-subscribed: the scheduler's ledger decides who holds which slot, and a semaphore
with one permit per slot guards the launch itself. The end of an attempt is posted as an event; the scheduler decides
about the window.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import msgspec

from gpusched import artifacts
from gpusched.command import imports
from gpusched.core.commands import Launch
from gpusched.core.events import (
    AttemptEnded,
    AttemptStarted,
    DeviceLost,
    DeviceRead,
    Event,
    ProcessStuck,
    ProgressReported,
)
from gpusched.core.failures import Exit, Killer, classify, out_of_host_memory
from gpusched.core.model import Batch, Device, PlannedWindow, Reading, WindowKey, WindowResult
from gpusched.core.placement import types_for
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Ending, Failure, Usage
from gpusched.devices.memory import HostMemory
from gpusched.devices.nvidia.accounting import Accounted
from gpusched.engines.condition import Condition
from gpusched.engines.jobs import environment, window_job
from gpusched.engines.local import proc
from gpusched.engines.local.launcher import Launcher, Upgraded
from gpusched.engines.local.link import NoMemoryToFork, WorkloadNotLoadable
from gpusched.engines.local.logs import end_of_log
from gpusched.engines.local.process import Process
from gpusched.errors import LaunchError
from gpusched.supervisor.followers import Follower, News
from gpusched.supervisor.permits import Permits
from gpusched.worker.messages import Error, PipeMessage, ProcessEnd, Progress
from gpusched.workload import device_fingerprint

#: seconds that a window which failed on a GPU keeps its slot at most, until readings show whether the GPU was lost
DOUBT_S = 2.0


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """The means of running attempts: the launcher, directories for logs and caches, and the accounts of memory."""

    launcher: Launcher
    logs_dir: Path
    cache_dir: Path
    memory: HostMemory
    #: reads the driver's account of an ended process, given the device's id and the PID
    account: Callable[[str, int], Awaitable[Accounted]]


class Attempts:
    """Runs the attempts that `scheduler` launches, and keeps their processes.

    Their events go to `post`, their progress to `followers`, and processes that do not die to `condition`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        means: Means,
        condition: Condition,
        *,
        post: Callable[[Event], None],
        followers: Follower,
    ) -> None:
        self.permits = Permits()
        self._scheduler = scheduler
        self._means = means
        self._condition = condition
        self._post = post
        self._followers = followers
        self._processes: dict[tuple[WindowKey, int], Process] = {}
        #: attempts whose processes were killed but do not die
        self._stuck: set[tuple[WindowKey, int]] = set()
        #: events for `_doubt`, by device: set at its next reading or its loss
        self._heard: dict[str, anyio.Event] = {}
        self._abandoned = False

    def __len__(self) -> int:
        """The number of attempts that have a process."""
        return len(self._processes)

    @property
    def all_stuck(self) -> bool:
        """Whether there are processes, and all of them were killed but do not die."""
        return bool(self._processes) and self._processes.keys() <= self._stuck

    async def run(self, launch: Launch) -> None:
        """Run one attempt, from the fork until its whole process group is gone."""
        key, attempt = launch.key, launch.attempt
        batch = self._scheduler.batch(key.batch_id)
        assert batch is not None
        device = self._scheduler.pool.devices[launch.slot.device_id].device
        planned = self._scheduler.planned(key)
        limits = batch.spec.limits
        async with self.permits:
            try:
                process = await self._means.launcher.fork(
                    window_job(batch, planned, device, self._means.cache_dir),
                    log_path=self.log_path(key, attempt),
                    env=environment(device),
                    cpus=device.cpus,
                    memory_limit_bytes=limits.memory_limit_bytes or None,
                    log_limit_bytes=limits.log_limit_bytes,
                )
            except WorkloadNotLoadable as error:
                broken = Failure(kind="bad_parameters", message=str(error), traceback=error.traceback)
                self._post(AttemptEnded(key=key, attempt=attempt, ending=broken))
                return
            except (LaunchError, OSError) as error:
                if isinstance(error, Upgraded):  # no other window could be launched either
                    reason = error.problem.format(**error.details)
                    for device_id in self._scheduler.pool.devices:
                        self._post(DeviceLost(device_id=device_id, reason=f"{reason}: restart the daemon"))
                refused = _refusal(error)
                self._post(AttemptEnded(key=key, attempt=attempt, ending=refused))
                return
            self._processes[key, attempt] = process
            self._means.memory.follow(process.pid, process.shared_bytes)
            try:
                self._post(AttemptStarted(key=key, attempt=attempt, pid=process.pid))
                ended = await self._follow(process, batch, launch, planned, device)
            finally:
                del self._processes[key, attempt]
                self._means.memory.forget(process.pid)
        self._post(ended)

    def signal(self, key: WindowKey, attempt: int, signum: signal.Signals) -> None:
        """Signal the process group of an attempt; SIGKILL before the fork kills the launcher, which must hang."""
        process = self._processes.get((key, attempt))
        if process is not None:
            process.signal(signum)
        elif signum == signal.SIGKILL:
            # The process was never forked, so its launcher hangs.
            batch = self._scheduler.batch(key.batch_id)
            assert batch is not None
            self._means.launcher.kill(batch.spec.workload, imports(batch.spec.workload, batch.spec.settings))

    def follow(self, news: News) -> None:
        """Wake the attempts that doubt a device, if it was read or lost."""
        match news:
            case DeviceRead(reading=Reading(device_id=device_id)) | DeviceLost(device_id=device_id):
                heard = self._heard.pop(device_id, None)
                if heard is not None:
                    heard.set()

    async def abandon(self) -> dict[int, WindowKey | None]:
        """End everything at once; return the processes that do not die, by PID: the window of each, None: not known."""
        self._abandoned = True
        windows = {process.pid: key for (key, _), process in self._processes.items()}
        left_behind: dict[int, WindowKey | None] = {}
        for pid in await self._means.launcher.abandon():
            seen = proc.look(pid)
            left_behind[pid] = None if seen is None else windows.get(seen.group)
        return left_behind

    def find_in_log(self, key: WindowKey, attempt: int, offset: int) -> tuple[int, int, int]:
        """The place of a byte of the output in a log that may have been cut; see `Logs.find`."""
        return self._means.launcher.logs.find(self.log_path(key, attempt), offset)

    def log_path(self, key: WindowKey, attempt: int) -> Path:
        """The file with the stdout and stderr of an attempt."""
        return self._means.logs_dir / key.batch_id / f"{key.label}.{attempt}.log"

    async def _follow(
        self, process: Process, batch: Batch, launch: Launch, planned: PlannedWindow, device: Device
    ) -> AttemptEnded:
        """Read the messages of a process until it is gone, and classify its end."""
        key, attempt = launch.key, launch.attempt
        reports = _Reports(launch, Path(batch.output_dir, key.label), self._followers)

        def on_stuck(trouble: str) -> None:
            self._stuck.add((key, attempt))
            self._condition.tell("window", str(key), f"{key} {trouble}")
            self._post(ProcessStuck(key=key, attempt=attempt, reason=trouble))

        end = await process.wait(reports.follow, on_stuck)
        if (key, attempt) in self._stuck and not self._abandoned:
            self._stuck.remove((key, attempt))
            self._condition.clear("window", str(key))
        memory_limited = self._means.memory.limited or batch.spec.limits.memory_limit_bytes > 0
        ending: Ending = classify(
            result=reports.results[-1] if reports.results else None,
            error=reports.errors[-1] if reports.errors else None,
            violation=end.violation,
            exit=self._exit(end, launch, on_cpu=device.kind == "host", memory_limited=memory_limited),
        )
        if isinstance(ending, Failure) and ending.kind == "host_memory":
            self._post(self._means.memory.read())  # its memory is free: the next window need not wait for a reading
        if isinstance(ending, Failure) and not reports.errors:
            # The process may have died between its commit and its report.
            ending = committed_result(batch, planned) or ending
        accounted = await self._means.account(device.id, process.pid)
        if isinstance(ending, Failure) and device.kind != "host":
            await self._doubt(key, ending, device)
        usage = Usage(
            cpu_seconds=end.cpu_seconds,
            peak_memory_bytes=end.peak_memory_bytes,
            device_memory_bytes=accounted.memory_bytes,
            device_seconds=accounted.seconds,
            own_memory_bytes=max(0, end.peak_memory_bytes - process.shared_bytes) if end.peak_memory_bytes else None,
        )
        note = ""
        if end.log_left_out_bytes:
            note = f"{end.log_left_out_bytes / 2**20:.1f} MiB of its log are left out (run.log_limit_mb)"
        return AttemptEnded(key=key, attempt=attempt, ending=ending, usage=usage, note=note)

    def _exit(self, end: ProcessEnd, launch: Launch, *, on_cpu: bool, memory_limited: bool) -> Exit:
        """The end of a process, and its circumstances."""
        return Exit(
            launcher_lost=end.launcher_lost,
            exit_code=end.exit_code,
            signal=end.signal,
            killer=self._killer(end) if end.signal == signal.SIGKILL else "unknown",
            on_cpu=on_cpu,
            memory_limited=memory_limited,
            log_end=end_of_log(self.log_path(launch.key, launch.attempt)) if end.signal == signal.SIGABRT else "",
        )

    def _killer(self, end: ProcessEnd) -> Killer:
        """The sender of the SIGKILL of which a process died."""
        if end.killed:
            return "gpusched"
        by_kernel = self._means.memory.take_kill()
        return "unknown" if by_kernel is None else "kernel" if by_kernel else "somebody"

    async def _doubt(self, key: WindowKey, failure: Failure, device: Device) -> None:
        """Wait before a failure counts, until a loss of the device would be known: that stops the window first.

        Two readings are awaited, since the driver's events are received between them.
        """
        with anyio.move_on_after(DOUBT_S):
            for _ in range(2):
                if not self._scheduler.blames(key, failure):
                    return
                await self._heard.setdefault(device.id, anyio.Event()).wait()


class _Reports:
    """The messages of an attempt's process: results and errors are kept, progress is passed on."""

    def __init__(self, launch: Launch, directory: Path, followers: Follower) -> None:
        """`directory` is the place where its result belongs."""
        self.results: list[WindowResult] = []
        self.errors: list[Failure] = []
        self._key, self._attempt = launch.key, launch.attempt
        self._directory = directory
        self._followers = followers

    def follow(self, message: PipeMessage) -> None:
        match message:
            case Progress(phase=phase, round=round, rounds=rounds):
                self._followers.follow(
                    ProgressReported(key=self._key, attempt=self._attempt, phase=phase, round=round, rounds=rounds)
                )
            case WindowResult(artifacts_path=path) if Path(path) != self._directory:
                self.errors.append(Failure(kind="protocol", message=f"it says that its result is at {path[:200]!r}"))
            case WindowResult():
                self.results.append(message)
            case Error(kind=kind, message=text, traceback=traceback):
                self.errors.append(Failure(kind=kind, message=text, traceback=traceback))


def _refusal(error: LaunchError | OSError) -> Failure:
    """The failure of an attempt that could not be launched."""
    if isinstance(error, NoMemoryToFork) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return out_of_host_memory("no process could be started")
    return Failure(kind="launch_refused", message=str(error))


def committed_result(batch: Batch, planned: PlannedWindow) -> WindowResult | None:
    """The verified result in a window's directory, if it is the one that training would produce; otherwise None."""
    if planned.fingerprint is None:
        return None
    fingerprints = {device_fingerprint(planned.fingerprint, device_type) for device_type in types_for(batch.device)}
    directory = Path(batch.output_dir) / planned.window.label
    metadata = artifacts.verify(directory, fingerprints)
    return None if metadata is None else metadata.result(directory)
