"""Several machines in one pool: their devices, processes and memory are kept apart; they come, fall silent, and go."""

from __future__ import annotations

import pytest

from gpusched.core import timers
from gpusched.core.estimates import Estimates
from gpusched.core.events import (
    AttemptEnded,
    BatchReleased,
    ChangeRequested,
    DeviceChanged,
    DeviceLost,
    DeviceRead,
    DeviceVanished,
    DrainRequested,
    HostRead,
    NodeJoined,
    NodeLost,
    NodeSilent,
    ResumeRequested,
    TrialEnded,
    WindowMoved,
)
from gpusched.core.model import Device, HostReading, Limits, Slot
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Cancelled, Finished, Queued, Running, Starting
from tests.core.support import GIB, RESULT, Driver, batch, cpu, gpu, key, planned, reading

A, B, C = map(key, "ABC")
ONCE = Limits(max_attempts=1)


def nodes(*devices: Device, estimates: Estimates | None = None) -> Driver:
    """Nodes have joined, each with its devices, and this machine has none."""
    made = Driver()
    made.scheduler = Scheduler(estimates)
    for name in dict.fromkeys(device.host for device in devices):
        made.send(NodeJoined(host=name, devices=tuple(device for device in devices if device.host == name)))
    return made


def changes(made: Driver) -> list[tuple[str, str, str]]:
    return [(r.device_id, r.health, r.reason) for r in made.records if isinstance(r, DeviceChanged)]


def test_a_foreign_process_of_one_node_is_none_of_ours_on_another() -> None:
    made = nodes(gpu(0, host="n1"), gpu(1, host="n2"), gpu(2, host="n1"))
    made.submit(batch(device="cuda"), ["A"]).start(A, pid=4711)
    assert isinstance(made.state(A), Running)
    made.send(DeviceRead(reading=reading("GPU-1", processes={4711: GIB})))
    assert changes(made) == [], "process 4711 of n2 is a stranger's"
    made.send(DeviceRead(reading=reading("GPU-2", processes={4711: GIB})))
    assert changes(made) == [("GPU-0", "quarantined", "process 4711 was placed here, but runs on GPU-2")]


def test_a_pid_that_was_given_again_belongs_to_the_later_window() -> None:
    """The end of a window may be handled after the start of another one to which the kernel gave its number."""
    made = nodes(gpu(0, 2, host="n1")).submit(batch(limits=ONCE), ["A", "B"]).start(A, pid=7).start(B, pid=7)
    assert made.scheduler.pool.hosts["n1"].pids == {7: Slot(1, "GPU-0", "n1")}
    made.end(A)
    assert made.scheduler.pool.hosts["n1"].pids == {7: Slot(1, "GPU-0", "n1")}
    made.end(B)
    assert made.scheduler.pool.hosts["n1"].pids == {}


def test_each_host_has_its_own_memory() -> None:
    estimates = Estimates()
    estimates.observe("w:train", "cpu", 100, 1.0, None, 4 * GIB)
    made = nodes(cpu(2, host="n1"), cpu(2, host="n2"), estimates=estimates)
    for name, free in (("n1", 5 * GIB), ("n2", 9 * GIB), ("nowhere", 0)):
        made.send(HostRead(reading=HostReading(host=name, total_bytes=64 * GIB, free_bytes=free)))
    made.submit(batch(), ["A", "B", "C", "D"])
    where = [made.state(key(name)) for name in "ABC"]
    assert [state.slot.device_id for state in where if isinstance(state, Starting)] == ["cpu@n1", "cpu@n2", "cpu@n2"]
    assert made.state(key("D")) == Queued()
    assert made.end(A).launched == ["D"]


def test_a_window_that_waits_for_a_hosts_memory_keeps_one_host() -> None:
    estimates = Estimates()
    estimates.observe("w:train", "cpu", 100, 1.0, None, GIB)
    estimates.observe_host_memory("w:train", "cpu", 10_000, 6 * GIB)
    made = nodes(cpu(2, host="n1"), gpu(0, 2, host="n1"), cpu(2, host="n2"), estimates=estimates)
    made.submit(batch("small", device="cpu"), ["A", "B"])
    for name in ("n1", "n2"):
        made.send(HostRead(reading=HostReading(host=name, total_bytes=8 * GIB, free_bytes=5 * GIB, process_bytes={})))
    made.submit(batch("large", device="cpu", priority=1), [planned("A", 10_000)])
    assert made.launched == []
    made.submit(batch("later", device="cpu"), ["A", "B"])
    where = [made.state(key(name, "later")) for name in "AB"]
    assert [isinstance(state, Starting) and state.slot.device_id for state in where] == ["cpu@n2", False]
    assert made.end(key("A", "small")).launched == ["A"], "n1 was kept for the large one"


def test_the_hosts_that_others_have_filled_are_named() -> None:
    made = nodes(cpu(2, host="n1"), cpu(2, host="n2"))
    made.send(HostRead(reading=HostReading(host="n1", total_bytes=8 * GIB, free_bytes=0)))
    made.submit(batch(device="cpu"), ["A"])
    made.send(HostRead(reading=HostReading(host="n2", total_bytes=8 * GIB, free_bytes=0)))
    assert made.scheduler.pool.offers.full("cpu") == "node n1 has 0 MiB free, node n2 has 0 MiB free"


