"""Devices come and go while windows run: trials, joins, and losses."""

from __future__ import annotations

import pytest

from gpusched.core.events import (
    BatchHeld,
    BatchReleased,
    DeviceChanged,
    DeviceVanished,
    DrainRequested,
    NodeJoined,
    ResumeRequested,
    TrialBegan,
    TrialEnded,
)
from gpusched.core.model import Device, DeviceChoice, Limits, Slot
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Failure, Finished, Queued, Running, Stopping
from tests.core.support import Driver, batch, cpu, gpu, key, planned

OPENCL = Device(id="GPU-0", name="a card", lightgbm_type="gpu", capacity=2)


def trying(*devices: Device) -> Driver:
    """The GPUs among the devices are being tried."""
    made = Driver()
    made.scheduler = Scheduler()
    ids = frozenset(device.id for device in devices if device.id != "cpu")
    return made.send(NodeJoined(devices=devices, trying=ids))


def changes(made: Driver) -> list[tuple[str, str, str]]:
    return [(r.device_id, r.health, r.reason) for r in made.records if isinstance(r, DeviceChanged)]


def test_nothing_is_placed_on_a_device_that_is_being_tried() -> None:
    made = trying(gpu(0), cpu()).submit(batch(device="cuda"), ["A"])
    assert made.launched == []
    assert made.held("b") is None
    made.send(TrialEnded(device=gpu(0)))
    assert made.launched == ["A"]
    assert changes(made) == [("GPU-0", "open", "")]


@pytest.mark.parametrize("wanted", ["cuda", "gpu"])
def test_a_batch_waits_for_the_trial_whatever_device_type_is_presumed(wanted: DeviceChoice) -> None:
    made = trying(OPENCL).submit(batch(device=wanted), ["A"])
    assert made.held("b") is None


def test_a_batch_that_no_device_is_left_for_is_held_until_a_later_trial() -> None:
    made = trying(gpu(0), cpu()).submit(batch(device="cuda"), ["A"])
    made.send(TrialEnded(device=gpu(0), why="cuda does not work (out of memory)"))
    assert [type(record) for record in made.records] == [DeviceChanged, BatchHeld]
    assert "GPU-0: cuda does not work (out of memory)" in (made.held("b") or "")
    made.send(TrialBegan(device=gpu(0)))
    assert changes(made) == [("GPU-0", "trying", "")]
    made.send(TrialEnded(device=gpu(0)))
    assert any(isinstance(record, BatchReleased) for record in made.records)
    assert made.launched == ["A"]


def test_a_trial_that_began_does_not_begin_again() -> None:
    made = trying(gpu(0)).send(TrialBegan(device=gpu(0)))
    assert changes(made) == []
    made.send(TrialEnded(device=gpu(0)))
    assert changes(made) == [("GPU-0", "open", "")]


def test_a_trial_finds_out_the_device_type() -> None:
    made = trying(gpu(0)).send(TrialEnded(device=OPENCL))
    assert made.scheduler.pool.devices["GPU-0"].device.lightgbm_type == "gpu"
    assert made.scheduler.pool.devices["GPU-0"].device.capacity == 1


def test_a_device_appears_and_takes_windows() -> None:
    made = Driver(gpu(0)).submit(batch(), ["A", "B"])
    assert made.launched == ["A"]
    made.send(TrialBegan(device=gpu(1)))
    assert made.launched == []
    assert made.send(TrialEnded(device=gpu(1))).launched == ["B"]


def test_one_that_could_not_be_tried_is_not_opened_by_resume() -> None:
    made = trying(gpu(0)).send(TrialEnded(device=gpu(0), why="no")).send(ResumeRequested(device_id="GPU-0"))
    assert made.records == []
    assert made.scheduler.pool.devices["GPU-0"].health == "quarantined"


def test_one_that_was_drained_meanwhile_stays_so() -> None:
    made = trying(gpu(0)).send(DrainRequested(device_id="GPU-0")).send(TrialEnded(device=gpu(0)))
    assert made.scheduler.pool.devices["GPU-0"].health == "draining"
    assert changes(made.send(ResumeRequested(device_id="GPU-0"))) == [("GPU-0", "open", "")]


