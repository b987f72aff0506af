"""The scheduler, story by story: devices that are lost, drained, full or too small."""

from __future__ import annotations

import pytest

from gpusched.core.estimates import Estimates
from gpusched.core.events import (
    BatchHeld,
    ChangeRequested,
    DeviceLost,
    DeviceRead,
    DrainRequested,
    NodeJoined,
    ResumeRequested,
    WindowMoved,
)
from gpusched.core.model import CPU, Slot, WindowKey
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import (
    FailureKind,
    Queued,
    Running,
    Starting,
)
from tests.core.stories import ONCE, A, B, C
from tests.core.support import GIB, Driver, batch, cpu, failure, gpu, key, reading

# -- devices -----------------------------------------------------------------------------------------------------------


def test_a_lost_device_is_emptied_and_its_windows_go_elsewhere() -> None:
    driver = Driver(gpu(0), gpu(1)).submit(batch(limits=ONCE), ["A", "B"]).start(A).start(key("B"))
    driver.send(DeviceLost(device_id="GPU-0", reason="it fell off the bus"))
    assert driver.terminated == [(A, 1)]
    driver.end(A, ending=failure("killed"))
    assert driver.state(A) == Queued(attempt=2)
    driver.end(key("B"))
    assert driver.state(A) == Starting(attempt=2, slot=Slot(1, "GPU-1"))
    assert driver.send(DeviceLost(device_id="GPU-0", reason="again")).records == []
    assert driver.send(DeviceLost(device_id="GPU-7", reason="unknown")).records == []


@pytest.mark.parametrize("kind", ["device_lost", "device_mismatch"])
def test_a_window_whose_device_was_at_fault_closes_it(kind: FailureKind) -> None:
    driver = Driver(gpu(0, 2), gpu(1, 1)).submit(batch(limits=ONCE), ["A", "B", "C"])
    for symbol in "ABC":
        driver.start(key(symbol))
    assert driver.state(C) == Running(attempt=1, slot=Slot(1, "GPU-0"), pid=10, started_at=driver.at + 1e9)
    driver.end(A, ending=failure(kind, "it is another one"))
    assert driver.terminated == [(C, 1)]
    state = driver.scheduler.pool.devices["GPU-0"]
    assert (state.health, state.reason) == ("quarantined", "it is another one")
    driver.end(C, ending=failure("killed")).end(B).start(A, 2).end(A, 2).end(C, 2)
    assert driver.scheduler.unfinished == 0


def test_no_failure_closes_the_processors_and_no_other_failure_a_device() -> None:
    driver = Driver(cpu()).submit(batch(), ["A", "B"]).end(A, ending=failure("device_mismatch"))
    assert driver.scheduler.pool.devices["cpu"].health == "open"
    driver = Driver(gpu(0)).submit(batch(), ["A", "B"]).end(A, ending=failure("device_memory"))
    assert driver.scheduler.pool.devices["GPU-0"].health == "open"


def test_a_batch_that_no_device_is_left_for_is_held_until_one_is_opened() -> None:
    driver = Driver(gpu(0), cpu(auto=False)).submit(batch(limits=ONCE), ["A", "B"]).start(A)
    driver.submit(batch("other", device="cpu"), ["A"])
    driver.send(DeviceLost(device_id="GPU-0", reason="it fell off the bus"))
    reason = "no device is left that could run it (GPU-0: it fell off the bus)"
    assert BatchHeld(batch_id="b", reason=reason, kind="stranded", at=driver.at + 1e9) in driver.records
    assert driver.held("other") is None
    driver.end(A, ending=failure("killed"))
    # so is the next one, and one that is released in vain
    driver.submit(batch("late"), ["A"])
    assert driver.held("late") == reason
    driver.send(ChangeRequested(verb="release", batch_id="late"))
    assert driver.held("late") == reason
    driver.send(ChangeRequested(verb="hold", batch_id="b"))
    driver.send(ResumeRequested(device_id="GPU-0"))
    assert driver.held("b") is driver.held("late") is None
    assert driver.launched == ["A"]


