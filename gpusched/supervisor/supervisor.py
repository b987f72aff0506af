"""The supervisor: carries out the scheduler's commands, and hands it events.

Events are queued and handled in turns of the event loop. Each turn hands its events to the scheduler, commits all
resulting records in one transaction, and only then acts: a process is never forked before the store knows why. If the
commit fails (a full disk), nothing is launched until it succeeds, but windows that are to end are ended: after a
restart, a window that was recorded as running counts as one whose process has ended.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import msgspec

from gpusched import outputs
from gpusched.core.commands import CheckResults, Command, Kill, Launch, Terminate, Withdraw
from gpusched.core.estimates import Estimates
from gpusched.core.events import (
    AttemptEnded,
    BatchAccepted,
    BatchFinished,
    BatchRecovered,
    BatchReopened,
    DeviceLost,
    DeviceRead,
    Event,
    Record,
    ResultsChecked,
    ShutdownRequested,
    SliceGranted,
    TimePassed,
)
from gpusched.core.model import Batch, DataNotes, PlannedWindow
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Active, Failure, State, Stopping
from gpusched.directories import NotOurs
from gpusched.engines.engine import Engine, LeftBehind
from gpusched.errors import StoreCorrupt, StoreError
from gpusched.store.store import Store
from gpusched.supervisor.arrivals import Arrivals
from gpusched.supervisor.attempts import Attempts
from gpusched.supervisor.claims import Claims
from gpusched.supervisor.followers import TURN_ENDED, Follower, Followers
from gpusched.supervisor.histories import Histories
from gpusched.supervisor.inbox import Inbox
from gpusched.supervisor.index import Index
from gpusched.supervisor.kept import Kept
from gpusched.supervisor.learning import Learning
from gpusched.supervisor.portions import SLICE_WINDOWS, Portion
from gpusched.supervisor.recalling import recall

log = logging.getLogger("gpusched.daemon")

#: seconds between attempts to commit records after a failure
RETRY_COMMIT_S = 1.0


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
        self._inbox = Inbox(lambda: self.scheduler.at_work)
        self.attempts = Attempts(self.scheduler, engine, followers, self._inbox)
        self._index = Index(store, self.attempts.log_path, engine.condition)
        self._histories = Histories(self.scheduler.running_batches, store.history)
        self._kept = Kept(self.scheduler)
        self._followers = _joined(self._index, self.claims, self.attempts, followers, self._kept, self._histories)
        #: batches that have been handed over but not accepted yet
        self.arrivals = Arrivals()
        #: windows that the next slices take
        self._portion = Portion()
        self._records: list[Record] = []
        self._commands: list[Command] = []
        #: batches whose earlier results are being looked for, by the number of the check
        self._checks: dict[int, str] = {}
        #: set at the end of the next check
        self._checked = anyio.Event()
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
        self._inbox.post(event)

    async def committed(self) -> None:
        """Wait until everything posted so far is handled and durable."""
        waiter = anyio.Event()
        self._commit_waiters.append(waiter)
        self._inbox.wake()
        await waiter.wait()

    async def over(self, batch_id: str) -> None:
        """Wait until a batch whose windows have all ended is finished: until its results have been looked for."""
        if self.scheduler.batch(batch_id) is None:
            return  # it is new, or was finished and left memory
        await self.committed()
        while batch_id in self._checks.values():
            await self._checked.wait()
        await self.committed()

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
        self._inbox.wake()

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

    @contextlib.asynccontextmanager
    async def recalled(self, batch_id: str) -> AsyncIterator[None]:
        """Within the context, a finished batch is in memory, so that its windows can be retried.

        Nobody else may accept or forget the batch meanwhile.
        """
        with self._kept.held(batch_id):
            if self.scheduler.batch(batch_id) is None:
                await recall(self._store, batch_id, self._index, self.post)
            yield

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
                    began, slicing = time.thread_time(), self._may_go_on
                    if time.monotonic() < self._leave_at:
                        self._turn(tasks)
                    if slicing:
                        self._portion.adapt(time.thread_time() - began)
                    if time.monotonic() >= self._leave_at or self._is_in_vain:
                        await self._leave()
                        tasks.cancel_scope.cancel()
                await self._index.gather_late()
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
        at_work = self.scheduler.active or self.attempts or self._checks or self.attempts.sweeping.is_on
        return not (at_work or self._inbox or self._commands) and (self._stopping or not self._records)

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
        deadlines = [at for at in (self.scheduler.deadline, self._index.late_at) if at is not None]
        if self._records:
            deadlines.append(time.monotonic() + RETRY_COMMIT_S)
        if self._shutdown:
            deadlines.append(self._leave_at)
        await self._inbox.turn(min(deadlines, default=None))

    @property
    def _may_go_on(self) -> bool:
        """Whether work on many windows waits for its next slice; never while the store cannot be written."""
        return (self.scheduler.changing or bool(self.arrivals)) and not self._records

    def _take_slices(self) -> None:
        """Queue the next slices of work on many windows, behind the events that have been posted."""
        if self.arrivals:
            self._inbox.add(self.arrivals.next(self._portion.windows))
        if self.scheduler.changing:
            self._inbox.add(SliceGranted(windows=self._portion.windows))

    def _turn(self, tasks: anyio.abc.TaskGroup) -> None:
        self.attempts.judge()
        if self.attempts.sweeping.take():
            tasks.start_soon(self.attempts.sweeping.run)
        if self._index.take_late():
            tasks.start_soon(self._index.gather_late)
        deadline = self.scheduler.deadline
        if deadline is not None and deadline <= time.monotonic():
            self._inbox.add(TimePassed())
        if self._may_go_on:
            self._take_slices()
        for event, instant in self._inbox.take():
            records, commands = self.scheduler.handle(event, instant)
            self._records += records
            self._commands += commands
            for record in records:
                self._learning.follow(record)
            if type(event) is DeviceRead or type(event) is DeviceLost:
                self._followers.follow(event)
        self.attempts.permits.fit(len(self.scheduler.pool.slots))
        committed = self._commit()
        self._followers.follow(TURN_ENDED)
        commands, self._commands = self._commands, []
        if not committed:
            self._commands = [command for command in commands if not self._done_without_commit(command, tasks)]
            return
        for command in commands:
            self._act(command, tasks)
        for batch_id in self._index.take_behind():
            tasks.start_soon(self._index.gather, batch_id)
        waiters, self._commit_waiters = self._commit_waiters, []
        for waiter in waiters:
            waiter.set()

    def _commit(self) -> bool:
        """Make the records durable and let everyone follow them; return whether that succeeded. Raises StoreCorrupt."""
        histories = self._histories.to_keep(self._records)
        about = str(self._store.path)
        try:
            if self._store.keep_in_place():
                log.warning("the store was removed while it was in use, and is written anew path=%s", about)
            if self._records or histories:
                self._store.record(self._records, self._learning.unsaved, histories)
        except StoreError as problem:
            if isinstance(problem, StoreCorrupt):
                raise  # anything else may be over some time, and is waited for
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
            case Launch() if self._shutdown:
                self._done_without_commit(command, tasks)  # whoever drains has been promised that no other starts
            case Launch():
                self.attempts.launch(command)
            case Withdraw(key=key, attempt=attempt):
                self.attempts.withdraw(key, attempt)
            case CheckResults():
                self._checks[command.check] = command.batch_id
                tasks.start_soon(self._check_results, command)
            case Terminate():
                self.attempts.signal(command.key, command.attempt, signal.SIGTERM)
            case Kill():
                self.attempts.signal(command.key, command.attempt, signal.SIGKILL)

    def _done_without_commit(self, command: Command, tasks: anyio.abc.TaskGroup) -> bool:
        """End windows that are to end although the store cannot record why; return whether the command is done.

        A launch waits for the commit, unless it is no longer wanted.
        """
        match command:
            case Terminate() | Kill() | Withdraw():
                self._act(command, tasks)
            case Launch(key=key, attempt=attempt) if self._shutdown or isinstance(self.scheduler.state(key), Stopping):
                never = Failure(kind="interrupted", message="stopped before it was launched")
                self.post(AttemptEnded(key=key, attempt=attempt, ending=never, launched=False))
            case CheckResults() if self._stopping:
                pass  # the store has the batch as unfinished, so the next supervisor checks them
            case _:
                return False
        return True

    async def _check_results(self, command: CheckResults) -> None:
        """Check results in a thread: there may be many, and on a slow network file system."""
        batch = self.scheduler.batch(command.batch_id)
        assert batch is not None
        missing = await anyio.to_thread.run_sync(
            outputs.missing, Path(batch.output_dir), command.labels, abandon_on_cancel=True
        )
        answer = ResultsChecked(batch_id=command.batch_id, check=command.check, missing=tuple(missing))
        if len(missing) > SLICE_WINDOWS:
            for first in range(0, len(missing), SLICE_WINDOWS):
                part = tuple(missing[first : first + SLICE_WINDOWS])
                self.post(msgspec.structs.replace(answer, missing=part, complete=False))
                await anyio.lowlevel.checkpoint()
            answer = msgspec.structs.replace(answer, missing=())
        await self._index.gather(command.batch_id)  # with these windows as lost ones
        self.post(answer)
        del self._checks[command.check]
        self._checked.set()
        self._checked = anyio.Event()


def _joined(
    index: Index, claims: Claims, attempts: Attempts, others: Follower, kept: Kept, histories: Histories
) -> Followers:
    """All who follow; the index comes first, since a hook that is called reads it."""
    followers = Followers(index)
    followers.add(claims, BatchFinished)
    followers.add(attempts, DeviceRead, DeviceLost, BatchFinished)
    followers.add(others)
    followers.add(kept, BatchAccepted, BatchFinished, BatchReopened)
    followers.add(histories, DeviceRead, BatchFinished)
    return followers
