"""Anything may happen, in any order: invariants after each event, and that all work ends once it is let."""

from __future__ import annotations

import datetime as dt
from typing import Any, get_args

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpusched.core.commands import Kill, Terminate
from gpusched.core.events import (
    AttemptEnded,
    BatchAccepted,
    BatchRecovered,
    BatchSubmitted,
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
    ResultsChecked,
    ResumeRequested,
    ShutdownRequested,
    SliceGranted,
    TimePassed,
    TrialBegan,
    TrialEnded,
)
from gpusched.core.model import (
    DeviceChoice,
    HostReading,
    Limits,
    PlannedWindow,
    Window,
    WindowKey,
)
from gpusched.core.states import Active, FailureKind, Finished, Held, Queued, Running, Stopping, is_to_hold
from gpusched.core.statuses import WindowVerb
from tests.core.support import DAY, GIB, RESULT, batch, reading
from tests.core.world import DEVICE, DEVICES, NODE, REMOTE, World

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


class Machine(World, RuleBasedStateMachine):
    """Anything that may happen to a world, as rules, and the invariants after each."""

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

    @rule(n=which)
    def start(self, n: int) -> None:
        if attempt := self.pick(n, started=False):
            self.begin(attempt)

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

    @rule(n=st.integers(0, 9))
    def take_back(self, n: int) -> None:
        if waiting := sorted(self.withdrawn - self.started):
            self.take_back_one(waiting[n % len(waiting)])

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
                elif is_to_hold(state):
                    assert isinstance(new, Held | Finished), "what was to be held is not run"
                elif not isinstance(state, Active | Queued):
                    assert new == state
            self.finishes_or_is_looked_at(batch_id)
            assert not any(isinstance(r, BatchAccepted) for r in records)

    @invariant()
    def records_alone_tell_the_states(self) -> None:
        for batch_id in self.stored:
            assert dict(enumerate(self.scheduler.states(batch_id))) == dict(enumerate(self.stored[batch_id].values()))
            assert self.scheduler.held(batch_id) == self.held[batch_id]
            self.finishes_or_is_looked_at(batch_id)

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


class MachineForLonger(Machine):
    """The same, with more examples."""


Machine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
MachineForLonger.TestCase.settings = settings(Machine.TestCase.settings, max_examples=2000, derandomize=False)
TestAnything = Machine.TestCase
TestAnythingForLonger = pytest.mark.slow(MachineForLonger.TestCase)