def test_a_device_comes_back_and_what_people_hold_stays_held() -> None:
    driver = Driver(gpu(0)).submit(batch(), ["A"]).send(ChangeRequested(verb="hold", batch_id="b"))
    driver.send(DeviceLost(device_id="GPU-0", reason="lost")).send(ResumeRequested(device_id="GPU-0"))
    assert driver.held("b") == "by request"


def test_a_drained_device_is_nobodys_loss() -> None:
    driver = Driver(gpu(0)).submit(batch(), ["A", "B"]).send(DrainRequested(device_id="GPU-0"))
    assert driver.held("b") is None


def test_a_batch_that_nothing_here_can_run_is_held() -> None:
    driver = Driver(gpu(0)).submit(batch(device="cpu"), ["A"])
    assert driver.held("b") == "no device is left that could run it (there is none for 'cpu')"


def test_a_drained_device_keeps_what_it_has() -> None:
    driver = Driver(gpu(0)).submit(batch(), ["A", "B"]).start(A).send(DrainRequested(device_id="GPU-0"))
    assert driver.commands == []
    assert driver.end(A).launched == []
    assert driver.send(ResumeRequested(device_id="GPU-0")).launched == ["B"]
    assert driver.send(ResumeRequested(device_id="GPU-0")).records == []


