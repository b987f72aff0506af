"""The supervisor: carries out the scheduler's commands, and hands it events.

Events are queued and handled in turns of the event loop. Each turn hands its events to the scheduler, commits all
resulting records in one transaction, and only then acts: a process is never forked before the store knows why. If the
commit fails (a full disk), nothing is launched until it succeeds, but windows that are to end are ended: after a
restart, a window that was recorded as running counts as one whose process has ended.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import time
from collections import deque
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import msgspec

from gpusched import clock, outputs
from gpusched.core.commands import CheckResults, Command, Kill, Launch, Terminate
from gpusched.core.estimates import Estimates
from gpusched.core.events import (
    AttemptEnded,
    BatchRecovered,
    DeviceLost,
    DeviceRead,
    Event,
    Record,
    ResultsChecked,
    ShutdownRequested,
    SliceGranted,
    TimePassed,
)
from gpusched.core.model import Batch, DataNotes, Instant, PlannedWindow, WindowKey
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Active, Failure, State, Stopping
from gpusched.directories import NotOurs
from gpusched.engines.engine import Engine, LeftBehind
from gpusched.errors import StoreError
from gpusched.store.store import Store
from gpusched.supervisor.arrivals import Arrivals
from gpusched.supervisor.attempts import Attempts
from gpusched.supervisor.claims import Claims
from gpusched.supervisor.followers import TURN_ENDED, Follower, Followers
from gpusched.supervisor.histories import Histories
from gpusched.supervisor.index import Index
from gpusched.supervisor.kept import Kept
from gpusched.supervisor.learning import Learning

log = logging.getLogger("gpusched.daemon")

#: seconds between attempts to commit records after a failure
RETRY_COMMIT_S = 1.0


def now() -> Instant:
    return Instant(monotonic=time.monotonic(), wall=clock.wall())


class Supervisor:
    """Runs batches on the devices that it hears of, until it is told to shut down.

    `followers` hear of every committed record, progress, readings, losses and the end of each turn. Failing commits and
    processes that do not die are reported to the engine's `condition`.
    """

    def __init__(self, store: Store, engine: Engine, followers: Follower) -> None:
        self.estimates = Estimates(store.learned())
        self.scheduler = Scheduler(self.estimates)
        self._learning = Learning(self.estimates, self.scheduler)
        self._store = store
        self._engine = engine
        self.claims = Claims(lambda batch_id: batch_id in self.arrivals or self.scheduler.is_at_work(batch_id))
        self.attempts = Attempts(self.scheduler, engine, followers, post=self.post)
        self._index = Index(store, self.attempts.log_path)
        self._histories = Histories(self.scheduler.running_batches, store.history)
        self._kept = Kept(self.scheduler)
        #: the index first: a hook that is called reads it
        self._followers = Followers(self._index, self.claims, self.attempts, followers, self._kept, self._histories)
        self._events: deque[Event] = deque()
        #: batches that have been handed over but not accepted yet
        self.arrivals = Arrivals()
        self._wakeup = anyio.Event()
        self._records: list[Record] = []
        self._commands: list[Command] = []
        #: numbers of the checks for results that are under way
        self._checks: set[int] = set()
        #: events to set when everything posted so far is committed
        self._commit_waiters: list[anyio.Event] = []
        self._shutdown = self._stopping = self._left = False
        #: monotonic instant at which `run` returns even if processes hang
        self._leave_at = float("inf")
        #: processes that did not end in time
        self.left_behind: list[LeftBehind] = []
        self._stopped = anyio.Event()

    # -- requests of the rest of the daemon ---------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Hand over an event; it is handled in the next turn."""
        self._events.append(event)
        self._wakeup.set()

    async def committed(self) -> None:
        """Wait until everything posted so far is handled and durable."""
        waiter = anyio.Event()
        self._commit_waiters.append(waiter)
        self._wakeup.set()
        await waiter.wait()

    async def submit(self, batch: Batch, windows: tuple[PlannedWindow, ...], notes: DataNotes | None = None) -> None:
        """Accept a planned batch; it is durable when this returns."""
        self.hand_over(batch, windows, notes)
        await self.committed()
        while batch.id in self.arrivals:
            await self.committed()

    def hand_over(self, batch: Batch, windows: tuple[PlannedWindow, ...], notes: DataNotes | None = None) -> None:
        """Queue a planned batch; it is in `arrivals` until the turn that accepts it."""
        outputs.sweep_partial(Path(batch.output_dir), guarded=batch.guarded)
        self.arrivals.add(batch, windows, notes or {})
        self._wakeup.set()

    def shut_down(self, *, drain: bool, within_s: float = float("inf")) -> None:
        """Let `run` return once the running windows have ended by themselves (`drain`) or were stopped.

        It returns after `within_s` seconds in any case. Without `drain` it does not wait for records that cannot be
        committed: the next supervisor reconciles the windows that they are about.
        """
        self._shutdown = True
        self._stopping |= not drain
        self._leave_at = min(self._leave_at, time.monotonic() + within_s)
        self.post(ShutdownRequested(mode="drain" if drain else "stop"))

    def recover(self) -> None:
        """Take up the batches that the last supervisor left unfinished. Call before `run`."""
        for recovered in self._store.unfinished():
            with contextlib.suppress(OSError, NotOurs):  # the directory may not be mounted now
                outputs.sweep_partial(Path(recovered.batch.output_dir), guarded=recovered.batch.guarded)
            obstacle = self.claims.retake(recovered.batch)
            self.post(msgspec.structs.replace(self._reconciled(recovered), obstacle=obstacle))
            self._index.rewrite(recovered.batch)

    def recall(self, batch_id: str) -> None:
        """Take up a finished batch that only the store remembers, so that its windows can be retried."""
        if self.scheduler.batch(batch_id) is not None:
            return
        recovered = self._store.recovered(batch_id)
        if recovered is not None:
            self.post(recovered)
            self._index.rewrite(recovered.batch)

    def _reconciled(self, recovered: BatchRecovered) -> BatchRecovered:
        """Look for results that windows committed after the last supervisor had died."""
        windows: list[tuple[PlannedWindow, State]] = []
        for planned, state in recovered.windows:
            if isinstance(state, Active):
                # May also become None: a window with a reusable result would not have run unless that was missing.
                committed = self._engine.verify(recovered.batch, planned)
                planned = msgspec.structs.replace(planned, committed=committed)
            windows.append((planned, state))
        return msgspec.structs.replace(recovered, windows=tuple(windows))

    def drop(self, batch_id: str) -> None:
        """Drop a finished batch from memory, since it has been forgotten in the store."""
        self._kept.drop(batch_id)

    async def run(self) -> None:
        """Work until `shut_down`, and then until the windows that still ran have ended."""
        try:
            async with anyio.create_task_group() as tasks:
                while not (self._left or (self._shutdown and self._idle)):
                    await self._next_turn()
                    if time.monotonic() < self._leave_at:
                        self._turn(tasks)
                    if time.monotonic() >= self._leave_at or self._is_in_vain:
                        await self._leave()
                        tasks.cancel_scope.cancel()
        finally:
            self._index.close()
            self.claims.close()
            self._stopped.set()

    async def stopped(self) -> None:
        """Wait until `run` has returned."""
        await self._stopped.wait()

    @property
    def unwritten(self) -> int:
        """The number of records that could not be committed."""
        return len(self._records)

    @property
    def _idle(self) -> bool:
        busy = self.scheduler.active or self._events or self._commands or self.attempts or self._checks
        return not busy and (self._stopping or not self._records)

    @property
    def _is_in_vain(self) -> bool:
        """Whether all processes that are still waited for were killed but do not die."""
        return self._stopping and self.attempts.all_stuck

    async def _leave(self) -> None:
        """End everything at the end of the time limit, and note the processes that do not die in `left_behind`."""
        self._left = True
        self.left_behind = await self.attempts.abandon()

    # -- turns -------------------------------------------------------------------------------------------------------

    async def _next_turn(self) -> None:
        if self._may_go_on:
            await anyio.lowlevel.checkpoint()  # other tasks come first
            return
        deadlines = [] if self.scheduler.deadline is None else [self.scheduler.deadline]
        if self._records:
            deadlines.append(time.monotonic() + RETRY_COMMIT_S)
        if self._shutdown:
            deadlines.append(self._leave_at)
        with anyio.move_on_at(_loop_time(min(deadlines)) if deadlines else float("inf")):
            await self._wakeup.wait()
        self._wakeup = anyio.Event()

    @property
    def _may_go_on(self) -> bool:
        """Whether work on many windows waits for its next slice; never while the store cannot be written."""
        return (self.scheduler.changing or bool(self.arrivals)) and not self._records

    def _take_slices(self) -> None:
        """Queue the next slices of work on many windows, behind the events that have been posted."""
        if self.arrivals:
            self._events.append(self.arrivals.next())
        if self.scheduler.changing:
            self._events.append(SliceGranted())
        # Windows form no cycles, so the collector need not see them: to walk through 100,000 takes longer than a turn.
        gc.collect(1)
        gc.freeze()

    def _turn(self, tasks: anyio.abc.TaskGroup) -> None:
        if not self.scheduler.at_work:
            clock.take_over()
        instant = now()
        deadline = self.scheduler.deadline
        if deadline is not None and deadline <= instant.monotonic:
            self._events.append(TimePassed())
        if self._may_go_on:
            self._take_slices()
        while self._events:
            event = self._events.popleft()
            records, commands = self.scheduler.handle(event, instant)
            self._records += records
            self._commands += commands
            for record in records:
                self._learning.follow(record)
            if isinstance(event, DeviceRead | DeviceLost):
                self._followers.follow(event)
        self.attempts.permits.fit(len(self.scheduler.pool.slots))
        committed = self._commit()
        self._followers.follow(TURN_ENDED)
        commands, self._commands = self._commands, []
        if not committed:
            self._commands = [command for command in commands if not self._done_without_commit(command)]
            return
        for command in commands:
            self._act(command, tasks)
        for batch_id in self._index.take_behind():
            tasks.start_soon(self._index.gather, batch_id)
        waiters, self._commit_waiters = self._commit_waiters, []
        for waiter in waiters:
            waiter.set()

    def _commit(self) -> bool:
        """Make the records durable and let everyone follow them; return whether the commit succeeded."""
        histories = self._histories.to_keep(self._records)
        about = str(self._store.path)
        try:
            if self._store.keep_in_place():
                log.warning("the store was removed while it was in use, and is written anew path=%s", about)
            if self._records or histories:
                self._store.record(self._records, self._learning.unsaved, histories)
        except StoreError as problem:
            self._engine.condition.tell("store", about, problem.sentence)
            return False
        self._engine.condition.clear("store", about)
        if self._records or histories:
            self._learning.saved()
            records, self._records = self._records, []
            for record in records:
                self._followers.follow(record)
        return True

    def _act(self, command: Command, tasks: anyio.abc.TaskGroup) -> None:
        match command:
            case Launch():
                tasks.start_soon(self.attempts.run, command)
            case CheckResults():
                self._checks.add(command.check)
                tasks.start_soon(self._check_results, command)
            case Terminate():
                self.attempts.signal(command.key, command.attempt, signal.SIGTERM)
            case Kill():
                self.attempts.signal(command.key, command.attempt, signal.SIGKILL)

    def _done_without_commit(self, command: Command) -> bool:
        """End windows that are to end although the store cannot record why; return whether the command is done.

        A launch waits for the commit, unless it is no longer wanted.
        """
        match command:
            case Terminate(key=key, attempt=attempt):
                self.attempts.signal(key, attempt, signal.SIGTERM)
            case Kill(key=key, attempt=attempt):
                self.attempts.signal(key, attempt, signal.SIGKILL)
            case Launch(key=key, attempt=attempt) if self._unwanted(key):
                never = Failure(kind="interrupted", message="stopped before it was launched")
                self.post(AttemptEnded(key=key, attempt=attempt, ending=never, launched=False))
            case _:
                return False
        return True

    def _unwanted(self, key: WindowKey) -> bool:
        """Whether a launch that waits for a commit need not be made any more."""
        return self._shutdown or isinstance(self.scheduler.state(key), Stopping)

    async def _check_results(self, command: CheckResults) -> None:
        """Check results in a thread: there may be many, and on a slow network file system."""
        batch = self.scheduler.batch(command.batch_id)
        assert batch is not None
        missing = await anyio.to_thread.run_sync(
            outputs.missing, Path(batch.output_dir), command.labels, abandon_on_cancel=True
        )
        await self._index.gather(command.batch_id)
        self.post(ResultsChecked(batch_id=command.batch_id, check=command.check, missing=tuple(missing)))
        self._checks.discard(command.check)


def _loop_time(monotonic: float) -> float:
    """The event loop's time that corresponds to a reading of `time.monotonic`."""
    return anyio.current_time() + (monotonic - time.monotonic())
