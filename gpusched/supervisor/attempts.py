"""Attempts: one attempt of a window from its launch to the verdict on it, doubts about its GPU included.

Two guards keep a GPU from being over-subscribed: the scheduler's ledger decides who holds which slot, and a semaphore
with one permit per slot guards the launch itself. The end of an attempt is posted as an event; the scheduler decides
about the window.

An attempt has no task of its own: the engine tells it what happens to its process. The end is only noted then, and
judged in the supervisor's next turn, so that an error of the judgement is the supervisor's own.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gpusched.core.commands import Launch
from gpusched.core.events import (
    AttemptEnded,
    AttemptStarted,
    BatchFinished,
    DeviceLost,
    DeviceRead,
    ProcessStuck,
    ProgressReported,
)
from gpusched.core.failures import classify, out_of_host_memory
from gpusched.core.logs import log_of
from gpusched.core.model import Batch, Device, PlannedWindow, Reading, WindowKey, WindowResult
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Ending, Failure
from gpusched.engines.engine import (
    End,
    Engine,
    Launched,
    LeftBehind,
    NoMemoryToFork,
    Upgraded,
    Withdrawn,
    WorkloadNotLoadable,
)
from gpusched.errors import LaunchError
from gpusched.supervisor.followers import Follower, News
from gpusched.supervisor.inbox import PATIENCE_S, Inbox
from gpusched.supervisor.permits import Permits
from gpusched.supervisor.sweeping import Sweeping
from gpusched.worker.messages import Error, PipeMessage, Progress
from gpusched.worker.tracebacks import source_line
from gpusched.workload import device_fingerprint

#: seconds that a window which failed on a GPU keeps its slot at most, until readings show whether the GPU was lost
DOUBT_S = 2.0
#: how many readings of that GPU are awaited: the driver's events are received between them
DOUBT_READINGS = 2


class Attempts:
    """The attempts that `scheduler` launches; their progress goes to `followers`.

    Their events go to `inbox`, which asks for the turns that call `judge`.
    """

    def __init__(self, scheduler: Scheduler, engine: Engine, followers: Follower, inbox: Inbox) -> None:
        self.permits = Permits()
        self.scheduler = scheduler
        self.engine = engine
        self.followers = followers
        self._inbox = inbox
        #: the attempts with a process, until their end is posted
        self._attempts: dict[tuple[WindowKey, int], Attempt] = {}
        #: attempts that are ahead and have not started
        self._ahead: set[tuple[WindowKey, int]] = set()
        #: attempts whose processes were killed but do not die
        self._stuck: set[tuple[WindowKey, int]] = set()
        #: ends that have not been judged yet
        self._ends: deque[tuple[Attempt, End]] = deque()
        #: batches whose last window could not be started, because its log could not be made
        self._without_log: set[str] = set()
        #: the last window that succeeded did so within `PATIENCE_S`: the start of the next one waits for its end
        self._are_short = False
        #: attempts that failed on a device, by the device: its next readings tell whether it was lost
        self._doubts: dict[str, list[_Doubt]] = {}
        self._abandoned = False
        self.sweeping = Sweeping(inbox.wake)

    def __len__(self) -> int:
        """The number of attempts that have a process."""
        return len(self._attempts)

    @property
    def all_stuck(self) -> bool:
        """Whether there are processes, and all of them were killed but do not die."""
        return bool(self._attempts) and self._attempts.keys() <= self._stuck

    def launch(self, launch: Launch) -> None:
        """Launch an attempt as soon as it has a permit."""
        key = launch.key
        batch = self.scheduler.batch(key.batch_id)
        assert batch is not None
        state = self.scheduler.pool.devices.get(launch.slot.device_id)
        if state is None:
            return  # its node was lost in the same turn, and the window has gone back to the queue
        attempt = Attempt(self, launch, batch, self.scheduler.planned(key), state.device)
        if launch.at_once:
            self._ahead.add((key, launch.attempt))
        self.permits.take(attempt.begin)

    def signal(self, key: WindowKey, attempt: int, signum: signal.Signals) -> None:
        """Signal the process group of an attempt; SIGKILL before the launch ends the launch, which must hang."""
        running = self._attempts.get((key, attempt))
        if running is not None:
            running.process.signal(signum)
        elif (key, attempt) in self._ahead:
            self.engine.withdraw(log_of(key, attempt))
        elif signum == signal.SIGKILL:
            batch = self.scheduler.batch(key.batch_id)
            assert batch is not None
            self.engine.interrupt(batch.spec)

    def follow(self, news: News) -> None:
        """Go on with the attempts that doubt a device, if it was read or lost. A finished batch needs no log."""
        match news:
            case BatchFinished(batch_id=batch_id):
                self._has_log(batch_id)
            case DeviceRead(reading=Reading(device_id=device_id)) | DeviceLost(device_id=device_id):
                for doubt in self._doubts.pop(device_id, ()):
                    doubt.readings += 1
                    self._doubt(doubt)

    async def abandon(self) -> list[LeftBehind]:
        """End everything at once; return the processes that do not die."""
        self._abandoned = True
        return await self.engine.abandon()

    def log_path(self, key: WindowKey, attempt: int) -> Path:
        """The file of an attempt's log, for people."""
        return self.engine.log_path(log_of(key, attempt))

    def judge(self) -> None:
        """Post the ends of the attempts whose processes have gone, once there is no doubt about their devices."""
        while self._ends:
            attempt, end = self._ends.popleft()
            self._doubt(_Doubt(attempt, self._verdict(attempt, end)))

    # -- called by an attempt ------------------------------------------------------------------------------------------

    def withdraw(self, key: WindowKey, attempt: int) -> None:
        """Take back an attempt that is ahead, unless it has started."""
        if (key, attempt) in self._ahead:
            self.engine.withdraw(log_of(key, attempt))

    def started(self, attempt: Attempt) -> None:
        self._ahead.discard((attempt.key, attempt.number))
        self._attempts[attempt.key, attempt.number] = attempt
        self._has_log(attempt.key.batch_id)
        post = self._inbox.post_later if self._are_short else self._inbox.post
        post(AttemptStarted(key=attempt.key, attempt=attempt.number, pid=attempt.process.pid))

    def refused(self, attempt: Attempt, error: LaunchError | OSError) -> None:
        self.permits.give_back()
        self._ahead.discard((attempt.key, attempt.number))
        if isinstance(error, Upgraded):  # no other window could be launched either
            reason = error.problem.format(**error.details)
            for device_id in self.scheduler.pool.devices:
                self._inbox.post(DeviceLost(device_id=device_id, reason=f"{reason}: restart the daemon"))
        elif isinstance(error, OSError) and error.errno != errno.ENOMEM:
            self._has_no_log(attempt.key.batch_id, error)
        launched = not isinstance(error, Withdrawn)
        ended = AttemptEnded(key=attempt.key, attempt=attempt.number, ending=_refusal(error), launched=launched)
        self._inbox.post(ended)

    def _has_no_log(self, batch_id: str, error: OSError) -> None:
        """Report that windows of a batch cannot be started: such a try does not count, so there may be no end."""
        self._without_log.add(batch_id)
        place = Path(error.filename).parent if isinstance(error.filename, str) else "their logs"
        text = f"no window of {batch_id} can be started: {place}: {error.strerror or error}"
        self.engine.condition.tell("log", batch_id, text)

    def _has_log(self, batch_id: str) -> None:
        if batch_id in self._without_log:
            self._without_log.remove(batch_id)
            self.engine.condition.clear("log", batch_id)

    def stuck(self, attempt: Attempt, trouble: str) -> None:
        key, number = attempt.key, attempt.number
        self._stuck.add((key, number))
        self.engine.condition.tell("window", str(key), f"{key} {trouble}")
        self._inbox.post(ProcessStuck(key=key, attempt=number, reason=trouble))

    def ended(self, attempt: Attempt, end: End) -> None:
        if attempt.result is not None:
            self._are_short = time.monotonic() - attempt.began < PATIENCE_S
        self._ends.append((attempt, end))
        self._inbox.wake()

    # -- verdicts ------------------------------------------------------------------------------------------------------

    def _verdict(self, attempt: Attempt, end: End) -> AttemptEnded:
        """Classify the end of a process."""
        key, number = attempt.key, attempt.number
        if (key, number) in self._stuck and not self._abandoned:
            self._stuck.remove((key, number))
            self.engine.condition.clear("window", str(key))
        ending: Ending = classify(result=attempt.result, error=attempt.error, violation=end.violation, exit=end.exit)
        if type(ending) is Failure and ending.kind == "host_memory":
            self._inbox.post(self.engine.read_host())  # its memory is free: the next window need not wait for a reading
        if type(ending) is Failure and attempt.error is None:
            # The process may have died between its commit and its report.
            ending = self.engine.verify(attempt.batch, attempt.planned) or ending
            self.sweeping.ask(attempt.batch)
            if type(ending) is Failure and ending.traceback:
                ending = msgspec.structs.replace(ending, source_line=source_line(ending.traceback))
        note = ""
        if end.log_left_out_bytes:
            note = f"{end.log_left_out_bytes / 2**20:.1f} MiB of its log are left out (run.log_limit_mb)"
        return AttemptEnded(key=key, attempt=number, ending=ending, usage=end.usage, note=note)

    def _doubt(self, doubt: _Doubt) -> None:
        """Wait before a failure counts, until a loss of the device would be known: that stops the window first."""
        attempt, ending = doubt.attempt, doubt.ended.ending
        if (
            type(ending) is Failure
            and attempt.device.kind != "host"
            and doubt.readings < DOUBT_READINGS
            and self.scheduler.blames(attempt.key, ending)
        ):
            self._doubts.setdefault(attempt.device.id, []).append(doubt)
            if doubt.timer is None:
                doubt.timer = asyncio.get_running_loop().call_later(DOUBT_S, self._settle, doubt)
        else:
            self._leave(doubt)

    def _settle(self, doubt: _Doubt) -> None:
        """Doubt no longer: nothing was heard of the device in time."""
        self._doubts[doubt.attempt.device.id].remove(doubt)
        self._leave(doubt)

    def _leave(self, doubt: _Doubt) -> None:
        if doubt.timer is not None:
            doubt.timer.cancel()
        attempt = doubt.attempt
        del self._attempts[attempt.key, attempt.number]
        self.permits.give_back()
        self._inbox.post(doubt.ended)


