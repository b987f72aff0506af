"""The scheduler: events in, records and commands out. The only place where the state of a window changes.

It does no I/O, reads no clock and draws no random number: `now` is an argument, ties break on submission order and slot
index, and the same events give the same effects. Delays are deadlines: the supervisor waits for `Scheduler.deadline`
and answers with `TimePassed`.

A slot is allocated in the same call that places a window, and freed only by the end of the attempt that holds it.
The dispatcher decides which window comes next, and on which slot. What an event means is decided in `attempts`,
`requests` and `devices`, which write into the same `books`, and only while `Scheduler.handle` runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from gpusched.core.attempts import Attempts
from gpusched.core.books import Books
from gpusched.core.changes import LARGE, SLICE_WINDOWS
from gpusched.core.commands import Command, Kill, Launch
from gpusched.core.devices import Devices
from gpusched.core.dispatch import Dispatcher
from gpusched.core.estimates import Estimates
from gpusched.core.events import (
    AttemptEnded,
    AttemptStarted,
    BatchRecovered,
    BatchSubmitted,
    ChangeRequested,
    DeviceLost,
    DeviceRead,
    DeviceVanished,
    DrainRequested,
    Event,
    HostRead,
    NodeJoined,
    NodeLost,
    NodeSilent,
    ProcessStuck,
    Record,
    ResultsChecked,
    ResumeRequested,
    ShutdownRequested,
    SliceGranted,
    TermsRequested,
    TimePassed,
    TrialBegan,
    TrialEnded,
    WindowsArrived,
    WindowsRecovered,
)
from gpusched.core.explain import explain
from gpusched.core.failures import TREATMENTS, missed
from gpusched.core.incoming import Incoming
from gpusched.core.model import Batch, HoldReason, Instant, PlannedWindow, Slot, WindowKey
from gpusched.core.queue import Entry
from gpusched.core.reasons import Explanation
from gpusched.core.requests import Requests
from gpusched.core.states import Failure, Queued, Starting, State, Stopping, is_active
from gpusched.core.timers import Timer

#: seconds that a fork may take before its attempt is stopped; the launcher imports the workload before the first fork
LAUNCH_TIMEOUT_S = 120.0
#: the same for a window that is ahead, which waits for the end of a short one
AHEAD_TIMEOUT_S = 10.0
#: seconds after which a reading is dropped: NVML or the device does not answer, and the ledger decides alone
STALE_S = 60.0


class Scheduler:
    """See the module. One `handle` call returns its records and commands in the order in which they arose."""

    def __init__(self, estimates: Estimates | None = None, *, slice_windows: int = SLICE_WINDOWS) -> None:
        """`estimates` is only read here; its owner lets it learn. `slice_windows`: most windows changed in one turn."""
        self._books = Books()
        self.pool = self._books.pool
        #: windows that are no longer needed, freed a few per turn: freeing 100,000 at once takes longer than a turn may
        self._leaving: list[Entry] = []
        self._incoming = Incoming()
        self._dispatcher = Dispatcher(self.pool, self._books.open, Estimates() if estimates is None else estimates)
        self._devices = Devices(self._books)
        self._attempts = Attempts(self._books, self._devices)
        self._requests = Requests(self._books, slice_windows)
        self._shutdown = False

    # -- the supervisor's view ---------------------------------------------------------------------------------------

    def handle(self, event: Event, now: Instant) -> tuple[list[Record], list[Command]]:
        """Apply `event`; return the records to commit, and the commands to carry out after that."""
        self._books.begin_turn()
        del self._leaving[-LARGE:]
        match event:
            case AttemptEnded():
                self._attempts.ended(event, now)
            case AttemptStarted():
                self._attempts.started(event, now)
            case ResultsChecked():
                self._results_checked(event, now)
            case ProcessStuck():
                self._devices.process_stuck(event, now)
            case TimePassed():
                self._time_passed(now)
            case WindowsArrived():
                self._books.records.append(self._incoming.arrived(event, now))
            case BatchSubmitted():
                self._batch_submitted(event, now)
            case WindowsRecovered():
                self._incoming.recovered(event)
            case BatchRecovered():
                self._batch_recovered(event, now)
            case ChangeRequested():
                self._requests.change(event, now)
                if event.verb in ("release", "retry"):
                    self._devices.hold_stranded(now)
            case SliceGranted():
                self._requests.make_slice(event.windows, now)
            case TermsRequested():
                self._requests.change_terms(event, now)
            case NodeJoined():
                self._devices.joined(event, now)
            case NodeSilent():
                self._devices.silent(event, now)
            case NodeLost():
                self._attempts.node_lost(event, now)
            case TrialBegan():
                self._devices.trial_began(event, now)
            case TrialEnded():
                self._devices.trial_ended(event, now)
            case DeviceVanished():
                self._devices.close(event.device_id, "gone", event.reason, now)
            case DeviceRead():
                self._devices.read(event.reading, now)
            case HostRead():
                self.pool.observe_host(event.reading, now.monotonic)
            case DeviceLost():
                self._devices.close(event.device_id, "quarantined", event.reason, now)
            case DrainRequested():
                self._devices.close(event.device_id, "draining", "drained by request", now)
            case ResumeRequested():
                self._devices.reopen(event.device_id, now)
            case ShutdownRequested():
                self._shut_down(event, now)
            case _ as never:
                assert_never(never)
        self.pool.forget_readings(now.monotonic - STALE_S)
        self._place(now)
        return self._books.records, self._books.commands

    @property
    def deadline(self) -> float | None:
        """The monotonic instant at which `TimePassed` is due, or None."""
        while (timer := self._books.timers.first) and not self._books.timers.applies(timer):
            self._books.timers.pop()
        return timer.at if timer else None

    @property
    def active(self) -> int:
        """The number of windows that hold a slot."""
        return sum(batch.active for batch in self._books.open.values())

    @property
    def at_work(self) -> bool:
        """Whether any batch is unfinished."""
        return bool(self._books.open)

    @property
    def unfinished(self) -> int:
        """The number of unfinished windows."""
        return sum(batch.unfinished for batch in self._books.open.values())

    @property
    def changing(self) -> bool:
        """Whether changes are incomplete: each `SliceGranted` advances them."""
        return bool(self._requests.slices)

    def is_changing(self, batch_id: str) -> bool:
        """Whether changes of this batch are incomplete."""
        return batch_id in self._requests.slices

    def is_at_work(self, batch_id: str) -> bool:
        """Whether the batch is known and has unfinished windows or changes."""
        batch = self._books.batches.get(batch_id)
        return batch is not None and not batch.done

    def starved(self) -> str | None:
        """Why nothing runs although there is work: other programs use the memory of every device. None: not starved."""
        if self.active == 0 and not self._shutdown:
            for batch in self._books.open.values():
                if batch.may_have_ready and (full := self.pool.offers.full(batch.batch.device)):
                    return full
        return None

    def batch(self, batch_id: str) -> Batch | None:
        queue = self._books.batches.get(batch_id)
        return queue.batch if queue else None

    def forget(self, batch_id: str) -> None:
        """Drop a batch if it is finished; a `BatchRecovered` brings it back."""
        batch = self._books.batches.get(batch_id)
        if batch is not None and batch.finished and not batch.changes:
            del self._books.batches[batch_id]
            self._leaving += batch.windows

    def planned(self, key: WindowKey) -> PlannedWindow:
        return self._books.batches[key.batch_id].entries[key.label].planned

    def state(self, key: WindowKey) -> State:
        return self._books.batches[key.batch_id].entries[key.label].state

    def explain(self, key: WindowKey, now: Instant) -> Explanation | None:
        """What a window does, and why it waits if it does; None if the scheduler does not know its batch."""
        batch = self._books.batches.get(key.batch_id)
        if batch is None or key.label not in batch.entries:
            return None
        entry, dispatcher = batch.entries[key.label], self._dispatcher
        return explain(entry, batch, dispatcher=dispatcher, pool=self.pool, shutdown=self._shutdown, now=now)

    def unheld(self, key: WindowKey) -> str:
        """Why a hold of a window that has a slot does not hold it now, in words; empty: it has none."""
        batch = self._books.batches.get(key.batch_id)
        entry = batch.entries.get(key.label) if batch is not None else None
        if entry is None or not is_active(entry.state):
            return ""
        if self._books.waits(entry):
            node = entry.state.slot.node
            return f"{key.label} waits on node {node}: it is taken back, and held unless it starts before"
        return f"{key.label} has started, and goes on"

    def blames(self, key: WindowKey, failure: Failure) -> bool:
        """Whether `failure` would use up one of the window's attempts, although its device may be the cause.

        Never once the window has been told to end.
        """
        treatment, state = TREATMENTS[failure.kind], self._books.batches[key.batch_id].entries[key.label].state
        return treatment.retry and treatment.counts and type(state) is not Stopping

    def states(self, batch_id: str) -> Iterator[tuple[PlannedWindow, State]]:
        """The windows of a batch in the order of submission."""
        for entry in self._books.batches[batch_id].entries.values():
            yield entry.planned, entry.state

    def size(self, batch_id: str) -> int:
        """The number of a batch's windows; 0 for an unknown batch."""
        queue = self._books.batches.get(batch_id)
        return len(queue.entries) if queue else 0

    def held(self, batch_id: str) -> HoldReason | None:
        """Why no window of the batch is placed until it is released; None: it is not held."""
        return self._books.batches[batch_id].held

    def batches(self) -> tuple[Batch, ...]:
        return tuple(queue.batch for queue in self._books.batches.values())

    def running_batches(self) -> tuple[str, ...]:
        """The ids of the batches whose windows hold slots."""
        return tuple(batch.batch.id for batch in self._books.open.values() if batch.active)

    def open_batches(self) -> tuple[Batch, ...]:
        """The unfinished batches."""
        return tuple(queue.batch for queue in self._books.open.values())

    def validate(self) -> None:
        """Raise AssertionError unless every invariant holds."""
        self._books.validate()

    # -- batches -----------------------------------------------------------------------------------------------------

    def _batch_submitted(self, event: BatchSubmitted, now: Instant) -> None:
        earlier = self._books.batches.get(event.batch.id)
        assert earlier is None or earlier.done, f"batch {event.batch.id} is not finished"
        batch, record = self._incoming.submitted(event, now)
        self._books.records.append(record)
        self._books.admit(batch)
        self._books.end_if_done(batch, now)
        self._devices.hold_stranded(now)

    def _batch_recovered(self, event: BatchRecovered, now: Instant) -> None:
        batch = self._incoming.taken_up(event)
        self._requests.slices.resume(batch, event.changes)
        self._books.admit(batch)
        self._books.end_if_done(batch, now)
        for entry in batch.entries.values():
            if is_active(entry.state):
                # A window that takes the supervisor down with it must not be tried again for ever. One that was
                # starting may have run: the start of a short window is recorded together with its end.
                entry.losses = event.losses.get(entry.key.label, 0) + (type(entry.state) is Starting)
                self._attempts.recover(entry, batch, now)
        if event.obstacle and batch.unfinished and batch.held is None:
            self._books.hold(batch, HoldReason(kind="obstacle", text=event.obstacle), now)
        self._devices.release_stranded(now)  # this start may have found a device that the last one had lost
        self._devices.hold_stranded(now)

    def _results_checked(self, event: ResultsChecked, now: Instant) -> None:
        batch = self._books.batches.get(event.batch_id)
        if batch is None or batch.finished or not batch.done or batch.check != event.check:
            return  # windows were retried meanwhile, or another batch has replaced this one
        for label in event.missing:
            entry = batch.entries[label]
            if (lost := missed(entry.state)) is not None:
                self._books.move(entry, "missed", lost, "its result is no longer there", now)
        if event.complete:
            self._books.finish(batch, now)

    # -- placement and time ----------------------------------------------------------------------------------------

    def _place(self, now: Instant) -> None:
        while not self._shutdown and (placement := self._dispatcher.next(now)) is not None:
            entry, slot = placement.entry, placement.slot
            assert type(entry.state) is Queued
            attempt = entry.state.attempt
            demand, ends_at = placement.demand, placement.ends_at
            state = self.pool.devices[slot.device_id]
            at_once, timeout_s = (state.width, AHEAD_TIMEOUT_S) if slot.waits else (0, LAUNCH_TIMEOUT_S)
            self.pool.allocate(slot, entry.key, demand.device, demand.host, ends_at=ends_at)
            self._dispatcher.served(self._books.batches[entry.key.batch_id])
            self._books.move(entry, "placed", Starting(attempt=attempt, slot=slot), _where(slot), now)
            self._books.commands.append(Launch(key=entry.key, attempt=attempt, slot=slot, at_once=at_once))
            self._books.timers.set(now.monotonic + timeout_s, entry, attempt, "launch")

    def _shut_down(self, event: ShutdownRequested, now: Instant) -> None:
        self._shutdown = True
        if event.mode == "stop":
            for entry in self._books.active():
                self._books.stop(entry, "interrupted", "the supervisor is stopping", now)
        else:
            self._books.withdraw(self._books.active())

    def _time_passed(self, now: Instant) -> None:
        while (timer := self._books.timers.first) and timer.at <= now.monotonic:
            self._books.timers.pop()
            if self._books.timers.applies(timer):
                self._due(timer, now)

    def _due(self, timer: Timer, now: Instant) -> None:
        entry = timer.entry
        batch = self._books.batches[entry.key.batch_id]
        match timer.purpose:
            case "backoff":
                batch.push(entry)
            case "launch":
                assert type(entry.state) is Starting
                timeout_s = AHEAD_TIMEOUT_S if entry.state.slot.waits else LAUNCH_TIMEOUT_S
                self._books.sit_down(entry)
                if type(entry.state) is Starting:
                    self._books.stop(entry, "interrupted", f"not forked after {timeout_s:g} s", now)
            case "timeout":
                # A change of the batch's terms may have postponed or removed the timeout since then.
                timeout_s = batch.batch.spec.limits.timeout_s
                if 0 < timeout_s <= now.monotonic - entry.began:
                    self._books.stop(entry, "timed_out", f"still running after {timeout_s:g} s", now)
            case "grace" | "launch_grace":
                self._books.commands.append(Kill(key=entry.key, attempt=timer.attempt))
            case _ as never:
                assert_never(never)


def _where(slot: Slot) -> str:
    return f"ahead on node {slot.node}" if slot.waits else f"on slot {slot.index}"