def test_nothing_is_placed_on_a_silent_node_and_its_windows_go_on() -> None:
    made = nodes(gpu(0, 2, host="n1"), gpu(1, host="n2")).submit(batch(workers=3), ["A", "B", "C"])
    made.start(A, pid=1).start(B, pid=1).send(NodeSilent(host="n1", reason="no word for 3 s"))
    assert changes(made) == [("GPU-0", "silent", "no word for 3 s")]
    assert (made.terminated, made.killed) == ([], [])
    assert made.end(A).launched == [], "its slot is free, but its node does not answer"
    made.submit(batch("late", device="cuda"), ["A"])
    assert made.held("late") is None, "it may answer again"
    made.send(NodeJoined(host="n1", devices=(gpu(0, 2, host="n1"),)))
    assert changes(made) == [("GPU-0", "open", "")]
    assert made.launched == ["A"]


@pytest.mark.parametrize("how", ["resumed", "tried", "joined"])
def test_a_device_of_a_silent_node_does_not_open(how: str) -> None:
    made = nodes(gpu(0, host="n1"), gpu(1, host="n1")).send(DrainRequested(device_id="GPU-0"))
    made.send(NodeSilent(host="n1", reason="no word"))
    assert changes(made) == [("GPU-1", "silent", "no word")], "a drained device stays so"
    pool = made.scheduler.pool
    if how == "resumed":
        made.send(ResumeRequested(device_id="GPU-0"))
        assert changes(made) == [("GPU-0", "silent", "no word")]
    elif how == "tried":
        pool.begin_trial(gpu(2, host="n1"), 0.0)
        made.send(TrialEnded(device=gpu(2, host="n1")))
        assert changes(made) == [("GPU-2", "silent", "no word")]
    else:
        pool.add(gpu(2, host="n1"))
        assert pool.devices["GPU-2"].health == "silent"
    assert made.submit(batch(), ["A"]).launched == []


def test_the_windows_of_a_lost_node_go_elsewhere_and_no_try_is_used_up() -> None:
    made = nodes(gpu(0, 2, host="n1"), cpu(1, host="n1")).submit(batch(device="cuda", limits=ONCE), ["A", "B", "C"])
    made.start(A, pid=1).start(B, pid=2)
    made.send(ChangeRequested(verb="cancel", batch_id="b", label=B.label))
    made.send(NodeLost(host="n1", reason="no word for 12 s"))
    assert changes(made) == [("GPU-0", "gone", "no word for 12 s"), ("cpu@n1", "gone", "no word for 12 s")]
    assert made.state(A) == Queued(attempt=2)
    assert made.state(B) == Finished(attempts=1, outcome=Cancelled())
    moved = next(r for r in made.records if isinstance(r, WindowMoved) and r.key == A)
    assert moved.reason == "node n1 was lost: no word for 12 s"
    assert (made.scheduler.pool.devices, set(made.scheduler.pool.hosts)) == ({}, {""})
    assert made.held("b") == "no device is left that could run it (there is none for 'cuda')"
    late = AttemptEnded(key=A, attempt=1, ending=RESULT)
    assert (made.send(late).records, made.commands) == ([], []), "a result of the old attempt comes too late"
    made.send(NodeJoined(host="n2", devices=(gpu(1, host="n2"),)))
    assert any(isinstance(record, BatchReleased) for record in made.records)
    assert made.launched == ["C"] or made.launched == ["A"]


def test_nothing_happens_to_an_unknown_node() -> None:
    made = nodes(gpu(0, host="n1"))
    for event in (NodeSilent(host="n9", reason="-"), NodeLost(host="n9", reason="-")):
        assert (made.send(event).records, made.commands) == ([], [])


def test_a_node_whose_device_was_lost_before_is_lost_too() -> None:
    made = nodes(gpu(0, host="n1")).submit(batch(limits=ONCE), ["A"]).start(A)
    made.send(DeviceLost(device_id="GPU-0", reason="it fell off the bus"))
    assert made.terminated == [(A, 1)]
    made.send(NodeLost(host="n1", reason="power"))
    assert changes(made) == [("GPU-0", "gone", "power")]
    assert made.state(A) == Queued(attempt=2)


def test_a_node_whose_device_had_vanished_is_lost_with_the_window_that_still_ends_there() -> None:
    made = nodes(gpu(0, host="n1")).submit(batch(limits=ONCE), ["A"]).start(A)
    made.send(DeviceVanished(device_id="GPU-0", reason="unplugged"))
    assert changes(made) == [("GPU-0", "gone", "unplugged")]
    made.send(NodeLost(host="n1", reason="power"))
    assert changes(made) == []
    assert made.state(A) == Queued(attempt=2)
    assert made.scheduler.pool.devices == {}


def test_trials_of_a_node_that_joins() -> None:
    made = nodes(cpu(1, host="n1"))
    made.send(NodeJoined(host="n2", devices=(gpu(0, host="n2"), cpu(0, host="n2")), trying=frozenset({"GPU-0"})))
    assert changes(made) == [("GPU-0", "trying", "")], "processors without slots are no device"


def test_timers_that_do_not_apply_any_more_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "TIDY", tidy := 64)
    made = nodes(gpu(0, host="n1")).submit(batch(), [f"W{number}" for number in range(tidy)])
    for number in range(tidy - 1):
        made.at += 0.001
        made.start(key(f"W{number}")).end(key(f"W{number}"))
    assert len(made.scheduler._books.timers._heap) < tidy