@pytest.mark.parametrize(("learned", "first"), [(0, 1), (GIB // 4, 1), (4 * GIB, 8)])
def test_device_memory_asks_for_more_and_then_for_a_device_alone(learned: int, first: int) -> None:
    """More than was set aside, where windows like it have taught how much that is: `first` GiB at first."""
    estimates = Estimates()
    estimates.observe("w:train", "cuda", 100, 1.0, learned or None)
    driver = Driver()
    driver.scheduler = Scheduler(estimates)
    driver.send(NodeJoined(devices=(gpu(0, 2),))).submit(batch(limits=ONCE), ["A", "B"])
    driver.send(DeviceRead(reading=reading(free=40 * GIB, total=48 * GIB)))
    driver.end(A, 1, failure("device_memory"))
    state = driver.scheduler.pool.devices["GPU-0"]
    assert state.memory.reserved_bytes == learned + first * GIB
    driver.end(A, 2, failure("device_memory")).wait(1.0)
    assert driver.state(A) == Queued(attempt=3), "it has to wait for the device to be empty"
    driver.end(key("B"))
    assert driver.state(A) == Starting(attempt=3, slot=Slot(0, "GPU-0"))
    assert state.memory.reserved_bytes == 2 * first * GIB


@pytest.mark.parametrize("slots", [2, 5])
def test_a_window_that_waits_for_a_device_alone_is_not_overtaken(slots: int) -> None:
    """It starts when those have ended that ran there when it began to wait."""
    driver = Driver(gpu(0, slots)).submit(batch("a", limits=ONCE), ["A"])
    driver.submit(batch(), [f"B{number}" for number in range(100)])
    a = key("A", "a")
    driver.end(a, 1, failure("device_memory")).end(a, 2, failure("device_memory")).wait(1.0)
    running = [allocation.key for allocation in driver.scheduler.pool.devices["GPU-0"].allocations.values()]
    assert len(running) == slots
    for ended in running:
        assert driver.state(a) == Queued(attempt=3)
        driver.end(ended)
    assert driver.launched == ["A"]
    assert len(driver.end(a, 3).launched) == slots


def test_only_one_device_is_kept_for_a_window_and_only_from_what_comes_later() -> None:
    driver = Driver(gpu(0, 2), gpu(1, 2)).submit(batch("a", limits=ONCE), ["A"])
    driver.submit(batch(), [f"B{number}" for number in range(100)])
    a = key("A", "a")
    driver.end(a, 1, failure("device_memory")).end(a, 2, failure("device_memory")).wait(1.0)

    def running(number: int) -> list[WindowKey]:
        allocations = driver.scheduler.pool.devices[f"GPU-{number}"].allocations
        return [allocation.key for allocation in allocations.values()]

    first, _ = running(0)
    assert driver.end(first).launched == []
    for ended in running(1):
        assert len(driver.end(ended).launched) == 1
    assert driver.state(a) == Queued(attempt=3)
    assert driver.submit(batch("urgent", priority=1), ["U"]).launched == ["U"]
    assert len(running(0)) == 2


@pytest.mark.parametrize("allowed", [True, False])
def test_a_window_too_large_for_any_gpu_goes_to_the_processors_if_they_are_offered(allowed: bool) -> None:
    driver = Driver(gpu(0), cpu(auto=allowed)).submit(batch(limits=ONCE), ["A"])
    for attempt in (1, 2, 3):
        assert driver.state(A) == Starting(attempt=attempt, slot=Slot(0, "GPU-0"))
        driver.end(A, attempt, failure("device_memory"))
        if attempt > 1:
            driver.wait_for_deadline()
    assert driver.state(A) == Starting(attempt=4, slot=Slot(1, CPU) if allowed else Slot(0, "GPU-0"))


def test_what_was_learned_is_set_aside_before_anything_is_used() -> None:
    """4 GiB each where 10 are free: the third window waits for a reading that says that there is room."""
    estimates = Estimates()
    estimates.observe("w:train", "cuda", 100, 1.0, 4 * GIB)
    estimates.observe("w:train", "cpu", 100, 1.0, 9 * GIB)
    driver = Driver(gpu(0, 3), cpu(auto=False))
    driver.scheduler = Scheduler(estimates)
    driver.send(NodeJoined(devices=(gpu(0, 3), cpu(auto=False))))
    driver.send(DeviceRead(reading=reading(free=10 * GIB, total=16 * GIB))).submit(batch(limits=ONCE), ["A", "B", "C"])
    assert driver.launched == ["A", "B"]
    # both use the memory promised to them, and somebody else has gone
    processes = {11: 4 * GIB, 22: 4 * GIB}
    driver.start(A, pid=11).start(B, pid=22)
    assert driver.send(DeviceRead(reading=reading(free=3 * GIB, total=16 * GIB, processes=processes))).launched == []
    assert driver.send(DeviceRead(reading=reading(free=5 * GIB, total=16 * GIB, processes=processes))).launched == ["C"]


def test_says_why_nothing_runs_when_others_use_all_memory() -> None:
    driver = Driver(gpu(0), gpu(1), cpu(auto=False))
    full = DeviceRead(reading=reading("GPU-0", free=GIB // 8, total=GIB))
    driver.send(full).send(DeviceRead(reading=reading("GPU-1", free=GIB // 16, total=GIB)))
    assert driver.scheduler.starved() is None
    driver.submit(batch(limits=ONCE), ["A"])
    assert driver.launched == []
    assert driver.scheduler.starved() == "GPU-0 has 128 MiB free, GPU-1 has 64 MiB free"
    assert driver.send(DeviceRead(reading=reading("GPU-1", free=GIB, total=GIB))).launched == ["A"]
    assert driver.scheduler.starved() is None
    driver.submit(batch("other", device="cpu"), ["A"])
    driver.send(DeviceRead(reading=reading("GPU-1", free=0, total=GIB))).end(A)
    assert driver.scheduler.starved() is None


def test_what_a_window_was_seen_to_use_is_told_when_it_ends() -> None:
    driver = Driver(gpu(0, 2)).submit(batch(limits=ONCE), ["A", "B"]).start(A, pid=11).start(B, pid=22)
    for memory in (GIB, 3 * GIB, 2 * GIB):
        driver.send(DeviceRead(reading=reading(free=9 * GIB, processes={11: memory})))

    def told(where: WindowKey) -> int | None:
        (moved,) = [record for record in driver.end(where).records if isinstance(record, WindowMoved)]
        assert moved.usage is not None
        return moved.usage.device_memory_bytes

    assert told(A) == 3 * GIB
    assert told(B) is None


def test_readings_know_our_processes() -> None:
    driver = Driver(gpu(0, 2)).submit(batch(limits=ONCE), ["A"]).end(A, 1, failure("device_memory"))
    driver.start(A, 2, pid=77).send(DeviceRead(reading=reading(free=7 * GIB, processes={77: GIB, 78: GIB})))
    assert driver.scheduler.pool.devices["GPU-0"].memory.reserved_bytes == 0
    assert driver.send(DeviceRead(reading=reading("GPU-9", free=0))).records == []
