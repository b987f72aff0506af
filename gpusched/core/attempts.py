"""Attempts: what the start and the end of an attempt mean for its window, its batch and its device."""

from __future__ import annotations

import msgspec

from gpusched.core.books import Books
from gpusched.core.commands import Terminate
from gpusched.core.devices import Devices
from gpusched.core.events import AttemptEnded, AttemptStarted, NodeLost
from gpusched.core.failures import Retry, is_own, judge, stopped, trained
from gpusched.core.model import HoldReason, Instant, WindowResult
from gpusched.core.queue import NO_STREAK, BatchQueue, Entry
from gpusched.core.shortage import ask_for_more
from gpusched.core.states import (
    Cancelled,
    Ending,
    Failure,
    Finished,
    Held,
    Outcome,
    Queued,
    Running,
    Skipped,
    Starting,
    State,
    Stopping,
    Succeeded,
    is_active,
    is_to_hold,
)

#: failures that are the device's fault: no other window is sent there
DEVICE_AT_FAULT = ("device_lost", "device_mismatch")


class Attempts:
    """Moves windows on when their attempts start and end, also those that ended with the last supervisor."""

    def __init__(self, books: Books, devices: Devices) -> None:
        self._books = books
        self._devices = devices

    def started(self, event: AttemptStarted, now: Instant) -> None:
        entry = self._books.attempt(event.key, event.attempt)
        if entry is None:
            return
        limits = self._books.batches[entry.key.batch_id].batch.spec.limits
        match entry.state:
            case Starting():
                self._books.begin(entry, event.pid, now)
            case Stopping(attempt=attempt, slot=slot, reason=reason):
                self._books.pool.started(slot, event.pid)
                stopping = Stopping(attempt=attempt, slot=slot, pid=event.pid, reason=reason)
                self._books.move(entry, "started", stopping, f"as process {event.pid}, to be stopped", now)
                self._books.commands.append(Terminate(key=entry.key, attempt=attempt))
                # The process gets a grace period of its own: the earlier timer only kills a fork that hangs.
                self._books.timers.set(now.monotonic + limits.grace_s, entry, attempt, "grace")

    def ended(self, event: AttemptEnded, now: Instant) -> None:
        entry = self._books.attempt(event.key, event.attempt)
        if entry is None:
            return
        self._books.sit_down(entry)
        state, batch = entry.state, self._books.batches[entry.key.batch_id]
        assert is_active(state)
        usage = event.usage
        if usage.device_memory_bytes is None and (peak := self._books.pool.peak_bytes(state.slot)) is not None:
            usage = msgspec.structs.replace(usage, device_memory_bytes=peak)
        device = self._books.pool.devices[state.slot.device_id].device
        self._devices.tune(device.id, entry.planned, event.ending, now)
        allocation = self._books.pool.release(state.slot)
        ending = event.ending
        reason = trained(ending) if isinstance(ending, WindowResult) else ending.message
        new: State
        if isinstance(ending, WindowResult):
            batch.streak = NO_STREAK
            new = Finished(attempts=state.attempt, outcome=Succeeded(result=ending))
            if type(state) is Running:
                self._books.pool.expect(device.id, now.monotonic - entry.began)
        elif type(state) is Stopping and state.reason == "cancelled":
            new = Finished(attempts=state.attempt, outcome=Cancelled())
            reason = "cancelled"
        else:
            if type(state) is Stopping:
                ending = stopped(state.reason, batch.batch.spec.limits.timeout_s, ending)
                reason = ending.message
            if is_own(ending, alone=entry.host.alone):
                entry.failures += 1
            elif event.launched:
                entry.losses += 1
            new = self._after_failure(entry, batch, state.attempt, ending, now)
            if type(new) is Queued:
                wanted = batch.batch.device
                reason += ask_for_more(entry, ending.kind, allocation, usage, pool=self._books.pool, wanted=wanted)
            elif ending.place and entry.failures < batch.batch.spec.limits.max_attempts:
                reason += "; it was raised twice at the same line, so there is no third attempt"
        if event.note and reason != "cancelled":
            reason += f"; {event.note}"
            if type(ending) is Failure:
                ending = msgspec.structs.replace(ending, message=f"{ending.message}; {event.note}")
        self._books.move(entry, "ended", new, reason, now, ending, usage)
        self._hold(entry, state, now)
        self._books.seat_next(device.id)
        self._devices.trust(device.id, entry.key, now)
        if type(ending) is Failure and ending.kind in DEVICE_AT_FAULT and device.kind != "host":
            self._devices.close(device.id, "quarantined", ending.message, now)

    def node_lost(self, event: NodeLost, now: Instant) -> None:
        """End the attempts on a lost node: their processes are gone, and nobody is left there to say so."""
        lost = Failure(kind="node_lost", message=f"node {event.host} was lost: {event.reason}")
        for entry in self._devices.node_lost(event, now):
            state = entry.state
            assert is_active(state)
            launched = not self._books.waits(entry)
            self.ended(AttemptEnded(key=entry.key, attempt=state.attempt, ending=lost, launched=launched), now)
        self._devices.hold_stranded(now)

    def recover(self, entry: Entry, batch: BatchQueue, now: Instant) -> None:
        """Decide about a window whose process died with the last supervisor; it holds no slot of this pool."""
        state = entry.state
        assert is_active(state)
        ending: Ending
        if entry.planned.committed is not None:
            ending = entry.planned.committed
            new: State = Finished(attempts=state.attempt, outcome=Succeeded(result=ending))
        elif type(state) is Stopping and state.reason == "cancelled":
            ending = Failure(kind="interrupted", message="the supervisor ended while the window was being cancelled")
            new = Finished(attempts=state.attempt, outcome=Cancelled())
        else:
            ending = Failure(kind="interrupted", message="the supervisor ended while the window was running")
            new = self._after_failure(entry, batch, state.attempt, ending, now)
        self._books.move(entry, "ended", new, "found after a restart of the supervisor", now, ending)
        self._hold(entry, state, now)

    def _hold(self, entry: Entry, before: State, now: Instant) -> None:
        """Hold a window that is in the queue again, if it was to be held `before` its attempt ended."""
        if is_to_hold(before) and type(entry.state) is Queued:
            self._books.move(entry, "held", Held(attempt=entry.state.attempt), "held by request", now)

    def _after_failure(self, entry: Entry, batch: BatchQueue, attempt: int, failure: Failure, now: Instant) -> State:
        """The state that follows a failed attempt: queued for the next one, or finished."""
        verdict = judge(
            failure,
            failures=entry.failures,
            losses=entry.losses,
            limits=batch.batch.spec.limits,
            alone=entry.host.alone,
            last_place=entry.raised_at,
        )
        entry.raised_at = failure.place
        if isinstance(verdict, Retry):
            entry.ready_at = now.monotonic + verdict.delay_s
            if verdict.delay_s > 0:
                self._books.timers.set(entry.ready_at, entry, attempt + 1, "backoff")
            else:
                batch.push(entry)
            return Queued(attempt=attempt + 1)
        if not isinstance(verdict, Skipped):
            self._count_streak(batch, verdict, failure, now)
        return Finished(attempts=attempt, outcome=verdict)

    def _count_streak(self, batch: BatchQueue, verdict: Outcome, failure: Failure, now: Instant) -> None:
        """The circuit breaker: hold a batch whose windows keep failing in the same way."""
        cause, (last, count) = (failure.kind, failure.cause), batch.streak
        count = count + 1 if cause == last else 1
        batch.streak = (cause, count)
        limit = batch.batch.spec.limits.breaker_failures
        if limit and count >= limit and batch.held is None and batch.unfinished > 1:
            reason = f"the last {count} windows failed in the same way ({failure.message})"
            self._books.hold(batch, HoldReason(kind="breaker", text=reason), now)
