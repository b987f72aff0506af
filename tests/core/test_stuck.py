"""A window that was killed and does not die, and a launch that nobody was asked for."""

from __future__ import annotations

import pytest

from gpusched.core.events import (
    AttemptEnded,
    ChangeRequested,
    DeviceChanged,
    DeviceLost,
    DrainRequested,
    ProcessStuck,
    WindowMoved,
)
from gpusched.core.failures import MAX_LOSSES
from gpusched.core.model import Limits
from gpusched.core.states import Ending, Failure, Finished, Queued, Stopping
from tests.core.support import RESULT, Driver, batch, cpu, failure, gpu, key

A, B, C = key("A"), key("B"), key("C")
WHY = "does not die (state D in nfs_wait)"


def stuck(*devices: object) -> Driver:
    """A runs, was cancelled, and does not die; B and C wait."""
    driver = Driver(*devices).submit(batch(limits=Limits(backoff_s=0.0)), ["A", "B", "C"]).start(A)  # type: ignore[arg-type]
    driver.send(ChangeRequested(verb="cancel", batch_id="b", label=A.label)).wait(10)
    return driver.send(ProcessStuck(key=A, attempt=1, reason=WHY))


def test_it_keeps_its_slot_and_its_gpu_gets_no_other_window_until_it_is_gone() -> None:
    driver = stuck(gpu(0, capacity=2))
    moved, changed = driver.records
    assert isinstance(moved, WindowMoved)
    assert (moved.old, moved.new, moved.reason) == (driver.state(A), driver.state(A), WHY)
    assert isinstance(driver.state(A), Stopping)
    assert isinstance(changed, DeviceChanged)
    assert (changed.health, changed.reason) == ("suspect", f"{A} {WHY}")
    driver.end(B)
    assert driver.launched == [], "there is a free slot, and nothing is placed there"
    driver.end(A, ending=failure("killed"))
    assert isinstance(driver.state(A), Finished)
    assert driver.scheduler.pool.devices["GPU-0"].health == "open"
    assert driver.launched == ["C"]


def test_what_else_runs_there_goes_on() -> None:
    assert stuck(gpu(0, capacity=2)).terminated == []


def test_processors_are_not_to_blame() -> None:
    driver = stuck(cpu(2))
    assert len(driver.records) == 1
    driver.end(B)
    assert driver.launched == ["C"]


def test_a_device_that_was_closed_for_another_reason_stays_so() -> None:
    for event, health in (
        (DrainRequested(device_id="GPU-0"), "draining"),
        (DeviceLost(device_id="GPU-0", reason="lost"), "quarantined"),
    ):
        driver = stuck(gpu(0)).send(event)
        assert driver.scheduler.pool.devices["GPU-0"].health == health
        driver.send(ProcessStuck(key=A, attempt=1, reason=WHY))
        driver.end(A, ending=failure("killed"))
        assert driver.scheduler.pool.devices["GPU-0"].health == health


def test_it_is_open_again_when_the_last_of_them_is_gone() -> None:
    driver = Driver(gpu(0, capacity=2)).submit(batch(), ["A", "B", "C"]).start(A).start(B, pid=11)
    for window in (A, B):
        driver.send(ProcessStuck(key=window, attempt=1, reason=WHY))
    driver.end(A)
    assert driver.scheduler.pool.devices["GPU-0"].health == "suspect"
    driver.end(B)
    assert driver.launched == ["C"]


def test_one_that_is_gone_already_is_not_stuck() -> None:
    driver = Driver(gpu(0)).submit(batch(), ["A"]).start(A).end(A)
    assert driver.send(ProcessStuck(key=A, attempt=1, reason=WHY)).records == []


def test_one_of_which_no_start_was_told_is_none_to_blame_a_device_for() -> None:
    driver = Driver(gpu(0)).submit(batch(), ["A"])
    assert driver.send(ProcessStuck(key=A, attempt=1, reason=WHY)).records == []
    assert driver.scheduler.pool.devices["GPU-0"].health == "open"


def test_a_launch_that_was_never_made_is_no_loss() -> None:
    driver = Driver().submit(batch(), ["A"])
    for attempt in range(1, 2 * MAX_LOSSES):
        driver.wait(120.0)
        never = failure("interrupted", "stopped before it was launched")
        driver.send(AttemptEnded(key=A, attempt=attempt, ending=never, launched=False))
        assert driver.launched == ["A"]
    driver.end(A, attempt=2 * MAX_LOSSES, ending=failure("interrupted"))
    assert not isinstance(driver.state(A), Queued), "the first loss goes back at once"
    assert driver.launched == ["A"]


@pytest.mark.parametrize(("ending", "told"), [(RESULT, "trained"), (failure("exited", "it exited"), "it exited")])
def test_a_note_is_told_in_the_story_and_in_the_cause(ending: Ending, told: str) -> None:
    driver = Driver().submit(batch(limits=Limits(backoff_s=0.0)), ["A"]).start(A)
    driver.send(AttemptEnded(key=A, attempt=1, ending=ending, note="3.0 MiB of its log are left out"))
    moved = next(record for record in driver.records if isinstance(record, WindowMoved))
    assert moved.reason == f"{told}; 3.0 MiB of its log are left out"
    if isinstance(moved.ending, Failure):
        assert moved.ending.message == moved.reason
