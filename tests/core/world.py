"""The shell of a scheduler, played: processes, the store and the clock, with books of its own."""

from __future__ import annotations

from collections import Counter

from gpusched.core.changes import Change
from gpusched.core.commands import CheckResults, Command, Kill, Launch, Terminate, Withdraw
from gpusched.core.events import (
    AttemptEnded,
    AttemptStarted,
    BatchAccepted,
    BatchFinished,
    BatchHeld,
    BatchReleased,
    BatchReopened,
    ChangeAdvanced,
    ChangeMade,
    DeviceChanged,
    Event,
    NodeLost,
    Record,
    WindowMoved,
)
from gpusched.core.failures import MAX_LOSSES
from gpusched.core.model import (
    Batch,
    HoldReason,
    Instant,
    PlannedWindow,
    Slot,
    WindowKey,
)
from gpusched.core.placement import suits
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Active, Failure, FailureKind, Finished, Queued, Starting, State
from gpusched.core.statuses import result_of
from tests.core.support import RESULT, cpu, gpu

DEVICES = (cpu(2), gpu(0, 2), gpu(1, 1))
#: devices of a node, which comes and goes
NODE = "n1"
REMOTE = (cpu(1, host=NODE), gpu(2, 2, host=NODE))
DEVICE = {device.id: device for device in (*DEVICES, *REMOTE)}