def test_windows_of_a_vanished_device_go_elsewhere_and_lose_no_attempt() -> None:
    once = Limits(max_attempts=1, backoff_s=0.0)
    made = Driver(gpu(0, 2), gpu(1)).submit(batch(limits=once), ["A", "B", "C"])
    for name in "AC":  # GPU-0 has two of the three
        made.start(key(name))
    made.send(DeviceVanished(device_id="GPU-0", reason="it is not there any more"))
    assert changes(made) == [("GPU-0", "gone", "it is not there any more")]
    moved = [name for name in "ABC" if isinstance(made.state(key(name)), Stopping)]
    assert len(moved) == 2
    assert "GPU-0" in made.scheduler.pool.devices  # until the last has left
    interrupted = Failure(kind="killed", message="killed by signal 15")
    for name in moved:
        made.start(key(name)).end(key(name), ending=interrupted)
    assert "GPU-0" not in made.scheduler.pool.devices
    assert list(made.scheduler.pool.slots.values()) == [Slot(2, "GPU-1")]
    states = [made.state(key(name)) for name in moved]
    assert all(isinstance(state, Queued) and state.attempt == 2 for state in states)


def test_what_comes_back_gets_the_free_indexes() -> None:
    made = Driver(gpu(0, 2), gpu(1, 2)).send(DeviceVanished(device_id="GPU-0", reason=""))
    made.send(TrialBegan(device=gpu(2, 3))).send(TrialEnded(device=gpu(2, 3)))
    assert sorted(made.scheduler.pool.slots) == [0, 1, 2, 3, 4]
    assert [slot.index for slot in made.scheduler.pool.devices["GPU-2"].slots] == [0, 1, 4]


def test_one_that_vanishes_twice_or_while_it_is_unknown_changes_nothing() -> None:
    made = Driver(gpu(0)).send(DeviceVanished(device_id="GPU-9", reason="")).send(TrialEnded(device=gpu(7)))
    assert made.records == []
    made.submit(batch(), ["A"]).send(DeviceVanished(device_id="GPU-0", reason="once"))
    assert made.send(DeviceVanished(device_id="GPU-0", reason="twice")).records == []


def test_one_may_be_back_before_its_last_window_has_left() -> None:
    made = Driver(gpu(0)).submit(batch(), ["A", "B"]).start(key("A"))
    made.send(DeviceVanished(device_id="GPU-0", reason="reset"))
    made.send(TrialBegan(device=gpu(0))).send(TrialEnded(device=gpu(0)))
    assert made.launched == []
    assert made.end(key("A"), ending=Failure(kind="killed", message="")).launched == ["A"]
    assert list(made.scheduler.pool.slots) == [0]


def test_a_batch_whose_only_device_vanishes_is_held_and_goes_on_when_another_joins() -> None:
    made = Driver(gpu(0), cpu(auto=False)).submit(batch(device="cuda"), ["A", "B"])
    made.start(key("A")).send(DeviceVanished(device_id="GPU-0", reason="gone"))
    made.end(key("A"), ending=Failure(kind="killed", message=""))
    assert made.held("b") is not None
    made.send(TrialBegan(device=gpu(3))).send(TrialEnded(device=gpu(3)))
    assert made.held("b") is None
    assert made.launched == ["A"] or made.launched == ["B"]


def test_mixed_uses_every_device_whether_it_is_offered_or_not() -> None:
    made = Driver(gpu(0), cpu(auto=False)).submit(batch(device="mixed"), [planned("A", 100), planned("B", 10)])
    assert sorted(made.launched) == ["A", "B"]
    made.start(key("A")).start(key("B"))
    assert {s.slot.device_id for n in "AB" if isinstance(s := made.state(key(n)), Running)} == {"cpu", "GPU-0"}
    assert not isinstance(made.state(key("A")), Finished)