@dataclass(eq=False)
class _Doubt:
    """An attempt whose process is gone, and its verdict, which may wait for readings of its device."""

    attempt: Attempt
    ended: AttemptEnded
    #: readings of the device since then
    readings: int = 0
    timer: asyncio.TimerHandle | None = None


class Attempt:
    """One attempt: the engine's attendant, which keeps the result or the error that its process tells."""

    process: Launched
    #: monotonic instant at which the process was known to exist
    began: float

    def __init__(
        self, attempts: Attempts, launch: Launch, batch: Batch, planned: PlannedWindow, device: Device
    ) -> None:
        self.key, self.number = launch.key, launch.attempt
        self.batch = batch
        self.planned = planned
        self.device = device
        self.result: WindowResult | None = None
        self.error: Failure | None = None
        self._at_once = launch.at_once
        self._attempts = attempts

    def begin(self) -> None:
        log = log_of(self.key, self.number)
        engine = self._attempts.engine
        engine.start(self.batch, self.planned, self.device, self, log=log, at_once=self._at_once)

    def refused(self, error: LaunchError | OSError) -> None:
        self._attempts.refused(self, error)

    def started(self, process: Launched) -> None:
        self.process, self.began = process, time.monotonic()
        self._attempts.started(self)

    def heard(self, message: PipeMessage) -> None:
        match message:
            case Progress(phase=phase, round=round, rounds=rounds):
                self._attempts.followers.follow(
                    ProgressReported(key=self.key, attempt=self.number, phase=phase, round=round, rounds=rounds)
                )
            case WindowResult(artifacts_path=path) if not self._belongs(path):
                self.error = Failure(kind="protocol", message=f"it says that its result is at {path[:200]!r}")
            case WindowResult():
                self.result = msgspec.structs.replace(message, changed=True) if self._changed(message) else message
            case Error(kind=kind, message=text, traceback=traceback):
                how = {"cause": message.cause, "place": message.place, "source_line": message.source_line}
                self.error = Failure(kind=kind, message=text, traceback=traceback, **how)

    def _belongs(self, path: str) -> bool:
        """Whether `path` is the place of the window's result."""
        directory, label = self.batch.output_dir, self.key.label
        return path == f"{directory}/{label}" or Path(path) == Path(directory, label)

    def _changed(self, result: WindowResult) -> bool:
        """Whether the result's code or data are others than those in the plan."""
        planned = self.planned.fingerprint
        if planned is None or result.fingerprint is None:
            return False
        return result.fingerprint != device_fingerprint(planned, result.device_type)

    def stuck(self, trouble: str) -> None:
        self._attempts.stuck(self, trouble)

    def ended(self, end: End) -> None:
        self._attempts.ended(self, end)


def _refusal(error: LaunchError | OSError) -> Failure:
    """The failure of an attempt that could not be launched."""
    if isinstance(error, WorkloadNotLoadable):
        return Failure(kind="bad_parameters", message=str(error), traceback=error.traceback)
    if isinstance(error, NoMemoryToFork) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return out_of_host_memory("no process could be started")
    if isinstance(error, Withdrawn):
        return Failure(kind="interrupted", message="taken back before it started")
    return Failure(kind="launch_refused", message=str(error))
