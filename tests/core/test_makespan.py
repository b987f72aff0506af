"""When the last window of a batch ends, in simulation through the real scheduler: near the lower bound."""

from __future__ import annotations

import pytest

from benchmarks.makespan import BUDGET, DEVICES, SHAPES, SPREAD, WINDOWS, compare, durations, next_free


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_within_the_budget_of_the_lower_bound_and_no_worse_than_a_plain_script(shape: str, devices: int) -> None:
    for seed in range(5):
        seconds = durations(shape, seed)
        assert len(seconds) == WINDOWS
        assert max(seconds) / min(seconds) == pytest.approx(SPREAD, rel=0.3)
        found = compare(seconds, devices, slots=1, seed=seed)
        assert 1.0 <= found.gpusched <= BUDGET
        # two devices and 252 windows leave little to be won: then a lucky order may be as good
        assert found.gpusched <= min(found.fifo, found.round_robin) + 0.002
        if (shape, devices) == ("shuffled", 8):
            assert found.gpusched < found.fifo < found.round_robin
        print(f"{shape}, {devices} devices, seed {seed}: {found}")


def test_with_several_slots_a_device() -> None:
    found = compare(durations("shortest first", 0), devices=8, slots=4)
    assert found.gpusched <= BUDGET < found.fifo


def test_the_contenders_do_what_they_are_named_for() -> None:
    assert next_free([3, 1, 1, 1], 2) == 3
    # round robin gives the windows of 3 s to one device, whatever the other does
    found = compare([3, 1, 3, 1, 3, 1], devices=2, slots=1)
    assert found.round_robin == 9 / 6
    assert found.fifo == 7 / 6
    assert found.gpusched == 1.0
