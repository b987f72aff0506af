"""Finding the number of slots, on devices of which the best one is known."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusched.core.commands import Launch
from gpusched.core.events import AttemptEnded, AttemptStarted, BatchSubmitted, DeviceTuned, Event, NodeJoined
from gpusched.core.model import Device, Instant, WindowKey
from gpusched.core.scheduler import Scheduler
from gpusched.core.tuning import Tuner
from tests.core.support import RESULT, batch, gpu, planned

Curve = Callable[[int], float]


def simulate(tuner: Tuner, rate: Curve, *, ends: int, noise: float = 0.0, seed: int = 1) -> Counter[int]:
    """How many of `ends` windows, after as many others, ended with each number of slots.

    `rate` is the work per second with so many.
    """
    chance, now, used = random.Random(seed), 0.0, Counter[int]()
    for number in range(2 * ends):
        now += chance.uniform(1 - noise, 1 + noise) / rate(tuner.slots)
        used[tuner.slots] += number >= ends
        tuner.ended(1.0, now)
    return used


def peak(best: int) -> Curve:
    """Each slot adds as much up to `best`, and takes a tenth from there on."""
    return lambda slots: 10.0 * min(slots, best) * 0.9 ** max(0, slots - best)


@pytest.mark.parametrize("best", [1, 2, 5, 12, 24])
@pytest.mark.parametrize("start", [1, 4, 24])
def test_settles_where_most_work_is_done(best: int, start: int) -> None:
    tuner = Tuner(start, 24)
    used = simulate(tuner, peak(best), ends=20_000)
    assert used.most_common(1)[0][0] == best
    assert used[best] > 16_000, "it tries others now and then only"


def test_slots_that_bring_nothing_are_given_back() -> None:
    tuner = Tuner(8, 16)
    used = simulate(tuner, lambda slots: 10.0 * min(slots, 3), ends=40_000)
    assert used.most_common(1)[0][0] == 3


@settings(max_examples=10)  # each of which is 40,000 windows
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 1000))
def test_does_most_of_the_work_that_is_possible_in_spite_of_noise(best: int, start: int, seed: int) -> None:
    tuner, rate = Tuner(start, 24), peak(best)
    used = simulate(tuner, rate, ends=20_000, noise=0.5, seed=seed)
    assert min(used) >= 1
    assert max(used) <= 24
    seconds = sum(count / rate(slots) for slots, count in used.items())
    assert 20_000 / seconds > 0.85 * rate(best)


def test_what_is_measured_on_a_device_that_is_not_full_says_nothing() -> None:
    tuner = Tuner(2, 8)
    for second in range(1000):
        assert tuner.ended(1.0, float(second)) is None
        if second % 10 == 9:
            tuner.interrupted()
    assert tuner.slots == 2


def test_every_change_has_its_reason() -> None:
    tuner, now, reasons = Tuner(1, 3), 0.0, []
    for _ in range(400):
        now += 1 / min(tuner.slots, 2)
        before = tuner.slots
        why = tuner.ended(1.0, now)
        assert (why is None) == (tuner.slots == before)
        if why is not None:
            reasons.append(why)
    assert reasons[:4] == [
        "2 slots: to see what that does",
        "3 slots: 2 instead of 1 changed the work per second by +100%",
        "2 slots again: 3 instead of 2 changed the work per second by +0%",
        "1 slots: to see what that does",
    ]


def test_a_device_with_one_slot_stays_as_it_is() -> None:
    tuner = Tuner(1, 1)
    assert simulate(tuner, lambda slots: 10.0, ends=1000) == {1: 1000}


# -- in the scheduler --------------------------------------------------------------------------------------------------


class Machine:
    """A scheduler with tuned devices on which `best` windows at a time do as much work as more of them do."""

    def __init__(self, devices: tuple[Device, ...], best: int) -> None:
        self.scheduler = Scheduler()
        self.best = best
        self.now = 0.0
        self.tuned: list[DeviceTuned] = []
        self._running: list[tuple[float, int, WindowKey]] = []
        self._launches = 0
        self.send(NodeJoined(devices=devices))

    def send(self, event: Event) -> None:
        records, commands = self.scheduler.handle(event, Instant(monotonic=self.now, wall=self.now))
        self.tuned += [record for record in records if isinstance(record, DeviceTuned)]
        for command in commands:
            assert isinstance(command, Launch)
            self._launches += 1
            neighbours = len(self.scheduler.pool.devices[command.slot.device_id].allocations)
            ends_at = self.now + max(1.0, neighbours / self.best)
            heapq.heappush(self._running, (ends_at, self._launches, command.key))
            self.send(AttemptStarted(key=command.key, attempt=1, pid=self._launches))

    def work(self, windows: int, most: int) -> None:
        for _ in range(windows):
            self.end_one(most)
        self.scheduler.validate()

    def end_one(self, most: int) -> None:
        self.now, _, key = heapq.heappop(self._running)
        self.send(AttemptEnded(key=key, attempt=1, ending=RESULT))
        for state in self.scheduler.pool.devices.values():
            assert len(state.allocations) <= most


def windows(count: int, workers: int = 0) -> BatchSubmitted:
    return BatchSubmitted(batch=batch(workers=workers), windows=tuple(planned(f"S{n}") for n in range(count)))


def test_the_scheduler_finds_the_slots_of_each_device() -> None:
    machine = Machine(
        (msgspec.structs.replace(gpu(0, 8), tuned_from=2), msgspec.structs.replace(gpu(1, 8), tuned_from=2), gpu(2, 3)),
        4,
    )
    machine.send(windows(12_000))
    machine.work(9_000, 8)
    widths: Counter[tuple[int, ...]] = Counter()
    for _ in range(1_000):
        machine.end_one(8)
        widths[tuple(state.width for state in machine.scheduler.pool.devices.values())] += 1
    machine.scheduler.validate()  # once: it looks at all 12,000 windows
    first, second, third = widths.most_common(1)[0][0]
    assert 4 <= first <= 5
    assert 4 <= second <= 5
    assert third == 3, "what the configuration says is not tuned"
    assert {record.device_id for record in machine.tuned} == {"GPU-0", "GPU-1"}
    assert machine.tuned[0].reason == "3 slots: to see what that does"


def test_a_batch_that_does_not_fill_the_device_tunes_nothing() -> None:
    machine = Machine((msgspec.structs.replace(gpu(0, 8), tuned_from=4),), 8)
    machine.send(windows(500, workers=2))
    machine.work(400, 2)
    assert machine.tuned == []
