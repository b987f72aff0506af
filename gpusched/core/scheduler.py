"""The scheduler: events in, records and commands out. The only place where the state of a window changes.

It does no I/O, reads no clock and draws no random number: `now` is an argument, ties break on submission order and slot
index, and the same events give the same effects. Delays are deadlines: the supervisor waits for `Scheduler.deadline`
and answers with `TimePassed`.

A slot is allocated in the same call that places a window, and freed only by the end of the attempt that holds it.
The dispatcher decides which window comes next, and on which slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, assert_never

import msgspec

from gpusched.core import lifecycle
from gpusched.core.changes import LARGE, SLICE_WINDOWS, Verb
from gpusched.core.dispatch import Dispatcher
from gpusched.core.estimates import Estimates, guessed_seconds
from gpusched.core.events import (
    AttemptEnded,
    AttemptStarted,
    BatchAccepted,
    BatchAltered,
    BatchFinished,
    BatchHeld,
    BatchRecovered,
    BatchReleased,
    BatchReopened,
    BatchSubmitted,
    CancelRequested,
    CheckResults,
    Command,
    DeviceChanged,
    DeviceLost,
    DeviceRead,
    DevicesFound,
    DeviceTuned,
    DeviceVanished,
    DrainRequested,
    Event,
    HoldRequested,
    HostRead,
    Kill,
    Launch,
    ProcessStuck,
    Record,
    ReleaseRequested,
    ResultsChecked,
    ResumeRequested,
    RetryRequested,
    ShutdownRequested,
    SliceGranted,
    Terminate,
    TermsRequested,
    TimePassed,
    TrialBegan,
    TrialEnded,
    WindowMoved,
    WindowsAdded,
    WindowsArrived,
)
from gpusched.core.failures import TREATMENTS, Retry, is_own, judge, missed, signature, stopped, trained
from gpusched.core.model import (
    CPU,
    Active,
    Batch,
    Cancelled,
    Ending,
    Failed,
    Failure,
    Finished,
    Held,
    Instant,
    Limits,
    Lost,
    Outcome,
    PlannedWindow,
    Queued,
    Reading,
    Running,
    Skipped,
    Starting,
    State,
    Stopping,
    StopReason,
    Succeeded,
    TimedOut,
    Usage,
    WindowKey,
    WindowResult,
    name_of,
)
from gpusched.core.placement import Allocation, Pool
from gpusched.core.planning import planned_outcome
from gpusched.core.queue import BatchQueue, Entry
from gpusched.core.shortage import ask_for_more
from gpusched.core.slices import Slices
from gpusched.core.terms import differences, with_terms
from gpusched.core.timers import Timer, Timers

#: outcomes that `retry` runs again
RETRIABLE = (Failed, TimedOut, Cancelled, Lost)
#: failures that are the device's fault: no other window is sent there
DEVICE_AT_FAULT = ("device_lost", "device_mismatch")
#: the beginning of the reason of a hold that ends when a suitable device opens
STRANDED = "no device is left that could run it"
#: seconds that a fork may take before its attempt is stopped; the launcher imports the workload before the first fork
LAUNCH_TIMEOUT_S = 120.0
#: seconds after which a reading is dropped: NVML or the device does not answer, and the ledger decides alone
STALE_S = 60.0


class Scheduler:
    """See the module. One `handle` call returns its records and commands in the order in which they arose."""

    def __init__(self, estimates: Estimates | None = None, *, slice_windows: int = SLICE_WINDOWS) -> None:
        """`estimates` is only read here; its owner lets it learn. `slice_windows`: most windows changed in one turn."""
        self.pool = Pool()
        self._batches: dict[str, BatchQueue] = {}
        #: windows that are no longer needed, freed a few per turn: freeing 100,000 at once takes longer than a turn may
        self._leaving: list[Entry] = []
        #: batches some of whose windows have not arrived yet
        self._arriving: dict[str, BatchQueue] = {}
        #: unfinished batches, kept apart so that thousands of finished ones cost no time in a turn
        self._open: dict[str, BatchQueue] = {}
        self._dispatcher = Dispatcher(self.pool, self._open, Estimates() if estimates is None else estimates)
        self._timers = Timers(self._batches)
        self._slices = Slices(self._apply, slice_windows)
        #: windows that were killed but do not die, by device
        self._suspected: dict[str, set[WindowKey]] = {}
        self._shutdown = False
        #: number of checks for results so far
        self._checks = 0
        self._records: list[Record] = []
        self._commands: list[Command] = []

    # -- the supervisor's view ---------------------------------------------------------------------------------------

    def handle(self, event: Event, now: Instant) -> tuple[list[Record], list[Command]]:
        """Apply `event`; return the records to commit, and the commands to carry out after that."""
        self._records, self._commands = [], []
        del self._leaving[-LARGE:]
        match event:
            case AttemptEnded():
                self._attempt_ended(event, now)
            case AttemptStarted():
                self._attempt_started(event, now)
            case ResultsChecked():
                self._results_checked(event, now)
            case ProcessStuck():
                self._process_stuck(event, now)
            case TimePassed():
                self._time_passed(now)
            case WindowsArrived():
                self._windows_arrived(event, now)
            case BatchSubmitted():
                self._batch_submitted(event, now)
                self._hold_stranded(now)
            case BatchRecovered():
                self._batch_recovered(event, now)
                self._release_stranded(now)  # this start may have found a device that the last one had lost
                self._hold_stranded(now)
            case CancelRequested():
                self._ask("cancel", event.batch_id, event.label, now)
            case HoldRequested():
                self._hold(event, now)
            case ReleaseRequested():
                self._release(event, now)
                self._hold_stranded(now)
            case RetryRequested():
                self._ask("retry", event.batch_id, event.label, now)
                self._hold_stranded(now)
            case SliceGranted():
                if (changed := self._slices.next) is not None:
                    self._go_on(changed, now)
            case TermsRequested():
                self._change_terms(event, now)
            case DevicesFound():
                for device in event.devices:
                    self.pool.add(device, now.wall)
                    if device.id in event.trying:
                        self.pool.begin_trial(device, now.wall)
            case TrialBegan():
                if self.pool.begin_trial(event.device, now.wall):
                    self._device_changed(event.device.id, now)
            case TrialEnded():
                if self.pool.end_trial(event.device, event.why, now.wall):
                    self._device_changed(event.device.id, now)
                    self._release_stranded(now)
                    self._hold_stranded(now)
            case DeviceVanished():
                self._close_device(event.device_id, "gone", event.reason, now)
            case DeviceRead():
                self.pool.observe(event.reading, self._pids_on(event.reading.device_id), now.monotonic)
                self._look_for_strangers(event.reading, now)
            case HostRead():
                self.pool.observe_host(event.reading, self._pids(self.pool.allocations()), now.monotonic)
            case DeviceLost():
                self._close_device(event.device_id, "quarantined", event.reason, now)
            case DrainRequested():
                self._close_device(event.device_id, "draining", "drained by request", now)
            case ResumeRequested():
                self._open_device(event.device_id, now)
            case ShutdownRequested():
                self._shutdown = True
                if event.mode == "stop":
                    for entry in self._active():
                        self._stop(entry, "interrupted", "the supervisor is stopping", now)
            case _ as never:
                assert_never(never)
        self.pool.forget_readings(now.monotonic - STALE_S)
        self._place(now)
        return self._records, self._commands

    @property
    def deadline(self) -> float | None:
        """The monotonic instant at which `TimePassed` is due, or None."""
        while (timer := self._timers.first) and not self._timers.applies(timer):
            self._timers.pop()
        return timer.at if timer else None

    @property
    def active(self) -> int:
        """The number of windows that hold a slot."""
        return sum(batch.active for batch in self._open.values())

    @property
    def at_work(self) -> bool:
        """Whether any batch is unfinished."""
        return bool(self._open)

    @property
    def unfinished(self) -> int:
        """The number of unfinished windows."""
        return sum(batch.unfinished for batch in self._open.values())

    @property
    def changing(self) -> bool:
        """Whether changes are incomplete: each `SliceGranted` advances them."""
        return bool(self._slices)

    def is_changing(self, batch_id: str) -> bool:
        """Whether changes of this batch are incomplete."""
        return batch_id in self._slices

    def is_at_work(self, batch_id: str) -> bool:
        """Whether the batch is known and has unfinished windows or changes."""
        batch = self._batches.get(batch_id)
        return batch is not None and not batch.done

    def starved(self) -> str | None:
        """Why nothing runs although there is work: other programs use the memory of every device. None: not starved."""
        if self.active == 0 and not self._shutdown:
            for batch in self._open.values():
                if batch.may_have_ready and (full := self.pool.full(batch.batch.device)):
                    return full
        return None

    def batch(self, batch_id: str) -> Batch | None:
        queue = self._batches.get(batch_id)
        return queue.batch if queue else None

    def forget(self, batch_id: str) -> None:
        """Drop a batch if it is finished; a `BatchRecovered` brings it back."""
        batch = self._batches.get(batch_id)
        if batch is not None and batch.finished and not batch.changes:
            del self._batches[batch_id]
            self._leaving += batch.windows

    def planned(self, key: WindowKey) -> PlannedWindow:
        return self._batches[key.batch_id].entries[key.label].planned

    def state(self, key: WindowKey) -> State:
        return self._batches[key.batch_id].entries[key.label].state

    def blames(self, key: WindowKey, failure: Failure) -> bool:
        """Whether `failure` would use up one of the window's attempts, although its device may be the cause.

        Never once the window has been told to end.
        """
        treatment, state = TREATMENTS[failure.kind], self._batches[key.batch_id].entries[key.label].state
        return treatment.retry and treatment.counts and not isinstance(state, Stopping)

    def states(self, batch_id: str) -> Iterator[tuple[PlannedWindow, State]]:
        """The windows of a batch in the order of submission."""
        for entry in self._batches[batch_id].entries.values():
            yield entry.planned, entry.state

    def size(self, batch_id: str) -> int:
        """The number of a batch's windows; 0 for an unknown batch."""
        queue = self._batches.get(batch_id)
        return len(queue.entries) if queue else 0

    def held_reason(self, batch_id: str) -> str | None:
        return self._batches[batch_id].held_reason

    def batches(self) -> tuple[Batch, ...]:
        return tuple(queue.batch for queue in self._batches.values())

    def open_batches(self) -> tuple[Batch, ...]:
        """The unfinished batches."""
        return tuple(queue.batch for queue in self._open.values())

    def validate(self) -> None:
        """Raise AssertionError unless every invariant holds."""
        self.pool.validate()
        held: dict[int, WindowKey] = {}
        for batch in self._batches.values():
            states = [entry.state for entry in batch.entries.values()]
            assert batch.unfinished == sum(not isinstance(s, Finished) for s in states), batch.batch.id
            assert batch.active == sum(isinstance(s, Active) for s in states), batch.batch.id
            for entry in batch.entries.values():
                if isinstance(entry.state, Active):
                    index = entry.state.slot.index
                    assert index not in held, f"slot {index} is held by {held[index]} and {entry.key}"
                    held[index] = entry.key
        assert self._open == {id_: batch for id_, batch in self._batches.items() if not batch.finished}
        allocated = {i: a.key for state in self.pool.devices.values() for i, a in state.allocations.items()}
        assert allocated == held, f"the ledger says {allocated}, the windows say {held}"

    # -- batches -----------------------------------------------------------------------------------------------------

    def _windows_arrived(self, event: WindowsArrived, now: Instant) -> None:
        batch = self._arriving.setdefault(event.batch.id, BatchQueue(event.batch))
        first = not batch.windows
        windows = _as_planned(event.windows)
        self._add(batch, windows)
        self._records.append(WindowsAdded(batch=event.batch, windows=windows, first=first, at=now.wall))

    def _batch_submitted(self, event: BatchSubmitted, now: Instant) -> None:
        earlier = self._batches.get(event.batch.id)
        assert earlier is None or earlier.done, f"batch {event.batch.id} is not finished"
        batch = self._arriving.pop(event.batch.id, None) or BatchQueue(event.batch)
        added = len(batch.windows)
        self._add(batch, _as_planned(event.windows))
        windows = tuple([(entry.planned, entry.state) for entry in batch.windows])
        record = BatchAccepted(batch=event.batch, windows=windows, added=added, notes=event.notes, at=now.wall)
        self._records.append(record)
        self._admit(batch)
        self._end_if_done(batch, now)

    def _batch_recovered(self, event: BatchRecovered, now: Instant) -> None:
        batch = BatchQueue(event.batch)
        batch.held_reason = event.held_reason
        batch.finished = event.finished
        self._slices.resume(batch, event.changes)
        self._add(batch, event.windows)
        self._admit(batch)
        self._end_if_done(batch, now)
        for entry in batch.entries.values():
            if isinstance(entry.state, Active):
                # A window that takes the supervisor down with it must not be tried again for ever.
                entry.losses = event.losses.get(entry.key.label, 0)
                self._recover(entry, batch, now)
        if event.obstacle and batch.unfinished and batch.held_reason is None:
            self._hold_batch(batch, event.obstacle, now)

    def _recover(self, entry: Entry, batch: BatchQueue, now: Instant) -> None:
        """Decide about a window whose process died with the last supervisor; it holds no slot of this pool."""
        state = entry.state
        assert isinstance(state, Active)
        ending: Ending
        if entry.planned.committed is not None:
            ending = entry.planned.committed
            new: State = Finished(attempts=state.attempt, outcome=Succeeded(result=ending))
        elif isinstance(state, Stopping) and state.reason == "cancelled":
            ending = Failure(kind="interrupted", message="the supervisor ended while the window was being cancelled")
            new = Finished(attempts=state.attempt, outcome=Cancelled())
        else:
            ending = Failure(kind="interrupted", message="the supervisor ended while the window was running")
            new = self._after_failure(entry, batch, state.attempt, ending, now)
        self._move(entry, "ended", new, "found after a restart of the supervisor", now, ending)

    def _add(self, batch: BatchQueue, windows: Iterable[tuple[PlannedWindow, State]]) -> None:
        for number, (planned, state) in enumerate(windows, len(batch.windows)):
            batch.add(Entry(WindowKey(batch.batch.id, planned.window.label), planned, number, state))
            batch.active += isinstance(state, Active)

    def _admit(self, batch: BatchQueue) -> None:
        self._batches[batch.batch.id] = batch
        self._open.pop(batch.batch.id, None)
        if not batch.finished:
            self._open[batch.batch.id] = batch

    def _end_if_done(self, batch: BatchQueue, now: Instant) -> None:
        """Once all windows are finished, have their results checked; the batch is finished after that."""
        if batch.done and not batch.finished:
            self._checks += 1
            batch.check = self._checks
            labels = batch.with_result()
            if labels or len(batch.windows) > LARGE:
                self._commands.append(CheckResults(batch_id=batch.batch.id, check=batch.check, labels=labels))
            else:
                self._finish(batch, now)

    def _results_checked(self, event: ResultsChecked, now: Instant) -> None:
        batch = self._batches.get(event.batch_id)
        if batch is None or batch.finished or not batch.done or batch.check != event.check:
            return  # windows were retried meanwhile, or another batch has replaced this one
        for label in event.missing:
            entry = batch.entries[label]
            if (lost := missed(entry.state)) is not None:
                self._record(entry, "missed", lost, "its result is no longer there", now)
        self._finish(batch, now)

    def _finish(self, batch: BatchQueue, now: Instant) -> None:
        batch.finished = True
        self._open.pop(batch.batch.id, None)
        self._records.append(BatchFinished(batch_id=batch.batch.id, at=now.wall))

    # -- attempts ----------------------------------------------------------------------------------------------------

    def _place(self, now: Instant) -> None:
        while not self._shutdown and (placement := self._dispatcher.next(now)) is not None:
            entry, slot = placement.entry, placement.slot
            assert isinstance(entry.state, Queued)
            attempt = entry.state.attempt
            self.pool.allocate(slot, entry.key, placement.device, placement.host)
            self._dispatcher.served(self._batches[entry.key.batch_id])
            self._move(entry, "placed", Starting(attempt=attempt, slot=slot), f"on slot {slot.index}", now)
            self._commands.append(Launch(key=entry.key, attempt=attempt, slot=slot))
            self._timers.set(now.monotonic + LAUNCH_TIMEOUT_S, entry, attempt, "launch")

    def _attempt_started(self, event: AttemptStarted, now: Instant) -> None:
        entry = self._attempt(event.key, event.attempt)
        if entry is None:
            return
        limits = self._batches[entry.key.batch_id].batch.spec.limits
        match entry.state:
            case Starting(attempt=attempt, slot=slot):
                running = Running(attempt=attempt, slot=slot, pid=event.pid, started_at=now.wall)
                self._move(entry, "started", running, f"as process {event.pid}", now)
                entry.began = now.monotonic
                self._limit_time(entry, limits)
            case Stopping(attempt=attempt, slot=slot, reason=reason):
                stopping = Stopping(attempt=attempt, slot=slot, pid=event.pid, reason=reason)
                self._move(entry, "started", stopping, f"as process {event.pid}, to be stopped", now)
                self._commands.append(Terminate(key=entry.key, attempt=attempt))
                # The process gets a grace period of its own: the earlier timer only kills a fork that hangs.
                self._timers.set(now.monotonic + limits.grace_s, entry, attempt, "grace")

    def _attempt_ended(self, event: AttemptEnded, now: Instant) -> None:
        entry = self._attempt(event.key, event.attempt)
        if entry is None:
            return
        state, batch = entry.state, self._batches[entry.key.batch_id]
        assert isinstance(state, Active)
        usage = event.usage
        if usage.device_memory_bytes is None:
            usage = msgspec.structs.replace(usage, device_memory_bytes=self.pool.peak_bytes(state.slot))
        self._tune(state.slot.device_id, entry.planned, event.ending, now)
        allocation = self.pool.release(state.slot)
        ending = event.ending
        reason = trained(ending) if isinstance(ending, WindowResult) else ending.message
        new: State
        if isinstance(ending, WindowResult):
            batch.streak = ("", 0)
            new = Finished(attempts=state.attempt, outcome=Succeeded(result=ending))
        elif isinstance(state, Stopping) and state.reason == "cancelled":
            new = Finished(attempts=state.attempt, outcome=Cancelled())
            reason = "cancelled"
        else:
            if isinstance(state, Stopping):
                ending = stopped(state.reason, batch.batch.spec.limits.timeout_s, ending)
                reason = ending.message
            if is_own(ending, alone=entry.host.alone):
                entry.failures += 1
            elif event.launched:
                entry.losses += 1
            new = self._after_failure(entry, batch, state.attempt, ending, now)
            if isinstance(new, Queued):
                wanted = batch.batch.device
                reason += ask_for_more(entry, ending.kind, allocation, usage, pool=self.pool, wanted=wanted)
        if event.note and reason != "cancelled":
            reason += f"; {event.note}"
            if isinstance(ending, Failure):
                ending = msgspec.structs.replace(ending, message=f"{ending.message}; {event.note}")
        self._move(entry, "ended", new, reason, now, ending, usage)
        self._trust(state.slot.device_id, entry.key, now)
        if isinstance(ending, Failure) and ending.kind in DEVICE_AT_FAULT and state.slot.device_id != CPU:
            self._close_device(state.slot.device_id, "quarantined", ending.message, now)

    def _after_failure(self, entry: Entry, batch: BatchQueue, attempt: int, failure: Failure, now: Instant) -> State:
        """The state that follows a failed attempt: queued for the next one, or finished."""
        limits = batch.batch.spec.limits
        counts = {"failures": entry.failures, "losses": entry.losses}
        verdict = judge(failure, alone=entry.host.alone, **counts, limits=limits)
        if isinstance(verdict, Retry):
            entry.ready_at = now.monotonic + verdict.delay_s
            if verdict.delay_s > 0:
                self._timers.set(entry.ready_at, entry, attempt + 1, "backoff")
            else:
                batch.push(entry)
            return Queued(attempt=attempt + 1)
        if not isinstance(verdict, Skipped):
            self._count_streak(batch, verdict, failure, now)
        return Finished(attempts=attempt, outcome=verdict)

    def _count_streak(self, batch: BatchQueue, verdict: Outcome, failure: Failure, now: Instant) -> None:
        """The circuit breaker: hold a batch whose windows keep failing in the same way."""
        last, count = batch.streak
        cause = signature(failure)
        count = count + 1 if cause == last else 1
        batch.streak = (cause, count)
        limit = batch.batch.spec.limits.breaker_failures
        if limit and count >= limit and batch.held_reason is None and batch.unfinished > 1:
            reason = f"the last {count} windows failed in the same way ({failure.message})"
            self._hold_batch(batch, reason, now)

    def _stop(self, entry: Entry, reason: StopReason, why: str, now: Instant) -> None:
        """End the process of an active window; its `AttemptEnded` comes when the group is gone."""
        state, limits = entry.state, self._batches[entry.key.batch_id].batch.spec.limits
        assert isinstance(state, Active)
        if isinstance(state, Stopping) and (state.reason == reason or reason == "interrupted"):
            return
        pid = None if isinstance(state, Starting) else state.pid
        first = not isinstance(state, Stopping)
        self._move(entry, "stopped", Stopping(attempt=state.attempt, slot=state.slot, pid=pid, reason=reason), why, now)
        if first:
            if pid is not None:
                self._commands.append(Terminate(key=entry.key, attempt=state.attempt))
            self._timers.set(now.monotonic + limits.grace_s, entry, state.attempt, "grace" if pid else "launch_grace")

    # -- requests ----------------------------------------------------------------------------------------------------

    def _ask(self, verb: Verb, batch_id: str, label: str | None, now: Instant) -> None:
        """Make a change, or as much of it as fits into a turn; it waits behind earlier changes of its batch."""
        batch = self._batches.get(batch_id)
        if batch is None or (label is not None and label not in batch.entries):
            return
        waits = self._slices.ask(batch, verb, label, now)
        if waits is None:
            self._go_on(batch, now)
        else:
            self._records.append(waits)

    def _go_on(self, batch: BatchQueue, now: Instant) -> None:
        """Make a slice of a batch's first change."""
        active = [entry for entry in self._active() if entry.key.batch_id == batch.batch.id]
        if (record := self._slices.make(batch, active, now)) is not None:
            self._records.append(record)
        self._end_if_done(batch, now)

    def _apply(self, verb: Verb, entry: Entry, now: Instant) -> bool:
        """Change one window; return whether `verb` applied to it."""
        before = entry.state
        match verb, before:
            case "cancel", Queued(attempt=attempt) | Held(attempt=attempt):
                done = Finished(attempts=attempt - 1, outcome=Cancelled())
                self._move(entry, "cancelled", done, "cancelled by request", now)
            case "cancel", Starting() | Running() | Stopping():
                self._stop(entry, "cancelled", "cancelled by request", now)
            case "hold", Queued(attempt=attempt):
                self._move(entry, "held", Held(attempt=attempt), "held by request", now)
            case "release", Held(attempt=attempt):
                self._requeue(entry, "released", attempt, "released by request", now)
            case "retry", Finished(attempts=attempts, outcome=outcome) if isinstance(outcome, RETRIABLE):
                self._reopen_batch(self._batches[entry.key.batch_id], now)
                entry.failures = entry.losses = 0
                self._requeue(entry, "retried", attempts + 1, "retried by request", now)
        return entry.state is not before

    def _hold(self, event: HoldRequested, now: Instant) -> None:
        if event.label is not None:
            self._ask("hold", event.batch_id, event.label, now)
            return
        batch = self._batches.get(event.batch_id)
        if batch and batch.unfinished and batch.held_reason is None:
            self._hold_batch(batch, "held by request", now)

    def _hold_batch(self, batch: BatchQueue, reason: str, now: Instant) -> None:
        batch.held_reason = reason
        self._records.append(BatchHeld(batch_id=batch.batch.id, reason=reason, at=now.wall))

    def _release(self, event: ReleaseRequested, now: Instant) -> None:
        batch = self._batches.get(event.batch_id)
        if batch and event.label is None and batch.held_reason is not None:
            self._release_batch(batch, now)
        self._ask("release", event.batch_id, event.label, now)

    def _release_batch(self, batch: BatchQueue, now: Instant) -> None:
        batch.held_reason, batch.streak = None, ("", 0)
        self._records.append(BatchReleased(batch_id=batch.batch.id, at=now.wall))

    def _reopen_batch(self, batch: BatchQueue, now: Instant) -> None:
        """Make a batch unfinished again, since some of its windows are to run."""
        batch.streak = ("", 0)
        if batch.finished:
            batch.finished = False
            self._open[batch.batch.id] = batch
            self._records.append(BatchReopened(batch_id=batch.batch.id, at=now.wall))

    def _change_terms(self, event: TermsRequested, now: Instant) -> None:
        """Give a batch other terms. A new timeout also applies to windows that run, from their start on."""
        queue = self._batches.get(event.batch_id)
        if queue is None:
            return
        spec = with_terms(queue.batch.spec, event.terms)
        if not (changes := differences(queue.batch.spec, spec)):
            return
        queue.batch = msgspec.structs.replace(queue.batch, spec=spec)
        self._records.append(BatchAltered(batch=queue.batch, changes=changes, at=now.wall))
        for entry in self._active():
            if entry.key.batch_id == event.batch_id and isinstance(entry.state, Running):
                self._limit_time(entry, spec.limits)

    def _limit_time(self, entry: Entry, limits: Limits) -> None:
        assert isinstance(entry.state, Running)
        if limits.timeout_s > 0:
            self._timers.set(entry.began + limits.timeout_s, entry, entry.state.attempt, "timeout")

    def _requeue(self, entry: Entry, move: lifecycle.Move, attempt: int, why: str, now: Instant) -> None:
        entry.ready_at = now.monotonic
        self._move(entry, move, Queued(attempt=attempt), why, now)
        self._batches[entry.key.batch_id].push(entry)

    # -- devices and time --------------------------------------------------------------------------------------------

    def _close_device(
        self, device_id: str, health: Literal["draining", "suspect", "quarantined", "gone"], reason: str, now: Instant
    ) -> None:
        if not self.pool.set_health(device_id, health, reason, now.wall):
            return
        self._device_changed(device_id, now)
        if health not in ("draining", "suspect"):
            for entry in self._active():
                if isinstance(entry.state, Active) and entry.state.slot.device_id == device_id:
                    self._stop(entry, "interrupted", f"device {device_id}: {reason}", now)
            if health == "gone":
                self.pool.remove(device_id)
            self._hold_stranded(now)

    def _process_stuck(self, event: ProcessStuck, now: Instant) -> None:
        """Keep the slot of a process that was killed but does not die, and place no other window on its GPU.

        The host's processors are not closed: there the process hangs in a file system, or a debugger holds it.
        """
        entry = self._attempt(event.key, event.attempt)
        if entry is None or not isinstance(entry.state, Running | Stopping):
            return
        device_id = entry.state.slot.device_id
        self._move(entry, "stuck", entry.state, event.reason, now)
        if device_id != CPU:
            self._suspected.setdefault(device_id, set()).add(entry.key)
            if self.pool.devices[device_id].health == "open":
                self._close_device(device_id, "suspect", f"{entry.key} {event.reason}", now)

    def _trust(self, device_id: str, key: WindowKey, now: Instant) -> None:
        """Open the device of a window that has left, if it was closed only because this window did not die."""
        stuck = self._suspected.get(device_id)
        if stuck is not None and key in stuck:
            stuck.remove(key)
            state = self.pool.devices.get(device_id)
            if not stuck and state is not None and state.health == "suspect":
                self._open_device(device_id, now)

    def _look_for_strangers(self, reading: Reading, now: Instant) -> None:
        """Close the devices whose windows show up in the reading of another one: pinning does not work there."""
        seen = (reading.process_memory_bytes or {}).keys()
        for device_id in self.pool.devices if seen else ():
            if device_id not in (reading.device_id, CPU):
                for pid in sorted(self._pids_on(device_id).keys() & seen):
                    reason = f"process {pid} was placed here, but runs on {reading.device_id}"
                    self._close_device(device_id, "quarantined", reason, now)

    def _open_device(self, device_id: str, now: Instant) -> None:
        state = self.pool.devices.get(device_id)
        if state is None or state.untried or not self.pool.set_health(device_id, "open", "", now.wall):
            return
        self._device_changed(device_id, now)
        self._release_stranded(now)

    def _release_stranded(self, now: Instant) -> None:
        for batch in self._open.values():
            if (batch.held_reason or "").startswith(STRANDED) and not self.pool.hopeless(batch.batch.device):
                self._release_batch(batch, now)

    def _hold_stranded(self, now: Instant) -> None:
        """Hold the batches for which no device is left, so that the people who wait for them hear of it."""
        for batch in self._open.values():
            if batch.unfinished and batch.held_reason is None:
                reason = self.pool.hopeless(batch.batch.device)
                if reason is not None:
                    self._hold_batch(batch, f"{STRANDED} ({reason})", now)

    def _tune(self, device_id: str, planned: PlannedWindow, ending: Ending, now: Instant) -> None:
        """Let the device's tuner learn from a window that ends, before it gives its slot back."""
        device = self.pool.devices[device_id]
        if device.tuner is None:
            return
        if device.has_free or isinstance(ending, Failure):
            device.tuner.interrupted()
            return
        reason = device.tuner.ended(guessed_seconds(planned.usable_rows), now.monotonic)
        if reason is not None:
            record = DeviceTuned(device_id=device_id, slots=device.width, reason=reason, at=now.wall)
            self._records.append(record)

    def _device_changed(self, device_id: str, now: Instant) -> None:
        state = self.pool.devices[device_id]
        changed = DeviceChanged(
            device_id=device_id, health=state.health, reason=state.reason, at=now.wall, untried=state.untried
        )
        self._records.append(changed)

    def _time_passed(self, now: Instant) -> None:
        while (timer := self._timers.first) and timer.at <= now.monotonic:
            self._timers.pop()
            if self._timers.applies(timer):
                self._due(timer, now)

    def _due(self, timer: Timer, now: Instant) -> None:
        entry = timer.entry
        batch = self._batches[entry.key.batch_id]
        match timer.purpose:
            case "backoff":
                batch.push(entry)
            case "launch":
                self._stop(entry, "interrupted", f"not forked after {LAUNCH_TIMEOUT_S:g} s", now)
            case "timeout":
                # A change of the batch's terms may have postponed or removed the timeout since then.
                timeout_s = batch.batch.spec.limits.timeout_s
                if 0 < timeout_s <= now.monotonic - entry.began:
                    self._stop(entry, "timed_out", f"still running after {timeout_s:g} s", now)
            case "grace" | "launch_grace":
                self._commands.append(Kill(key=entry.key, attempt=timer.attempt))
            case _ as never:
                assert_never(never)

    # -- one window ----------------------------------------------------------------------------------------------------

    def _attempt(self, key: WindowKey, attempt: int) -> Entry | None:
        """The window that is in this attempt, or None if the event comes too late to matter."""
        batch = self._batches.get(key.batch_id)
        entry = batch.entries.get(key.label) if batch else None
        if entry is None or not isinstance(entry.state, Active) or entry.state.attempt != attempt:
            return None
        return entry

    def _active(self) -> list[Entry]:
        keys = [allocation.key for allocation in self.pool.allocations()]
        return [self._batches[key.batch_id].entries[key.label] for key in keys]

    def _pids_on(self, device_id: str) -> dict[int, int]:
        """Slot indexes by PID of the windows that run on a device."""
        state = self.pool.devices.get(device_id)
        return self._pids(state.allocations.values()) if state else {}

    def _pids(self, allocations: Iterable[Allocation]) -> dict[int, int]:
        pids: dict[int, int] = {}
        for allocation in allocations:
            window = self._batches[allocation.key.batch_id].entries[allocation.key.label].state
            if isinstance(window, Running):
                pids[window.pid] = allocation.slot.index
        return pids

    def _move(
        self,
        entry: Entry,
        move: lifecycle.Move,
        new: State,
        reason: str,
        now: Instant,
        ending: Ending | None = None,
        usage: Usage | None = None,
    ) -> None:
        """Change the state of a window, and update the counts of its batch."""
        batch, old = self._batches[entry.key.batch_id], entry.state
        self._record(entry, move, new, reason, now, ending, usage)
        batch.active += isinstance(new, Active) - isinstance(old, Active)
        batch.unfinished += isinstance(old, Finished) - isinstance(new, Finished)
        if isinstance(new, Finished):
            self._end_if_done(batch, now)

    def _record(
        self,
        entry: Entry,
        move: lifecycle.Move,
        new: State,
        reason: str,
        now: Instant,
        ending: Ending | None = None,
        usage: Usage | None = None,
    ) -> None:
        lifecycle.check(str(entry.key), entry.state, move, new, entry.story)
        entry.story.append(f"{name_of(entry.state)} → {name_of(new)}: {move}, {reason}")
        self._records.append(
            WindowMoved(key=entry.key, old=entry.state, new=new, reason=reason, at=now.wall, ending=ending, usage=usage)
        )
        entry.state = new


def _as_planned(windows: Iterable[PlannedWindow]) -> tuple[tuple[PlannedWindow, State], ...]:
    """Windows in the states in which they begin: queued, or finished by the plan."""
    outcomes = ((planned, planned_outcome(planned)) for planned in windows)
    return tuple([(p, Queued() if o is None else Finished(attempts=0, outcome=o)) for p, o in outcomes])
