"""The books: what the scheduler knows of batches, windows and slots, and the one way in which a window's state changes.

The scheduler and its parts write here, within `Scheduler.handle` and nowhere else: what one call records and asks for
is in `records` and `commands`, in the order in which it arose.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gpusched.core import lifecycle
from gpusched.core.changes import LARGE
from gpusched.core.commands import CheckResults, Command, Terminate, Withdraw
from gpusched.core.events import BatchFinished, BatchHeld, BatchReleased, BatchReopened, Record, WindowMoved
from gpusched.core.ledger import DeviceState
from gpusched.core.model import HoldReason, Instant, Slot, WindowKey
from gpusched.core.pool import Pool
from gpusched.core.queue import NO_STREAK, BatchQueue, Entry
from gpusched.core.states import (
    Ending,
    Finished,
    Queued,
    Running,
    Starting,
    State,
    Stopping,
    StopReason,
    Usage,
    is_active,
    is_to_hold,
)
from gpusched.core.statuses import ACTIVE, name_of, result_of
from gpusched.core.timers import Timers


class Books:
    """The pool, the batches, and the timers; `move` changes a window's state and records it."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.batches: dict[str, BatchQueue] = {}
        #: unfinished batches, kept apart so that thousands of finished ones cost no time in a turn
        self.open: dict[str, BatchQueue] = {}
        self.timers = Timers(self.batches)
        #: windows that have started on their node while the end of the one before is on its way: they stand in their
        #: places until its slot is free. By device: the PID, and the instant of the start
        self._standing: dict[str, dict[WindowKey, tuple[int, Instant]]] = {}
        #: number of checks for results so far
        self.checks = 0
        self.records: list[Record] = []
        self.commands: list[Command] = []

    def begin_turn(self) -> None:
        """Begin with no records and no commands."""
        self.records, self.commands = [], []

    def admit(self, batch: BatchQueue) -> None:
        """Take up a batch; it replaces one with the same id."""
        self.batches[batch.batch.id] = batch
        self.open.pop(batch.batch.id, None)
        if not batch.finished:
            self.open[batch.batch.id] = batch

    def end_if_done(self, batch: BatchQueue, now: Instant) -> None:
        """Once all windows are finished, have their results checked; the batch is finished after that."""
        if batch.done and not batch.finished:
            self.checks += 1
            batch.check = self.checks
            labels = tuple(batch.with_result)
            if labels or len(batch.windows) > LARGE:
                self.commands.append(CheckResults(batch_id=batch.batch.id, check=batch.check, labels=labels))
            else:
                self.finish(batch, now)

    def finish(self, batch: BatchQueue, now: Instant) -> None:
        batch.finished = True
        self.open.pop(batch.batch.id, None)
        self.records.append(BatchFinished(batch_id=batch.batch.id, at=now.wall))

    def hold(self, batch: BatchQueue, reason: HoldReason, now: Instant) -> None:
        batch.held = reason
        self.records.append(BatchHeld(batch_id=batch.batch.id, reason=reason.text, kind=reason.kind, at=now.wall))

    def release(self, batch: BatchQueue, now: Instant) -> None:
        batch.held, batch.streak = None, NO_STREAK
        self.records.append(BatchReleased(batch_id=batch.batch.id, at=now.wall))

    def reopen(self, batch: BatchQueue, now: Instant) -> None:
        """Make a batch unfinished again, since some of its windows are to run."""
        batch.streak = NO_STREAK
        if batch.finished:
            batch.finished = False
            self.open[batch.batch.id] = batch
            self.records.append(BatchReopened(batch_id=batch.batch.id, at=now.wall))

    def stop(self, entry: Entry, reason: StopReason, why: str, now: Instant) -> None:
        """End the process of an active window; its `AttemptEnded` comes when the group is gone."""
        self.sit_down(entry)
        state, limits = entry.state, self.batches[entry.key.batch_id].batch.spec.limits
        assert is_active(state)
        if type(state) is Stopping and (state.reason == reason or reason == "interrupted"):
            return
        pid = None if type(state) is Starting else state.pid
        first = type(state) is not Stopping
        to_hold = is_to_hold(state)
        stopping = Stopping(attempt=state.attempt, slot=state.slot, pid=pid, reason=reason, to_hold=to_hold)
        self.move(entry, "stopped", stopping, why, now)
        if first:
            if pid is not None:
                self.commands.append(Terminate(key=entry.key, attempt=state.attempt))
            elif state.slot.waits:
                self.commands.append(Withdraw(key=entry.key, attempt=state.attempt))
            self.timers.set(now.monotonic + limits.grace_s, entry, state.attempt, "grace" if pid else "launch_grace")

    def withdraw(self, entries: Iterable[Entry]) -> None:
        """Take back those windows that are ahead and wait still; each is queued again when that is done."""
        for entry in entries:
            if type(entry.state) is Starting and self.waits(entry):
                self.commands.append(Withdraw(key=entry.key, attempt=entry.state.attempt))

    def hold_ahead(self, entry: Entry, now: Instant) -> None:
        """Take back a window that waits on its node, and have it held once it is back, unless it starts before."""
        state = entry.state
        if type(state) is Starting and self.waits(entry):
            if not state.to_hold:
                held = msgspec.structs.replace(state, to_hold=True)
                self.move(entry, "held", held, "held by request, unless it starts before it is back", now)
            self.withdraw([entry])

    def release_ahead(self, entry: Entry, now: Instant) -> None:
        """Have a window that waits on its node not held, though it may come back."""
        if is_to_hold(entry.state):
            released = msgspec.structs.replace(entry.state, to_hold=False)
            self.move(entry, "released", released, "released by request", now)

    # -- windows that start ------------------------------------------------------------------------------------------

    def waits(self, entry: Entry) -> bool:
        """Whether a window waits on its node, and is not known to have started."""
        state = entry.state
        return type(state) is Starting and state.slot.waits and not self._stands(entry)

    def _stands(self, entry: Entry) -> bool:
        state = entry.state
        return type(state) is Starting and entry.key in self._standing.get(state.slot.device_id, ())

    def begin(self, entry: Entry, pid: int, now: Instant) -> None:
        """Take note of the process of a window; one that was ahead waits for the slot in which it runs."""
        state = entry.state
        assert type(state) is Starting
        slot = self.pool.seat(state.slot) if state.slot.waits else state.slot
        if slot is None:
            self._standing.setdefault(state.slot.device_id, {})[entry.key] = pid, now
        else:
            self._run(entry, slot, pid, now)

    def sit_down(self, entry: Entry) -> None:
        """Count a window that stands as running in its place: its story goes on before the slot that it waits for."""
        if type(entry.state) is Starting:
            slot = entry.state.slot
            if (start := self._standing.get(slot.device_id, {}).pop(entry.key, None)) is not None:
                self._run(entry, slot, *start)

    def seat_next(self, device_id: str) -> None:
        """Give the slot that has become free on a device to the window that has stood there longest."""
        if standing := self._standing.get(device_id):
            key = next(iter(standing))
            entry = self.batches[key.batch_id].entries[key.label]
            assert type(entry.state) is Starting
            if (slot := self.pool.seat(entry.state.slot)) is not None:
                self._run(entry, slot, *standing.pop(key))

    def _run(self, entry: Entry, slot: Slot, pid: int, now: Instant) -> None:
        """Let a window run that was starting; `now` is the instant at which it started."""
        state = entry.state
        assert type(state) is Starting
        self.pool.started(slot, pid)
        running = Running(attempt=state.attempt, slot=slot, pid=pid, started_at=now.wall)
        self.move(entry, "started", running, f"as process {pid}", now)
        entry.began = now.monotonic
        self.limit_time(entry)

    def requeue(self, entry: Entry, move: lifecycle.Move, attempt: int, why: str, now: Instant) -> None:
        """Queue a window at once; its next attempt has the number `attempt`."""
        entry.ready_at = now.monotonic
        self.move(entry, move, Queued(attempt=attempt), why, now)
        self.batches[entry.key.batch_id].push(entry)

    def limit_time(self, entry: Entry) -> None:
        """Set the timer of a running window's timeout, if its batch has one."""
        assert type(entry.state) is Running
        if (timeout_s := self.batches[entry.key.batch_id].batch.spec.limits.timeout_s) > 0:
            self.timers.set(entry.began + timeout_s, entry, entry.state.attempt, "timeout")

    def attempt(self, key: WindowKey, attempt: int) -> Entry | None:
        """The window that is in this attempt, or None if the event comes too late to matter."""
        batch = self.batches.get(key.batch_id)
        entry = batch.entries.get(key.label) if batch else None
        if entry is None or not is_active(entry.state) or entry.state.attempt != attempt:
            return None
        return entry

    def active(self) -> list[Entry]:
        """The windows that hold a slot."""
        return self.on(self.pool.devices.values())

    def on(self, devices: Iterable[DeviceState]) -> list[Entry]:
        """The windows that hold a slot of these devices."""
        keys = [allocation.key for state in devices for allocation in state.allocations.values()]
        return [self.batches[key.batch_id].entries[key.label] for key in keys]

    def validate(self) -> None:
        """Raise AssertionError unless every invariant holds."""
        self.pool.validate()
        held: dict[int, WindowKey] = {}
        pids: dict[int, int] = {}
        for batch in self.batches.values():
            assert all(entry.order[2] == number for number, entry in enumerate(batch.windows)), batch.batch.id
            states = [entry.state for entry in batch.entries.values()]
            assert batch.unfinished == sum(type(s) is not Finished for s in states), batch.batch.id
            with_result = {label for label, entry in batch.entries.items() if result_of(entry.state)}
            assert batch.with_result.keys() == with_result
            assert batch.active == sum(is_active(s) for s in states), batch.batch.id
            for entry in batch.entries.values():
                if is_active(entry.state):
                    index = entry.state.slot.index
                    assert index not in held, f"slot {index} is held by {held[index]} and {entry.key}"
                    held[index] = entry.key
                    if (pid := None if type(entry.state) is Starting else entry.state.pid) is not None:
                        pids[index] = pid
        assert self.open == {id_: batch for id_, batch in self.batches.items() if not batch.finished}
        allocated = {i: a.key for state in self.pool.devices.values() for i, a in state.allocations.items()}
        assert allocated == held, f"the ledger says {allocated}, the windows say {held}"
        assert pids == {index: pid for state in self.pool.devices.values() for index, pid in state.pids.items()}

    def move(
        self,
        entry: Entry,
        move: lifecycle.Move,
        new: State,
        reason: str,
        now: Instant,
        ending: Ending | None = None,
        usage: Usage | None = None,
    ) -> None:
        """Change the state of a window, if the table of moves allows it, and update the counts of its batch."""
        key, old, batch = entry.key, entry.state, self.batches[entry.key.batch_id]
        lifecycle.check(key, old, move, new, entry.story)
        before, after = name_of(old), name_of(new)
        entry.tell(f"{before} → {after}: {move}, {reason}")
        self.records.append(
            WindowMoved(key=key, old=old, new=new, reason=reason, at=now.wall, ending=ending, usage=usage)
        )
        entry.state = new
        batch.active += (after in ACTIVE) - (before in ACTIVE)
        batch.unfinished += (before == "finished") - (after == "finished")
        if "finished" in (before, after):
            batch.count_result(entry)
        if before != after == "finished":
            self.end_if_done(batch, now)
