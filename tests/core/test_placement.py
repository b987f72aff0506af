"""Which slot comes next: least loaded first, ties always the same way, memory promised once."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from gpusched.core.ledger import SMOOTHING
from gpusched.core.memory import LARGEST_SHARE, LEAST_DEVICE_BYTES, NOTHING, Need
from gpusched.core.model import CPU, Device, DeviceChoice, Slot
from gpusched.core.placement import Demand, suits
from gpusched.core.pool import Pool
from tests.core.support import GIB, cpu, gpu, key, reading


def choose(pool: Pool, wanted: DeviceChoice, need: Need = NOTHING) -> Slot | None:
    return pool.choose(Demand(wanted=wanted, device=need))


def kept(pool: Pool, wanted: DeviceChoice, need: Need, without: Sequence[str] = ()) -> str | None:
    """The one device that is kept for a window, if there is any."""
    devices = pool.offers.kept_for(Demand(wanted=wanted, device=need), without=without)
    assert len(devices) <= 1
    return next(iter(devices), None)


def take(pool: Pool, name: str = "A", wanted: DeviceChoice = "auto", memory: int = 0, alone: bool = False) -> Slot:
    slot = choose(pool, wanted, Need(memory, alone))
    assert slot is not None
    pool.allocate(slot, key(name), Need(memory, alone))
    pool.validate()
    return slot


def test_slots_are_numbered_through() -> None:
    pool = Pool([gpu(0, 2), cpu(1)])
    pool.add(gpu(1, 2))
    assert list(pool.slots.values()) == [
        Slot(0, "GPU-0"),
        Slot(1, "GPU-0"),
        Slot(2, "cpu"),
        Slot(3, "GPU-1"),
        Slot(4, "GPU-1"),
    ]


def test_least_loaded_relative_to_capacity_then_lowest_slot() -> None:
    pool = Pool([gpu(0, 1), gpu(1, 4)])
    assert [take(pool).index for _ in range(5)] == [0, 1, 2, 3, 4]
    pool = Pool([gpu(0, 2), gpu(1, 4)])
    # 0/2 = 0/4, 1/2 > 0/4, 1/2 > 1/4, 1/2 = 2/4, 2/2 > 2/4, then the rest
    assert [take(pool).device_id[-1] for _ in range(6)] == list("011011")
    assert choose(pool, "auto") is None
    assert not pool.offers.has_free


def test_choose_changes_nothing() -> None:
    pool = Pool([gpu(0, 2), gpu(1, 2)])
    assert choose(pool, "auto") == choose(pool, "auto") == Slot(0, "GPU-0")
    assert pool.devices["GPU-0"].allocations == {}


def test_then_the_most_free_memory_then_the_least_used() -> None:
    pool = Pool([gpu(0), gpu(1), gpu(2)])
    for number, (free, used) in enumerate([(4, 0.0), (6, 0.9), (6, 0.1)]):
        pool.observe(reading(f"GPU-{number}", free=free * GIB, total=8 * GIB, utilisation=used))
    assert [take(pool).device_id[-1] for _ in range(3)] == list("210")


def test_a_released_slot_is_the_next_again() -> None:
    pool = Pool([gpu(0, 3)])
    slots = [take(pool) for _ in range(3)]
    pool.release(slots[2])
    pool.release(slots[0])
    pool.validate()
    assert take(pool) == slots[0]
    assert take(pool) == slots[2]


@given(devices=st.integers(1, 16), capacity=st.integers(1, 24), at_once=st.integers(1, 16 * 24))
@example(devices=16, capacity=24, at_once=16 * 24)
@settings(max_examples=40, derandomize=True)
def test_equal_windows_are_spread_within_one(devices: int, capacity: int, at_once: int) -> None:
    pool = Pool([gpu(n, capacity) for n in range(devices)])
    at_once = min(at_once, devices * capacity)
    held: deque[Slot] = deque()
    loads, served = (Counter({f"GPU-{n}": 0 for n in range(devices)}) for _ in range(2))
    for _ in range(2 * at_once):
        if len(held) == at_once:
            # The oldest ends first: that is how equal windows end.
            loads[held[0].device_id] -= 1
            pool.release(held.popleft())
        slot = choose(pool, "auto")
        assert slot is not None
        pool.allocate(slot, key("A"))
        held.append(slot)
        loads[slot.device_id] += 1
        served[slot.device_id] += 1
        assert max(loads.values()) - min(loads.values()) <= 1
        if at_once % devices == 0:
            assert max(served.values()) - min(served.values()) <= 1
    pool.validate()
    assert pool.offers.has_free == (at_once < devices * capacity)


@pytest.mark.parametrize(
    ("wanted", "suited"),
    [("auto", "cpu GPU-0"), ("cpu", "cpu"), ("gpu", "GPU-0 GPU-1"), ("cuda", "GPU-0")],
)
def test_who_may_run_where(wanted: DeviceChoice, suited: str) -> None:
    shy = Device(id="GPU-1", name="", lightgbm_type="gpu", capacity=1, auto=False)
    devices = [cpu(), gpu(0), shy]
    assert [d.id for d in devices if suits(d, wanted)] == suited.split()
    pool = Pool(devices)
    assert sorted(take(pool, wanted=wanted).device_id for _ in suited.split()) == sorted(suited.split())
    assert choose(pool, wanted) is None
    assert pool.hopeless(wanted) is None


def test_what_no_device_could_ever_run() -> None:
    assert Pool([cpu(auto=False)]).hopeless("cuda") == "there is none for 'cuda'"
    assert Pool([cpu(auto=False)]).hopeless("auto")
    assert Pool([cpu(0)]).hopeless("cpu")
    assert not Pool([cpu(0)]).offers.has_free


def test_closed_devices_get_nothing() -> None:
    pool = Pool([gpu(0), gpu(1)])
    assert pool.set_health("GPU-0", "draining", "by request")
    assert not pool.set_health("GPU-0", "draining", "once more")
    assert not pool.set_health("GPU-9", "draining", "unknown")
    assert choose(pool, "auto") == Slot(1, "GPU-1")
    assert pool.set_health("GPU-1", "quarantined", "it fell off the bus")
    assert choose(pool, "auto") is None
    assert not pool.offers.has_free
    assert pool.hopeless("auto") is None
    assert pool.set_health("GPU-0", "open", "")
    assert choose(pool, "auto") == Slot(0, "GPU-0")


def test_alone_needs_an_empty_device_and_keeps_it() -> None:
    pool = Pool([gpu(0, 2)])
    first = take(pool)
    assert choose(pool, "auto", Need(alone=True)) is None
    pool.release(first)
    first = take(pool, alone=True)
    assert choose(pool, "auto") is None
    pool.release(first)
    assert choose(pool, "auto") is not None


def test_what_is_worth_waiting_for() -> None:
    pool = Pool([gpu(0, 4), gpu(1, 4), cpu()])

    def soonest(wanted: DeviceChoice = "cuda", memory: int = 6 * GIB, without: str = "") -> str | None:
        return kept(pool, wanted, Need(memory), without.split())

    for device_id in ("GPU-0", "GPU-1"):
        pool.observe(reading(device_id, free=8 * GIB, total=8 * GIB))
    slot = take(pool, wanted="cuda")
    assert (slot.device_id, soonest(), soonest("cpu")) == ("GPU-0", "GPU-1", "cpu")
    assert soonest(without="GPU-1") == "GPU-0"
    assert soonest(without="GPU-0 GPU-1") is None
    pool.set_health("GPU-1", "draining", "by request")
    assert soonest() == "GPU-0"
    # memory of ours will be free again
    pool.started(slot, 77)
    pool.observe(reading(free=2 * GIB, total=8 * GIB, processes={77: 5 * GIB, 99: GIB}))
    assert soonest() == "GPU-0"
    # memory of others will not
    pool.observe(reading(free=2 * GIB, total=8 * GIB, processes={77: 2 * GIB, 99: 4 * GIB}))
    assert soonest() is None
    assert soonest(memory=4 * GIB) == "GPU-0"


def test_what_is_worth_waiting_for_where_nobody_knows_whose_memory_it_is() -> None:
    """Memory that was free when none of ours was there will be free again."""
    pool = Pool([gpu(0, 4)])
    slot = take(pool)
    pool.observe(reading(free=GIB, total=8 * GIB))
    assert kept(pool, "auto", Need(6 * GIB)) == "GPU-0", "it may all be ours"
    pool.release(slot)
    pool.observe(reading(free=5 * GIB, total=8 * GIB))
    take(pool)
    pool.observe(reading(free=GIB, total=8 * GIB))
    assert kept(pool, "auto", Need(6 * GIB)) is None
    assert kept(pool, "auto", Need(5 * GIB)) == "GPU-0"
    pool.forget_readings(1.0)
    assert kept(pool, "auto", Need(6 * GIB)) == "GPU-0"


def test_foreign_memory_vetoes() -> None:
    pool = Pool([gpu(0, 4)])
    pool.observe(reading(free=1 * GIB, total=8 * GIB))
    assert choose(pool, "auto", Need(2 * GIB)) is None
    assert choose(pool, "auto", Need(1 * GIB)) is not None
    pool.observe(reading(free=7 * GIB, total=8 * GIB))
    assert choose(pool, "auto", Need(2 * GIB)) is not None


def test_a_full_device_is_vetoed_even_if_nothing_is_known_of_the_window() -> None:
    pool = Pool([gpu(0), gpu(1)])
    pool.observe(reading("GPU-0", free=LEAST_DEVICE_BYTES - 1, total=8 * GIB))
    pool.observe(reading("GPU-1", free=LEAST_DEVICE_BYTES, total=8 * GIB))
    assert take(pool).device_id == "GPU-1"
    assert choose(pool, "auto") is None


def test_memory_of_others_is_what_is_not_ours() -> None:
    pool = Pool([gpu(0, 2)])
    slot = take(pool, memory=2 * GIB)
    state = pool.devices["GPU-0"]
    assert state.foreign_bytes() is None
    pool.started(slot, 77)
    pool.observe(reading(free=3 * GIB, processes=None))
    assert state.foreign_bytes() is None
    pool.observe(reading(free=3 * GIB, processes={77: GIB, 99: 4 * GIB}))
    assert (state.foreign_bytes(), state.memory.reserved_bytes) == (4 * GIB, GIB)


def test_what_is_not_told_vetoes_nothing() -> None:
    pool = Pool([gpu(0, 4)])
    assert choose(pool, "auto", Need(999 * GIB)) is not None
    pool.observe(reading(utilisation=0.5))
    assert choose(pool, "auto", Need(999 * GIB)) is not None
    pool.observe(reading("GPU-7", free=0, total=0))
    pool.validate()


def test_more_than_the_device_has_is_cut_to_what_it_could_have() -> None:
    pool = Pool([gpu(0, 2)])
    pool.observe(reading(free=int(8 * GIB * LARGEST_SHARE), total=8 * GIB))
    take(pool, memory=999 * GIB, alone=True)


def test_a_reservation_gives_way_to_what_is_seen_to_be_used() -> None:
    pool = Pool([gpu(0, 4)])
    pool.observe(reading(free=8 * GIB, total=8 * GIB))
    slot = take(pool, memory=3 * GIB)
    state = pool.devices["GPU-0"]
    assert (state.memory.reserved_bytes, state.memory.free_bytes()) == (3 * GIB, 5 * GIB)
    # It uses one: that one is gone from the free memory, and two are still promised.
    pool.started(slot, 77)
    pool.observe(reading(free=7 * GIB, total=8 * GIB, processes={77: GIB, 5: GIB}))
    assert (state.memory.reserved_bytes, state.memory.free_bytes()) == (2 * GIB, 5 * GIB)
    # It uses more than was set aside: nothing is owed to it.
    pool.observe(reading(free=4 * GIB, total=8 * GIB, processes={77: 4 * GIB}))
    assert (state.memory.reserved_bytes, state.memory.free_bytes()) == (0, 4 * GIB)
    # It gave all back, so it may take it again.
    pool.observe(reading(free=8 * GIB, total=8 * GIB, processes={}))
    assert (state.memory.reserved_bytes, state.memory.free_bytes()) == (3 * GIB, 5 * GIB)
    # A use that cannot be seen says nothing about earlier ones.
    pool.observe(reading(free=7 * GIB, total=8 * GIB, processes={77: GIB}))
    pool.observe(reading(free=7 * GIB, total=8 * GIB))
    assert state.memory.reserved_bytes == 2 * GIB
    pool.release(slot)
    assert state.memory.reserved_bytes == 0
    assert take(pool, memory=3 * GIB) == slot
    assert state.memory.reserved_bytes == 3 * GIB, "the next window on the slot inherits nothing"


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 4)), max_size=12),
    st.integers(0, 3),
)
def test_no_byte_is_promised_twice(windows: list[tuple[int, int, int]], foreign: int) -> None:
    """Between two readings, memory set aside and not yet used never exceeds the free memory, whoever comes and goes."""
    total = 16
    pool = Pool([gpu(0, 8)])
    used: dict[int, int] = {}

    def look() -> None:
        free = max(0, total - foreign - sum(used.values()))
        processes = {100 + index: memory * GIB for index, memory in used.items()}
        pool.observe(reading(free=free * GIB, total=total * GIB, processes=processes))

    look()
    for want, leave, uses in windows:
        slot = choose(pool, "auto", Need(want * GIB))
        state = pool.devices["GPU-0"]
        if slot is not None:
            pool.allocate(slot, key("A"), Need(want * GIB))
            pool.started(slot, 100 + slot.index)
            used[slot.index] = min(uses, want)
            free = state.memory.free_bytes()
            assert free is not None
            assert free >= 0
        if leave in state.allocations:
            pool.release(state.allocations[leave].slot)
            del used[leave]
        look()
        owed = sum(a.device.memory_bytes - used[i] * GIB for i, a in state.allocations.items())
        assert state.memory.reserved_bytes == owed
        assert owed + sum(used.values()) * GIB + foreign * GIB <= total * GIB
        pool.validate()


def test_utilisation_is_smoothed() -> None:
    pool = Pool([gpu(0)])
    state = pool.devices["GPU-0"]
    pool.observe(reading(utilisation=1.0))
    assert state.utilisation == pytest.approx(SMOOTHING)
    pool.observe(reading())
    assert state.utilisation == pytest.approx(SMOOTHING)
    for _ in range(50):
        pool.observe(reading(utilisation=0.6))
    assert state.utilisation == pytest.approx(0.6)


def test_only_the_next_slot_can_be_allocated() -> None:
    pool = Pool([gpu(0, 2)])
    with pytest.raises(AssertionError, match="not the next free one"):
        pool.allocate(Slot(1, "GPU-0"), key("A"))


def test_the_ledger_notices_a_lost_slot() -> None:
    pool = Pool([cpu(2)])
    pool.devices[CPU].free.clear()
    with pytest.raises(AssertionError, match="vanished"):
        pool.validate()
    pool.devices[CPU].free += [0, 0, 1]
    with pytest.raises(AssertionError, match="twice"):
        pool.validate()


def test_a_reading_of_the_processors_says_nothing_of_a_memory_of_their_own() -> None:
    pool = Pool([cpu(1)])
    pool.observe(reading(CPU, free=0, total=GIB, utilisation=1.0))
    assert pool.devices[CPU].utilisation == SMOOTHING
    assert choose(pool, "cpu") is not None


def test_a_device_may_tell_of_processes_and_not_of_free_memory() -> None:
    pool = Pool([gpu(0, 2)])
    pool.started(take(pool), 77)
    pool.observe(reading(processes={77: GIB}))
    assert pool.devices["GPU-0"].memory.seen_bytes == GIB
    assert kept(pool, "cuda", Need(8 * GIB)) == "GPU-0"
