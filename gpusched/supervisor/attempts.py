"""Attempts: one attempt of a window from its launch to the verdict on it, doubts about its GPU included.

Two guards keep a GPU from being over-subscribed: the scheduler's ledger decides who holds which slot, and a semaphore
with one permit per slot guards the launch itself. The end of an attempt is posted as an event; the scheduler decides
about the window.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from pathlib import Path

import anyio

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
from gpusched.core.failures import classify, out_of_host_memory
from gpusched.core.model import Batch, Device, PlannedWindow, Reading, WindowKey, WindowResult
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Ending, Failure
from gpusched.engines.engine import Engine, Launched, LeftBehind, NoMemoryToFork, Upgraded, WorkloadNotLoadable
from gpusched.errors import LaunchError
from gpusched.supervisor.followers import Follower, News
from gpusched.supervisor.permits import Permits
from gpusched.worker.messages import Error, PipeMessage, Progress

#: seconds that a window which failed on a GPU keeps its slot at most, until readings show whether the GPU was lost
DOUBT_S = 2.0


def log_of(key: WindowKey, attempt: int) -> str:
    """The name of the log with the stdout and stderr of an attempt."""
    return f"{key.batch_id}/{key.label}.{attempt}.log"


class Attempts:
    """Runs the attempts that `scheduler` launches, and keeps their processes.

    Their events go to `post`, and their progress to `followers`.
    """

    def __init__(
        self, scheduler: Scheduler, engine: Engine, followers: Follower, *, post: Callable[[Event], None]
    ) -> None:
        self.permits = Permits()
        self._scheduler = scheduler
        self._engine = engine
        self._post = post
        self._followers = followers
        self._processes: dict[tuple[WindowKey, int], Launched] = {}
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
        state = self._scheduler.pool.devices.get(launch.slot.device_id)
        if state is None:
            return  # its node was lost in the same turn, and the window has gone back to the queue
        device = state.device
        planned = self._scheduler.planned(key)
        async with self.permits:
            try:
                process = await self._engine.launch(batch, planned, device, log=log_of(key, attempt))
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
            try:
                self._post(AttemptStarted(key=key, attempt=attempt, pid=process.pid))
                ended = await self._follow(process, batch, launch, planned, device)
            finally:
                del self._processes[key, attempt]
        self._post(ended)

    def signal(self, key: WindowKey, attempt: int, signum: signal.Signals) -> None:
        """Signal the process group of an attempt; SIGKILL before the launch ends the launch, which must hang."""
        process = self._processes.get((key, attempt))
        if process is not None:
            process.signal(signum)
        elif signum == signal.SIGKILL:
            batch = self._scheduler.batch(key.batch_id)
            assert batch is not None
            self._engine.interrupt(batch.spec)

    def follow(self, news: News) -> None:
        """Wake the attempts that doubt a device, if it was read or lost."""
        match news:
            case DeviceRead(reading=Reading(device_id=device_id)) | DeviceLost(device_id=device_id):
                heard = self._heard.pop(device_id, None)
                if heard is not None:
                    heard.set()

    async def abandon(self) -> list[LeftBehind]:
        """End everything at once; return the processes that do not die."""
        self._abandoned = True
        return await self._engine.abandon()

    def log_path(self, key: WindowKey, attempt: int) -> Path:
        """The file of an attempt's log, for people."""
        return self._engine.log_path(log_of(key, attempt))

    async def _follow(
        self, process: Launched, batch: Batch, launch: Launch, planned: PlannedWindow, device: Device
    ) -> AttemptEnded:
        """Read the messages of a process until it is gone, and classify its end."""
        key, attempt = launch.key, launch.attempt
        reports = _Reports(launch, Path(batch.output_dir, key.label), self._followers)

        def on_stuck(trouble: str) -> None:
            self._stuck.add((key, attempt))
            self._engine.condition.tell("window", str(key), f"{key} {trouble}")
            self._post(ProcessStuck(key=key, attempt=attempt, reason=trouble))

        end = await process.wait(reports.follow, on_stuck)
        if (key, attempt) in self._stuck and not self._abandoned:
            self._stuck.remove((key, attempt))
            self._engine.condition.clear("window", str(key))
        ending: Ending = classify(
            result=reports.results[-1] if reports.results else None,
            error=reports.errors[-1] if reports.errors else None,
            violation=end.violation,
            exit=end.exit,
        )
        if isinstance(ending, Failure) and ending.kind == "host_memory":
            self._post(self._engine.read_host())  # its memory is free: the next window need not wait for a reading
        if isinstance(ending, Failure) and not reports.errors:
            # The process may have died between its commit and its report.
            ending = self._engine.verify(batch, planned) or ending
        if isinstance(ending, Failure) and device.kind != "host":
            await self._doubt(key, ending, device)
        note = ""
        if end.log_left_out_bytes:
            note = f"{end.log_left_out_bytes / 2**20:.1f} MiB of its log are left out (run.log_limit_mb)"
        return AttemptEnded(key=key, attempt=attempt, ending=ending, usage=end.usage, note=note)

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
            case Error(kind=kind, message=text, traceback=traceback, cause=cause, place=place):
                told = Failure(kind=kind, message=text, traceback=traceback, cause=cause, place=place)
                self.errors.append(told)


def _refusal(error: LaunchError | OSError) -> Failure:
    """The failure of an attempt that could not be launched."""
    if isinstance(error, NoMemoryToFork) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return out_of_host_memory("no process could be started")
    return Failure(kind="launch_refused", message=str(error))
