"""Anything may happen, in any order: invariants after each event, and that all work ends once it is let."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any, get_args

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpusched.core.changes import Change
from gpusched.core.commands import CheckResults, Command, Kill, Launch, Terminate
from gpusched.core.events import (
    AttemptEnded,
    AttemptStarted,
    BatchAccepted,
    BatchFinished,
    BatchHeld,
    BatchRecovered,
    BatchReleased,
    BatchReopened,
    BatchSubmitted,
    ChangeAdvanced,
    ChangeMade,
    ChangeRequested,
    DeviceChanged,
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
    TimePassed,
    TrialBegan,
    TrialEnded,
    WindowMoved,
)
from gpusched.core.failures import MAX_LOSSES
from gpusched.core.model import (
    Batch,
    DeviceChoice,
    HoldReason,
    HostReading,
    Instant,
    Limits,
    PlannedWindow,
    Slot,
    Window,
    WindowKey,
)
from gpusched.core.placement import suits
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Active, Failure, FailureKind, Finished, Queued, Running, State, Stopping
from gpusched.core.statuses import WindowVerb, has_result
from tests.core.support import DAY, GIB, RESULT, batch, cpu, gpu, reading

DEVICES = (cpu(2), gpu(0, 2), gpu(1, 1))
#: devices of a node, which comes and goes
NODE = "n1"
REMOTE = (cpu(1, host=NODE), gpu(2, 2, host=NODE))
DEVICE = {device.id: device for device in (*DEVICES, *REMOTE)}
BATCH_IDS = ("a", "b", "c")
KINDS: tuple[FailureKind, ...] = get_args(FailureKind)

which = st.integers(0, 1000)
batch_ids = st.sampled_from(BATCH_IDS)
device_ids = st.sampled_from(sorted(DEVICE))
limits = st.builds(
    Limits,
    max_attempts=st.integers(1, 3),
    timeout_s=st.sampled_from([0.0, 5.0, 300.0]),
    grace_s=st.sampled_from([0.0, 3.0, 200.0]),
    backoff_s=st.sampled_from([0.0, 1.0]),
    breaker_failures=st.sampled_from([0, 1, 2]),
)
plans = st.lists(
    st.tuples(st.integers(0, 3000), st.sampled_from(["train", "train", "train", "train", "skip", "reuse"])),
    max_size=7,
)


class Machine(RuleBasedStateMachine):
    """Plays the shell (processes, the store, the clock) and keeps books of its own, from records and commands alone."""

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
            for told in (self.started, self.termed, self.killed):
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
                label for label, (_, state) in self.stored[command.batch_id].items() if has_result(state)
            }
            self.checks.append(command)
            return
        attempt = (command.key, command.attempt)
        match command:
            case Launch(key=key, slot=slot):
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
            case Terminate():
                assert attempt in self.started, "a signal for no process"
                self.termed.add(attempt)
            case Kill():
                assert attempt in self.live
                self.killed.add(attempt)

    # -- events --------------------------------------------------------------------------------------------------------

    @initialize()
    def devices_found(self) -> None:
        self.send(NodeJoined(devices=DEVICES))

    @rule(
        batch_id=batch_ids,
        device=st.sampled_from(get_args(DeviceChoice)),
        workers=st.integers(0, 2),
        priority=st.integers(0, 1),
        limits=limits,
        plans=plans,
    )
    def submit(self, batch_id: str, plans: list[tuple[int, str]], **spec: Any) -> None:
        if not self.finished.get(batch_id, True) or self.changes.get(batch_id):
            return
        windows = tuple(
            PlannedWindow(
                window=Window("S", DAY + dt.timedelta(n), DAY),
                usable_rows=rows,
                skip_reason="too short" if kind == "skip" else None,
                committed=RESULT if kind == "reuse" else None,
            )
            for n, (rows, kind) in enumerate(plans)
        )
        self.send(BatchSubmitted(batch=batch(batch_id, **spec), windows=windows))

    def pick(self, n: int, *, started: bool | None = None) -> tuple[WindowKey, int] | None:
        some = sorted(a for a in self.live if started is None or (a in self.started) == started)
        return some[n % len(some)] if some else None

    @rule(n=which)
    def start(self, n: int) -> None:
        if attempt := self.pick(n, started=False):
            self.begin(attempt)

    def begin(self, attempt: tuple[WindowKey, int]) -> None:
        host = DEVICE[self.live[attempt].device_id].host
        self.pids[host] += 1
        self.started.add(attempt)
        # Whoever was killed before it was forked has to be killed again.
        self.killed.discard(attempt)
        event = AttemptStarted(key=attempt[0], attempt=attempt[1], pid=self.pids[host])
        self.past.append(event)
        self.send(event)

    @rule(n=which, kind=st.sampled_from((*KINDS, None, None)))
    def end(self, n: int, kind: FailureKind | None) -> None:
        if attempt := self.pick(n):
            self.finish(attempt, kind)

    @rule(kind=st.sampled_from(KINDS))
    def all_end(self, kind: FailureKind) -> None:
        for attempt in sorted(self.live):
            self.finish(attempt, kind)

    @rule(n=which)
    def stuck(self, n: int) -> None:
        """It was killed, and is still there: that moves nothing but its device's health."""
        if attempt := self.pick(n, started=True):
            _, commands = self.send(ProcessStuck(key=attempt[0], attempt=attempt[1], reason="does not die"))
            assert not any(isinstance(command, Terminate | Kill) for command in commands)

    def finish(self, attempt: tuple[WindowKey, int], kind: FailureKind | None) -> None:
        ending = RESULT if kind is None else Failure(kind=kind, message=f"{kind}: so it went")
        event = AttemptEnded(key=attempt[0], attempt=attempt[1], ending=ending)
        self.past.append(event)
        self.send(event)

    @rule(n=which)
    @precondition(lambda self: bool(self.past))
    def late_or_twice(self, n: int) -> None:
        """An event of an attempt that is over, once more. One that still lives is told of its start twice at most."""
        event = self.past[n % len(self.past)]
        if isinstance(event, AttemptEnded) and (event.key, event.attempt) in self.live:
            return
        records, commands = self.send(event)
        if (event.key, event.attempt) not in self.live:
            assert (records, commands) == ([], [])

    @rule(
        verb=st.sampled_from(["cancel", "hold", "release", "retry"]),
        batch_id=batch_ids,
        whole=st.booleans(),
        n=which,
    )
    def request(self, verb: WindowVerb, batch_id: str, whole: bool, n: int) -> None:
        labels = sorted(self.stored.get(batch_id, ())) or ["none such"]
        self.send(ChangeRequested(verb=verb, batch_id=batch_id, label=None if whole else labels[n % len(labels)]))

    @rule()
    def slice(self) -> None:
        self.send(SliceGranted())

    @rule(
        device_id=device_ids,
        what=st.sampled_from(["lose", "drain", "resume", "resume", "vanish", "try", "train", "refuse"]),
    )
    def device(self, device_id: str, what: str) -> None:
        event: Event = ResumeRequested(device_id=device_id)
        if DEVICE[device_id].kind == "host" and what in ("vanish", "try", "train", "refuse"):
            return
        if what == "lose":
            event = DeviceLost(device_id=device_id, reason="it fell off the bus")
        elif what == "drain":
            event = DrainRequested(device_id=device_id)
        elif what == "vanish":
            event = DeviceVanished(device_id=device_id, reason="it is not there any more")
        elif what == "try":
            event = TrialBegan(device=DEVICE[device_id])
        elif what in ("train", "refuse"):
            event = TrialEnded(device=DEVICE[device_id], why=None if what == "train" else "out of memory")
        self.send(event)

    @rule(what=st.sampled_from(["join", "join", "fall silent", "be lost"]))
    def node(self, what: str) -> None:
        if what == "join":
            self.send(NodeJoined(host=NODE, devices=REMOTE))
        elif what == "fall silent":
            _, commands = self.send(NodeSilent(host=NODE, reason="no word for 3 s"))
            assert not any(isinstance(command, Terminate | Kill) for command in commands), "its windows go on"
        else:
            self.send(NodeLost(host=NODE, reason="no word for 12 s"))
            assert not any(id_ in self.scheduler.pool.devices for id_ in self.remote)
            assert not any(slot.device_id in self.remote for slot in self.live.values())

    @property
    def remote(self) -> set[str]:
        return {device.id for device in REMOTE}

    @rule(
        device_id=device_ids,
        free=st.one_of(st.none(), st.integers(0, 8)),
        used=st.one_of(st.none(), st.integers(0, 3)),
        utilisation=st.one_of(st.none(), st.floats(0, 1)),
    )
    def read(self, device_id: str, free: int | None, used: int | None, utilisation: float | None) -> None:
        host = DEVICE[device_id].host
        processes = None if used is None else dict.fromkeys(range(1000, self.pids[host] + 2), used * GIB)
        records, _ = self.send(
            DeviceRead(
                reading=reading(
                    device_id,
                    free=None if free is None else free * GIB,
                    total=8 * GIB,
                    utilisation=utilisation,
                    processes=processes,
                )
            )
        )
        changed = [record.device_id for record in records if isinstance(record, DeviceChanged)]
        assert all(DEVICE[id_].host == host for id_ in changed), "a process of another host was taken for one of ours"

    @rule(
        host=st.sampled_from(["", NODE]),
        free=st.one_of(st.none(), st.integers(0, 8)),
        used=st.one_of(st.none(), st.integers(0, 3)),
    )
    def read_host(self, host: str, free: int | None, used: int | None) -> None:
        processes = None if used is None else dict.fromkeys(range(1000, self.pids[host] + 2), used * GIB)
        self.send(
            HostRead(
                reading=HostReading(
                    host=host,
                    total_bytes=8 * GIB,
                    free_bytes=None if free is None else free * GIB,
                    process_bytes=processes,
                )
            )
        )

    @rule(seconds=st.sampled_from([0.0, 0.5, 2.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.at += seconds
        self.send(TimePassed())

    @rule()
    def deadline_comes(self) -> None:
        if (deadline := self.scheduler.deadline) is not None:
            self.at = max(self.at, deadline)
            self.send(TimePassed())

    @rule(mode=st.sampled_from(["drain", "stop"]))
    @precondition(lambda self: not self.down and len(self.stored) == len(BATCH_IDS))
    def shutdown(self, mode: Any) -> None:
        self.down = True
        self.send(ShutdownRequested(mode=mode))
        if mode == "stop":
            assert all(isinstance(self.state(key), Stopping) for key, _ in self.live)

    @rule(n=st.integers(0, 5), missing=st.booleans())
    def look_for_results(self, n: int, missing: bool) -> None:
        """The answer comes, late perhaps: windows were retried meanwhile, or the batch has another round."""
        if self.checks:
            check = self.checks.pop(n % len(self.checks))
            gone = check.labels[:1] if missing else ()
            self.send(ResultsChecked(batch_id=check.batch_id, check=check.check, missing=gone))

    @rule(committed=st.booleans(), backwards=st.booleans(), all_of_them=st.booleans())
    def restart(self, committed: bool, backwards: bool, all_of_them: bool) -> None:
        """The supervisor dies, with its processes, and the next one reads the store. The clock may start anew."""
        self.fresh()
        self.at = 5.0 if backwards else self.at + 1
        before = {b: dict(w) for b, w in self.stored.items() if all_of_them or not self.finished[b] or self.changes[b]}
        # Windows that the dead left hold no slot, so the books look at a batch only once it is recovered.
        self.stored.clear()
        self.finished = {b: done for b, done in self.finished.items() if b in before}
        self.send(NodeJoined(devices=DEVICES))
        for batch_id, was in before.items():
            found = {
                label: (
                    PlannedWindow(window=p.window, usable_rows=p.usable_rows, committed=RESULT)
                    if committed and isinstance(s, Active)
                    else p,
                    s,
                )
                for label, (p, s) in was.items()
            }
            self.stored[batch_id] = found
            records, _ = self.send(
                BatchRecovered(
                    batch=self.batches[batch_id],
                    windows=tuple(found.values()),
                    held=self.held[batch_id],
                    finished=self.finished[batch_id],
                    changes=tuple(change for _, change in sorted(self.changes[batch_id].items())),
                )
            )
            for label, (_, state) in was.items():
                new = self.state(WindowKey(batch_id, label))
                if isinstance(state, Stopping) and state.reason == "cancelled":
                    assert isinstance(new, Finished), "what was cancelled is not run again"
                elif not isinstance(state, Active | Queued):
                    assert new == state
            self.finishes_or_is_looked_at(batch_id)
            assert not any(isinstance(r, BatchAccepted) for r in records)

    # -- invariants ----------------------------------------------------------------------------------------------------

    def state(self, key: WindowKey) -> State:
        return self.stored[key.batch_id][key.label][1]

    @invariant()
    def records_alone_tell_the_states(self) -> None:
        for batch_id in self.stored:
            assert dict(enumerate(self.scheduler.states(batch_id))) == dict(enumerate(self.stored[batch_id].values()))
            assert self.scheduler.held(batch_id) == self.held[batch_id]
            self.finishes_or_is_looked_at(batch_id)

    def finishes_or_is_looked_at(self, batch_id: str) -> None:
        """A batch whose windows are all finished is so itself, or its results are being looked for."""
        over = all(isinstance(state, Finished) for _, state in self.stored[batch_id].values())
        changing = bool(self.changes[batch_id])
        assert self.scheduler.is_changing(batch_id) == changing
        if self.finished[batch_id]:
            assert over
        elif over and not changing:
            assert any(check.batch_id == batch_id for check in self.checks)

    @invariant()
    def running_windows_have_processes(self) -> None:
        for attempt in self.live:
            state = self.state(attempt[0])
            assert isinstance(state, Active)
            assert state.attempt == attempt[1]
            has_pid = isinstance(state, Running) or (isinstance(state, Stopping) and state.pid is not None)
            assert has_pid == (attempt in self.started)
            if isinstance(state, Stopping) and has_pid:
                assert attempt in self.termed, "stopping, and nobody told the process"

    @invariant()
    def what_is_due_is_in_the_future_or_now(self) -> None:
        if any(isinstance(self.state(key), Stopping) and (key, n) not in self.killed for key, n in self.live):
            assert self.scheduler.deadline is not None, "a process that ignores SIGTERM would stay"

    def teardown(self) -> None:
        """Nobody asks for anything any more, and the devices work: everything finishes."""
        if self.down:
            self.restart(committed=False, backwards=False, all_of_them=True)
        self.send(NodeJoined(host=NODE, devices=REMOTE))
        for device in DEVICE.values():
            if device.kind != "host":
                self.send(TrialBegan(device=device))
                self.send(TrialEnded(device=device))
            self.send(ResumeRequested(device_id=device.id))
            self.send(DeviceRead(reading=reading(device.id, free=8 * GIB, total=8 * GIB, processes={})))
        for host in ("", NODE):
            reading_of = HostReading(host=host, total_bytes=8 * GIB, free_bytes=8 * GIB, process_bytes={})
            self.send(HostRead(reading=reading_of))
        for batch_id in self.stored:
            self.send(ChangeRequested(verb="release", batch_id=batch_id))
        for _ in range(400):
            while self.scheduler.changing:
                self.send(SliceGranted())
            if not self.scheduler.unfinished:
                break
            # A window that was told to stop is stubborn: only SIGKILL ends it.
            going = sorted(a for a in self.live if not isinstance(self.state(a[0]), Stopping) or a in self.killed)
            starting = sorted(set(self.live) - self.started)
            if going:
                self.finish(going[0], None)
            elif starting:
                self.begin(starting[0])
            else:
                deadline = self.scheduler.deadline
                assert deadline is not None, "nothing runs, nothing is due, and work is left"
                self.at = max(self.at, deadline)
                self.send(TimePassed())
        assert not self.scheduler.unfinished
        assert not self.scheduler.active
        assert not self.live
        assert self.scheduler.deadline is None
        while self.checks:
            self.look_for_results(0, missing=True)
        assert all(self.finished.values())


Machine.TestCase.settings = settings(
    max_examples=400,
    stateful_step_count=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAnything = Machine.TestCase
