"""CPU and GPU slots together: each window goes where it is expected to end first."""

from __future__ import annotations

import heapq

import msgspec
import pytest

from benchmarks.makespan import mixed
from gpusched.core.commands import Launch
from gpusched.core.estimates import Estimates
from gpusched.core.events import ChangeRequested, DeviceLost, NodeJoined
from gpusched.core.model import Device, Slot
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Starting
from tests.core.support import Driver, batch, cpu, failure, gpu, key, planned

#: rows of a window that a core trains faster than the GPU, of one that it trains a little slower, and of a large one
SMALL, MEDIUM, LARGE = 10, 2_000, 16_000


def learned() -> Estimates:
    estimates = Estimates()
    for rows, on_cpu, on_gpu in ((SMALL, 0.1, 1.0), (MEDIUM, 3.0, 2.0), (LARGE, 30.0, 4.0)):
        estimates.observe("w:train", "cpu", rows, on_cpu, None)
        estimates.observe("w:train", "cuda", rows, on_gpu, None)
    return estimates


def driver(*devices: Device, estimates: Estimates | None = None) -> Driver:
    made = Driver(*devices)
    made.scheduler = Scheduler(learned() if estimates is None else estimates)
    return made.send(NodeJoined(devices=devices))


def placed(made: Driver) -> list[str]:
    """The launches of the last event, as `window on device`."""
    launches = [command for command in made.commands if isinstance(command, Launch)]
    return [f"{launch.key.label.partition('_')[0]} on {launch.slot.device_id}" for launch in launches]


def test_seconds_that_were_asked_for_count_for_each_device() -> None:
    """Equal ones everywhere: the window takes the GPU, which is free."""
    plan = planned("A", SMALL)
    plan = msgspec.structs.replace(plan, window=msgspec.structs.replace(plan.window, expected_seconds=9.0))
    made = driver(cpu(1), gpu(0)).submit(batch(device="mixed"), [plan])
    assert placed(made) == ["A on GPU-0"]


def test_a_window_goes_to_the_faster_one_of_two_that_are_free() -> None:
    assert placed(driver(gpu(), cpu()).submit(batch(), [planned("S", SMALL)])) == ["S on cpu"]
    assert placed(driver(gpu(), cpu()).submit(batch(), [planned("L", LARGE)])) == ["L on GPU-0"]


def test_what_the_gpu_will_have_done_sooner_waits_for_it() -> None:
    made = driver(gpu(), cpu()).submit(batch(), [planned("L1", LARGE), planned("L2", LARGE)])
    assert placed(made) == ["L1 on GPU-0"]
    made.start(key("L1")).wait(1.0)
    assert placed(made) == []
    assert placed(made.end(key("L1"))) == ["L2 on GPU-0"]


def test_what_the_gpu_would_get_to_too_late_goes_to_the_processors() -> None:
    made = driver(gpu(), cpu()).submit(batch(), [planned("L", LARGE), planned("M", MEDIUM)])
    # 4 s for L and 2 s for M on the GPU, 3 s for M on a core
    assert placed(made) == ["L on GPU-0", "M on cpu"]


def test_the_processors_begin_with_the_shortest() -> None:
    windows = [planned(f"L{number}", LARGE) for number in range(3)] + [planned("S", SMALL), planned("M", MEDIUM)]
    made = driver(gpu(), cpu(2)).submit(batch(), windows)
    assert placed(made) == ["L0 on GPU-0", "S on cpu", "M on cpu"]
    # the last large ones are the GPU's: 30 s on a core would take longer than all the rest
    assert placed(made.end(key("S")).end(key("M"))) == []
    assert placed(made.end(key("L0"))) == ["L1 on GPU-0"]


def test_a_mixed_batch_is_sorted_as_its_windows_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting 100,000 windows from the other end at the first placement was a long turn."""
    monkeypatch.delattr(heapq, "heapify")
    windows = [planned("L", LARGE), planned("M", MEDIUM), planned("S", SMALL)]
    made = driver(gpu(), cpu()).submit(batch(device="mixed"), windows)
    assert placed(made) == ["L on GPU-0", "M on cpu"]
    made.end(key("L"), ending=failure("bad_data")).end(key("M"), ending=failure("bad_data"))
    made.send(ChangeRequested(verb="cancel", batch_id="b")).end(key("S"))
    assert len(placed(made.send(ChangeRequested(verb="retry", batch_id="b")))) == 2


def test_nothing_is_known_at_first_and_the_shortest_teaches_it() -> None:
    windows = [planned("L", LARGE), planned("M", MEDIUM), planned("S", SMALL)]
    assert placed(driver(gpu(), cpu(), estimates=Estimates()).submit(batch(), windows)) == ["L on GPU-0", "S on cpu"]


def test_when_the_last_gpu_is_lost_the_processors_do_the_rest() -> None:
    made = driver(gpu(), cpu()).submit(batch(), [planned("L1", LARGE), planned("L2", LARGE)])
    assert placed(made.send(DeviceLost(device_id="GPU-0", reason="lost"))) == ["L2 on cpu"]
    assert made.held("b") is None


def test_a_batch_that_names_its_device_type_does_not_share() -> None:
    made = driver(gpu(), cpu(2)).submit(batch(device="cpu"), [planned("L", LARGE), planned("S", SMALL)])
    assert placed(made) == ["L on cpu", "S on cpu"]
    made = driver(gpu(), cpu(2, auto=False)).submit(batch(), [planned("L", LARGE), planned("S", SMALL)])
    assert placed(made) == ["L on GPU-0"]


def test_a_window_taken_from_the_end_is_not_placed_twice() -> None:
    made = driver(gpu(), cpu()).submit(batch(), [planned("L", LARGE), planned("S", SMALL)])
    made.end(key("L"))
    assert placed(made) == []
    assert made.state(key("S")) == Starting(attempt=1, slot=Slot(1, "cpu"))
    made.end(key("S"))
    assert made.scheduler.unfinished == 0


@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_together_they_are_faster_than_the_gpus_alone_and_than_first_come_first_served(gpus: int) -> None:
    for seed in range(5):
        found = mixed(seed, gpus=gpus)
        assert found.gpusched < found.any_slot < found.gpus_alone
        print(f"{gpus} GPUs, 4 cores, seed {seed}: {found}")