class World:
    """Obeys commands and keeps records; checks the effects of events against books of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 100.0
        #: the latest PID on each host: the numbers are the same on both
        self.pids = {"": 1000, NODE: 1000}
        self.down = False
        self.fresh()
        #: the content of the store
        self.batches: dict[str, Batch] = {}
        self.stored: dict[str, dict[str, tuple[PlannedWindow, State]]] = {}
        self.held: dict[str, HoldReason | None] = {}
        self.finished: dict[str, bool] = {}
        self.changes: dict[str, dict[int, Change]] = {}
        #: events of attempts that have ended
        self.past: list[AttemptStarted | AttemptEnded] = []

    def fresh(self) -> None:
        """A supervisor that has just started, and another that will be told the same."""
        self.scheduler, self.twin = Scheduler(slice_windows=2), Scheduler(slice_windows=2)
        #: attempts whose process may exist, and their slots; those with a pid; those told to end
        self.live: dict[tuple[WindowKey, int], Slot] = {}
        self.started: set[tuple[WindowKey, int]] = set()
        #: those that wait on a node, and those that are to be taken back from it
        self.ahead: set[tuple[WindowKey, int]] = set()
        self.withdrawn: set[tuple[WindowKey, int]] = set()
        self.termed: set[tuple[WindowKey, int]] = set()
        self.killed: set[tuple[WindowKey, int]] = set()
        #: launches since the window was submitted, retried or recovered
        self.rounds: Counter[WindowKey] = Counter()
        self.closed = {device.id for device in REMOTE}
        #: looks for results that were asked for
        self.checks: list[CheckResults] = []
        self.down = False

    # -- one event -----------------------------------------------------------------------------------------------------

    def send(self, event: Event) -> tuple[list[Record], list[Command]]:
        before = set(self.live.items())
        now = Instant(monotonic=self.at, wall=self.at + 1e9)
        records, commands = self.scheduler.handle(event, now)
        assert (records, commands) == self.twin.handle(event, now), "the same events gave other effects"
        assert self.scheduler.deadline == self.twin.deadline
        freed = {(event.key, event.attempt)} & set(self.live) if isinstance(event, AttemptEnded) else set()
        if isinstance(event, NodeLost):
            freed = {attempt for attempt, slot in before if DEVICE[slot.device_id].host == event.host}
            self.past += [AttemptEnded(key=key, attempt=attempt, ending=RESULT) for key, attempt in sorted(freed)]
        for attempt in freed:
            del self.live[attempt]
            for told in (self.started, self.termed, self.killed, self.ahead, self.withdrawn):
                told.discard(attempt)
        placed = [self.remember(record) for record in records]
        for command in commands:
            self.carry_out(command)
        assert [p for p in placed if p] == [(c.key, c.attempt) for c in commands if isinstance(c, Launch)]
        # A slot is freed by the end of the attempt that holds it or of its node, and by nothing else.
        held = {
            (WindowKey(b, label), state.attempt): state.slot
            for b, windows in self.stored.items()
            for label, (_, state) in windows.items()
            if isinstance(state, Active)
        }
        assert held == self.live
        self.scheduler.validate()
        return records, commands

    def remember(self, record: Record) -> tuple[WindowKey, int] | None:
        match record:
            case BatchAccepted(batch=accepted, windows=windows):
                self.batches[accepted.id] = accepted
                self.stored[accepted.id] = {p.window.label: (p, s) for p, s in windows}
                self.held[accepted.id] = None
                self.finished[accepted.id] = False
                self.changes[accepted.id] = {}
                # Its attempts have the numbers of those of the batch whose place it takes.
                self.past = [event for event in self.past if event.key.batch_id != accepted.id]
                for label in self.stored[accepted.id]:
                    self.rounds[WindowKey(accepted.id, label)] = 0
            case WindowMoved(key=key, old=old, new=new):
                windows_of = self.stored[key.batch_id]
                plan, known = windows_of[key.label]
                assert known == old, "a record does not follow on the last one"
                assert not self.finished[key.batch_id], "a window of a finished batch moved"
                windows_of[key.label] = (plan, new)
                if isinstance(old, Finished):
                    self.rounds[key] = 0
                if isinstance(new, Active) and not isinstance(old, Active):
                    assert isinstance(old, Queued)
                    return key, new.attempt
                if isinstance(new, Active) and isinstance(old, Active) and new.slot != old.slot:
                    assert isinstance(old, Starting)
                    assert (old.slot.waits, new.slot.waits) == (True, False)
                    assert (new.slot.device_id, new.slot.node) == (old.slot.device_id, old.slot.node)
                    if (key, new.attempt) in self.live:
                        self.live[key, new.attempt] = new.slot
            case BatchHeld(batch_id=batch_id, kind=kind, reason=reason):
                assert self.held[batch_id] is None
                self.held[batch_id] = HoldReason(kind=kind, text=reason)
            case BatchReleased(batch_id=batch_id):
                assert self.held[batch_id] is not None
                self.held[batch_id] = None
            case BatchReopened(batch_id=batch_id):
                assert self.finished[batch_id]
                self.finished[batch_id] = False
            case ChangeAdvanced(batch_id=batch_id, change=change, recorded=recorded):
                assert recorded == (change.number in self.changes[batch_id])
                self.changes[batch_id][change.number] = change
            case ChangeMade(batch_id=batch_id, change=change, recorded=recorded):
                assert recorded == (self.changes[batch_id].pop(change.number, None) is not None)
            case BatchFinished(batch_id=batch_id):
                assert not self.changes[batch_id]
                assert all(isinstance(s, Finished) for _, s in self.stored[batch_id].values())
                self.finished[batch_id] = True
            case DeviceChanged(device_id=device_id, health=health):
                assert health != "open" or device_id in self.closed
                (self.closed.discard if health == "open" else self.closed.add)(device_id)
        return None

    def carry_out(self, command: Command) -> None:
        if isinstance(command, CheckResults):
            assert all(isinstance(state, Finished) for _, state in self.stored[command.batch_id].values())
            assert not self.finished[command.batch_id]
            assert set(command.labels) == {
                label for label, (_, state) in self.stored[command.batch_id].items() if result_of(state)
            }
            self.checks.append(command)
            return
        attempt = (command.key, command.attempt)
        match command:
            case Launch(key=key, slot=slot, at_once=at_once):
                assert not at_once or slot.device_id in self.remote, "ahead on this machine"
                assert bool(at_once) == slot.waits
                if at_once:
                    self.ahead.add(attempt)
                spec = self.batches[key.batch_id].spec
                assert slot not in self.live.values(), "the slot is held"
                assert attempt not in self.live
                assert not self.down, "placed after a shutdown"
                assert slot.device_id not in self.closed, "placed on a closed device"
                assert self.held[key.batch_id] is None, "placed from a held batch"
                cancels = [c for c in self.changes[key.batch_id].values() if c.verb == "cancel" and not c.label]
                assert not cancels, "placed from a batch that is being cancelled"
                assert suits(DEVICE[slot.device_id], spec.device)
                self.live[attempt] = slot
                self.rounds[key] += 1
                assert self.rounds[key] <= spec.limits.max_attempts + MAX_LOSSES
                if spec.workers:
                    assert sum(k.batch_id == key.batch_id for k, _ in self.live) <= spec.workers
            case Withdraw():
                assert attempt in self.ahead - self.started, "it is not ahead"
                self.withdrawn.add(attempt)
            case Terminate():
                assert attempt in self.started, "a signal for no process"
                self.termed.add(attempt)
            case Kill():
                assert attempt in self.live
                self.killed.add(attempt)

    def pick(self, n: int, *, started: bool | None = None) -> tuple[WindowKey, int] | None:
        some = sorted(a for a in self.live if started is None or (a in self.started) == started)
        return some[n % len(some)] if some else None

    def begin(self, attempt: tuple[WindowKey, int]) -> None:
        host = DEVICE[self.live[attempt].device_id].host
        self.pids[host] += 1
        self.started.add(attempt)
        # Whoever was killed before it was forked has to be killed again.
        self.killed.discard(attempt)
        event = AttemptStarted(key=attempt[0], attempt=attempt[1], pid=self.pids[host])
        self.past.append(event)
        self.send(event)

    def take_back_one(self, attempt: tuple[WindowKey, int]) -> None:
        """A node refuses a window that waits there; that costs it nothing."""
        self.rounds[attempt[0]] -= 1
        ending = Failure(kind="interrupted", message="taken back")
        self.send(AttemptEnded(key=attempt[0], attempt=attempt[1], ending=ending, launched=False))

    def finish(self, attempt: tuple[WindowKey, int], kind: FailureKind | None) -> None:
        ending = RESULT if kind is None else Failure(kind=kind, message=f"{kind}: so it went")
        event = AttemptEnded(key=attempt[0], attempt=attempt[1], ending=ending)
        self.past.append(event)
        self.send(event)

    @property
    def remote(self) -> set[str]:
        return {device.id for device in REMOTE}

    # -- invariants ----------------------------------------------------------------------------------------------------

    def state(self, key: WindowKey) -> State:
        return self.stored[key.batch_id][key.label][1]

    def finishes_or_is_looked_at(self, batch_id: str) -> None:
        """A batch whose windows are all finished is so itself, or its results are being looked for."""
        over = all(isinstance(state, Finished) for _, state in self.stored[batch_id].values())
        changing = bool(self.changes[batch_id])
        assert self.scheduler.is_changing(batch_id) == changing
        if self.finished[batch_id]:
            assert over
        elif over and not changing:
            assert any(check.batch_id == batch_id for check in self.checks)
