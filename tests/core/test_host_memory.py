"""The host's memory is shared out as a GPU's is: expected memory is set aside, and running out costs no try."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from gpusched.core.estimates import Estimates
from gpusched.core.events import DeviceRead, WindowMoved
from gpusched.core.failures import MAX_LOSSES
from gpusched.core.memory import LEAST_HOST_BYTES, Memory, Need
from gpusched.core.model import Device, Limits, PlannedWindow
from gpusched.core.states import Failed, Finished, Queued, Running, Starting, Usage
from tests.core.support import GIB, RESULT, Driver, batch, cpu, failure, gpu, host, key, planned, reading

MIB = 1 << 20
ONCE = Limits(max_attempts=1)
A, B, C = map(key, "ABC")
OUT = failure("host_memory", "out of host memory: the kernel killed the process")


def learned(host_bytes: int, device_type: str = "cpu") -> Estimates:
    estimates = Estimates()
    estimates.observe("w:train", device_type, 100, 1.0, None, host_bytes)  # type: ignore[arg-type]
    return estimates


def test_as_many_run_as_the_host_has_memory_for() -> None:
    """4 GiB each where 10 are free: the third waits for one to leave, or to be seen to need less."""
    driver = Driver(cpu(4), estimates=learned(4 * GIB)).send(host(10 * GIB)).submit(batch(), ["A", "B", "C"])
    assert driver.launched == ["A", "B"]
    driver.start(A, pid=11).start(B, pid=22)
    assert driver.send(host(3 * GIB, processes={11: 4 * GIB, 22: 3 * GIB})).launched == []
    assert driver.send(host(5 * GIB, processes={11: 4 * GIB, 22: 4 * GIB})).launched == ["C"]


def asking(symbol: str, memory_bytes: int) -> PlannedWindow:
    plan = planned(symbol)
    return msgspec.structs.replace(
        plan, window=msgspec.structs.replace(plan.window, expected_memory_bytes=memory_bytes)
    )


def test_memory_that_was_asked_for_is_set_aside_in_the_place_of_what_was_learned() -> None:
    driver = Driver(cpu(4), estimates=learned(GIB)).send(host(10 * GIB))
    driver.submit(batch(device="cpu"), [asking("A", 6 * GIB), asking("B", 6 * GIB), asking("C", 3 * GIB)])
    assert driver.launched == ["A"]
    assert driver.end(A).launched == ["B", "C"]


def test_of_a_gpu_it_is_the_gpus_memory() -> None:
    driver = Driver(gpu(0, 4), estimates=learned(GIB, "cuda")).send(host(20 * GIB))
    driver.send(DeviceRead(reading=reading(free=10 * GIB, total=10 * GIB)))
    driver.submit(batch(), [asking("A", 6 * GIB), asking("B", 6 * GIB), asking("C", 3 * GIB)])
    assert driver.launched == ["A"]


@pytest.mark.parametrize("device", [gpu(0, 4), cpu(4)])
def test_it_is_the_same_for_gpus_and_processors(device: Device) -> None:
    driver = Driver(device, estimates=learned(4 * GIB, device.lightgbm_type)).send(host(10 * GIB))
    assert driver.submit(batch(), ["A", "B", "C"]).launched == ["A", "B"]
    assert driver.end(A).launched == ["C"]


def test_where_nothing_is_known_a_little_is_set_aside() -> None:
    driver = Driver(cpu(4)).send(host(3 * LEAST_HOST_BYTES)).submit(batch(), ["A", "B", "C", "D"])
    assert driver.launched == ["A", "B", "C"]


def test_without_a_reading_nothing_is_vetoed() -> None:
    driver = Driver(cpu(2), estimates=learned(GIB)).send(host(0))
    assert driver.submit(batch(), ["A", "B"]).launched == []
    assert driver.wait(61).launched == ["A", "B"], "the reading is too old to say anything"


def test_says_why_nothing_runs_when_others_use_the_hosts_memory() -> None:
    driver = Driver(cpu(2), gpu(0)).send(host(5 * MIB)).submit(batch(), ["A"])
    assert driver.scheduler.starved() == "the host has 5 MiB free"
    assert driver.send(host(GIB)).launched == ["A"]
    assert driver.scheduler.starved() is None


def test_more_than_there_ever_is_waits_for_the_others_and_then_runs() -> None:
    estimates = learned(GIB // 4)
    estimates.observe_host_memory("w:train", "cpu", 10_000, 50 * GIB)
    driver = Driver(cpu(3), estimates=estimates).send(host(GIB)).submit(batch("b"), ["A", "B"])
    driver.submit(batch("a", priority=1), [planned("A", 10_000)]).submit(batch("c"), ["C"])
    assert driver.launched == [], "nobody may take what the large one waits for"
    driver.start(A, pid=1).start(B, pid=2).send(host(GIB // 2, processes={1: GIB // 4, 2: GIB // 4}))
    assert driver.end(A).launched == []
    assert driver.end(B).launched == ["A"], "what B used is free"
    assert driver.end(key("A", "a")).launched == ["C"]


def test_a_window_that_ran_out_gets_more_and_then_all_and_loses_no_try() -> None:
    driver = Driver(cpu(2)).send(host(8 * GIB)).submit(batch(limits=ONCE), ["A", "B", "C"])
    driver.end(A, 1, OUT, Usage(own_memory_bytes=150 * MIB))
    moved = next(r for r in driver.records if isinstance(r, WindowMoved))
    assert moved.reason == f"{OUT.message}; next with 300 MiB set aside"
    assert isinstance(driver.state(A), Starting), "at once"
    assert driver.scheduler.pool.hosts[""].memory.promised[0] == Need(300 * MIB)
    driver.end(A, 2, OUT, Usage(own_memory_bytes=250 * MIB))
    moved = next(r for r in driver.records if isinstance(r, WindowMoved))
    assert moved.reason == f"{OUT.message}; next alone"
    assert driver.launched == ["C"]
    driver.wait(1.0)
    assert driver.state(A) == Queued(attempt=3)
    driver.end(B)
    assert driver.state(A) == Queued(attempt=3), "not yet alone"
    driver.end(C)
    assert driver.launched == ["A"]
    assert driver.end(A, 3).scheduler.unfinished == 0


def test_nobody_joins_a_window_that_is_alone() -> None:
    driver = Driver(cpu(1), gpu(0, 2)).send(host(8 * GIB)).submit(batch(), ["A"])
    driver.end(A, 1, OUT).end(A, 2, OUT).wait_for_deadline()
    assert driver.launched == ["A"]
    assert driver.submit(batch("other"), ["A"]).submit(batch("cpu", device="cpu"), ["A"]).launched == []
    driver.end(A, 3)
    assert driver.scheduler.active == 2


def test_what_is_too_large_even_alone_fails_by_its_own_doing() -> None:
    driver = Driver(cpu(2)).send(host(GIB)).submit(batch(limits=Limits(max_attempts=2, backoff_s=0.0)), ["A"])
    for attempt in (1, 2, 3, 4):
        assert isinstance(driver.state(A), Starting)
        driver.end(A, attempt, OUT)
    assert driver.state(A) == Finished(attempts=4, outcome=Failed(failure=OUT))


def test_the_devices_memory_and_the_hosts_are_asked_for_apart() -> None:
    driver = Driver(gpu(0, 2)).send(reading_of(40)).send(host(8 * GIB)).submit(batch(limits=ONCE), ["A", "B"])
    driver.end(A, 1, OUT, Usage(own_memory_bytes=GIB)).end(A, 2, failure("device_memory")).wait(1.0)
    allocation = driver.scheduler.pool.devices["GPU-0"].allocations[0]
    assert (allocation.device, allocation.host) == (Need(GIB), Need(2 * GIB))


def reading_of(free: int):  # type: ignore[no-untyped-def]
    from gpusched.core.events import DeviceRead

    return DeviceRead(reading=reading(free=free * GIB, total=48 * GIB))


@given(
    takes=st.lists(st.integers(1, 300), min_size=1, max_size=12),
    room=st.integers(300, 600),
    slots=st.integers(1, 6),
    read_often=st.booleans(),
)
@settings(max_examples=60, derandomize=True)
def test_whatever_fits_alone_succeeds(takes: list[int], room: int, slots: int, read_often: bool) -> None:
    """A kernel that kills the largest whenever memory runs out: no window fails, as each of them fits by itself."""
    driver = Driver(cpu(slots))
    needs = {f"W{number}": mib * MIB for number, mib in enumerate(takes)}
    pids: dict[str, int] = {}

    def read() -> None:
        used = {pids[name]: need for name, need in needs.items() if isinstance(driver.state(key(name)), Running)}
        driver.send(host(room * MIB - sum(used.values()), processes=used))

    driver.send(host(room * MIB)).submit(batch(limits=ONCE), list(needs))
    for _ in range(len(takes) * (MAX_LOSSES + 2)):
        for number, name in enumerate(needs):
            state = driver.state(key(name))
            if isinstance(state, Starting):
                pids[name] = 1000 * state.attempt + number
                driver.start(key(name), state.attempt, pids[name])
        running = [(needs[n], n, s) for n in needs if isinstance(s := driver.state(key(n)), Running)]
        if not running:
            if driver.scheduler.unfinished == 0:
                break
            driver.wait_for_deadline()
            continue
        need, name, state = max(running)
        out = sum(used for used, _, _ in running) > room * MIB
        usage = Usage(own_memory_bytes=need // 2 if out else need)
        driver.end(key(name), state.attempt, OUT if out else RESULT, usage)
        if read_often:
            read()
    assert driver.scheduler.unfinished == 0
    assert all(isinstance(s, Finished) and s.outcome.result == RESULT for _, s in driver.scheduler.states("b"))  # type: ignore[union-attr]


def test_what_others_use_for_good_is_cut_off_a_need() -> None:
    memory = Memory(LEAST_HOST_BYTES, lasting=True)
    memory.observe(64 * GIB, GIB, {})
    assert memory.room_for(Need(50 * GIB))
    memory.observe(64 * GIB, LEAST_HOST_BYTES - 1, {})
    assert not memory.room_for(Need())
