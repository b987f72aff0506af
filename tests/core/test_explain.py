"""Why a window waits: the reasons are those that keep the scheduler from placing it."""

from __future__ import annotations

import pytest

from gpusched.core.estimates import Estimates
from gpusched.core.events import (
    ChangeRequested,
    DeviceLost,
    DeviceRead,
    DrainRequested,
    NodeJoined,
    NodeSilent,
    ShutdownRequested,
    SliceGranted,
)
from gpusched.core.model import CPU, Device, Instant, Limits, WindowKey
from gpusched.core.reasons import DeviceReason, Explanation, Hindrance
from gpusched.core.scheduler import Scheduler
from tests.core.support import GIB, RESULT, Driver, batch, cpu, failure, gpu, host, key, planned, reading

A, B, C = map(key, "ABC")
MIB = 1 << 20


def explained(made: Driver, where: WindowKey) -> Explanation:
    told = made.scheduler.explain(where, Instant(monotonic=made.at, wall=made.at + 1e9))
    assert told is not None
    return told


def hindrances(made: Driver, where: WindowKey) -> list[tuple[str, str]]:
    return [(one.kind, one.text) for one in explained(made, where).hindrances]


def devices(made: Driver, where: WindowKey) -> dict[str, str | None]:
    return {about.device_id: about.reason for about in explained(made, where).devices}


def test_a_window_from_its_slot_to_its_end() -> None:
    made = Driver(cpu(1)).submit(batch(), ["A", "B"])
    assert explained(made, A) == Explanation(
        status="starting", summary="attempt 1 is being launched on slot 0 of cpu", hindrances=(), devices=()
    )
    made.start(A, pid=77)
    assert explained(made, A).summary == "runs as process 77 on slot 0 of cpu, attempt 1"
    made.send(ChangeRequested(verb="cancel", batch_id="b", label=A.label))
    assert explained(made, A).summary == "is being stopped (cancelled) on slot 0 of cpu"
    made.end(A)
    assert explained(made, A) == Explanation(status="succeeded", summary="finished after 1 attempt")
    made.send(ChangeRequested(verb="cancel", batch_id="b", label=B.label))
    assert explained(made, B).status == "stopping"
    assert made.scheduler.explain(key("Z"), Instant(monotonic=0.0, wall=0.0)) is None
    assert made.scheduler.explain(key("A", "other"), Instant(monotonic=0.0, wall=0.0)) is None


def test_the_reason_of_an_end() -> None:
    made = Driver().submit(batch(), [planned("A", skip="too short")])
    assert explained(made, A).summary == "finished without an attempt: too short"
    made.submit(batch("c", limits=Limits(max_attempts=2, backoff_s=0.0)), ["A"])
    where = key("A", "c")
    made.end(where, 1, failure()).end(where, 2, failure())
    assert explained(made, where).summary == "finished after 2 attempts: raised: ValueError: no"


def test_each_device_has_its_reason() -> None:
    shy = Device(id="GPU-9", name="", lightgbm_type="gpu", capacity=1, auto=False)
    made = Driver(gpu(0), gpu(1, 2), gpu(2), gpu(3), shy, cpu(auto=False))
    made.send(DeviceLost(device_id="GPU-2", reason="it fell off the bus"))
    made.send(DrainRequested(device_id="GPU-3"))
    made.submit(batch(), ["A", "B", "C", "D"])
    assert explained(made, key("D")) == Explanation(
        status="queued",
        summary="waits for attempt 1",
        devices=(
            DeviceReason("GPU-0", "its slot is taken"),
            DeviceReason("GPU-1", "all 2 slots are taken"),
            DeviceReason("GPU-2", "quarantined: it fell off the bus"),
            DeviceReason("GPU-3", "draining: drained by request"),
            DeviceReason("GPU-9", "not offered to `auto`"),
            DeviceReason(CPU, "not offered to `auto`"),
        ),
    )
    made.submit(batch("c", device="cpu"), ["A", "B"])
    assert devices(made, key("B", "c"))["GPU-0"] == "the batch asks for 'cpu'"


def test_silent_and_trying_devices() -> None:
    made = Driver(cpu(auto=False)).send(NodeJoined(devices=(gpu(0),), trying=frozenset({"GPU-0"})))
    made.send(NodeJoined(host="n1", devices=(gpu(1, host="n1"),))).send(NodeSilent(host="n1", reason="no word for 3 s"))
    made.submit(batch(), ["A"])
    assert devices(made, A) == {
        "cpu": "not offered to `auto`",
        "GPU-0": "trying",
        "GPU-1": "silent: no word for 3 s",
    }


def test_memory() -> None:
    made = Driver(gpu(0, 3), gpu(1, 2, host="n1"), cpu(1, auto=False))
    estimates = Estimates()
    estimates.observe("w:train", "cuda", 100, 1.0, 6 * GIB, GIB)
    made.scheduler = Scheduler(estimates)
    made.send(NodeJoined(devices=(gpu(0, 3),))).send(NodeJoined(host="n1", devices=(gpu(1, 2, host="n1"),)))
    for number, free in ((0, 48 * GIB), (1, 8 * GIB)):
        made.send(DeviceRead(reading=reading(f"GPU-{number}", free=free, total=free)))
    made.send(host(3 * GIB // 2))
    made.submit(batch(), ["A", "B", "C"])
    assert made.launched == ["A", "B"]
    assert devices(made, C) == {
        "GPU-0": "memory of the host: 512 MiB free, 1024 MiB needed",
        "GPU-1": "2048 MiB free, 6144 MiB needed",
    }


def test_memory_that_a_window_needs_for_itself() -> None:
    made = Driver(gpu(0, 2)).send(DeviceRead(reading=reading(free=8 * GIB, total=8 * GIB)))
    made.submit(batch(limits=Limits(max_attempts=1)), ["A", "B"])
    made.end(A, 1, failure("device_memory")).end(A, 2, failure("device_memory")).wait(1.0)
    assert devices(made, A) == {"GPU-0": "the window needs all of it, and others are there"}
    made.end(B)
    assert made.launched == ["A"]
    made.submit(batch("c"), ["A"])
    assert devices(made, key("A", "c")) == {"GPU-0": "a window there needs all of it"}


def test_what_the_batch_and_the_daemon_have_against_it() -> None:
    made = Driver(cpu(4)).submit(batch(workers=2), ["A", "B", "C", "D"])
    assert hindrances(made, C) == [("workers", "its batch runs 2 at a time (`workers`), and as many run")]
    assert devices(made, C) == {"cpu": None}
    assert hindrances(made, key("D"))[1] == (
        "order", "1 window of its batch goes first, those with the most rows before others",
    )  # fmt: skip
    made.send(ChangeRequested(verb="hold", batch_id="b"))
    assert ("batch", "its batch is held: by request") in hindrances(made, C)
    made.send(ChangeRequested(verb="hold", batch_id="b", label=C.label))
    told = explained(made, C)
    assert (told.status, told.summary, told.devices) == ("held", "is held by request", ())
    assert told.hindrances[-1] == Hindrance("window", "the window is held by request")
    made.send(ShutdownRequested(mode="drain"))
    assert hindrances(made, key("D"))[0] == ("shutdown", "the daemon is stopping and starts nothing more")


def test_a_pause_after_a_failure() -> None:
    made = Driver(cpu(1)).submit(batch(limits=Limits(backoff_s=8.0)), ["A"])
    made.end(A, 1, failure()).wait(3.0)
    assert hindrances(made, A) == [("backoff", "after a failed attempt the next one is due in 5 s")]
    assert explained(made, A).summary == "waits for attempt 2"


def test_a_batch_that_is_being_cancelled() -> None:
    made = Driver(cpu(1))
    made.scheduler = Scheduler(slice_windows=1)
    made.send(NodeJoined(devices=(cpu(1),))).submit(batch(), ["A", "B", "C", "D"])
    made.send(ChangeRequested(verb="cancel", batch_id="b"))
    assert hindrances(made, key("D")) == [("cancelled", "its batch is being cancelled")]
    while made.scheduler.changing:
        made.send(SliceGranted())


@pytest.mark.parametrize(
    ("priority", "text"),
    [(0, "b0, b1, b2 and 1 more go first"), (5, "b0 (priority 5, here 0), b1 (priority 5, here 0), "
      "b2 (priority 5, here 0) and 1 more go first")],
)  # fmt: skip
def test_batches_whose_turn_comes_before(priority: int, text: str) -> None:
    made = Driver(cpu(1)).submit(batch(), ["A", "B", "C"])
    for number in range(4):
        made.submit(batch(f"b{number}", priority=priority), ["A", "B"])
    assert hindrances(made, B)[0] == ("turn", text)


def test_one_batch_whose_turn_comes_before() -> None:
    made = Driver(cpu(1)).submit(batch(), ["A", "B"]).submit(batch("c"), ["A"])
    assert hindrances(made, B)[0] == ("turn", "c goes first")


def test_a_device_that_is_kept_for_a_larger_window() -> None:
    made = Driver(gpu(0, 2))
    estimates = Estimates()
    estimates.observe("w:train", "cuda", 100, 1.0, GIB)
    estimates.observe("w:train", "cuda", 10_000, 1.0, 8 * GIB)
    made.scheduler = Scheduler(estimates)
    made.send(NodeJoined(devices=(gpu(0, 2),))).send(DeviceRead(reading=reading(free=8 * GIB, total=8 * GIB)))
    made.submit(batch(), [planned("A", 100)]).submit(batch("large", priority=1), [planned("A", 10_000)])
    made.submit(batch("late"), [planned("A", 100)])
    assert made.launched == []
    assert devices(made, key("A", "late")) == {
        "GPU-0": "kept free for a window of an earlier batch that needs more of it"
    }


OTHER_KIND = "the other kind of device is expected to have it done sooner, or has the memory for it"


def shared(cpu_s: float, cuda_s: float) -> Driver:
    """A GPU and a core, and the known seconds of a window on each."""
    estimates = Estimates()
    estimates.observe("w:train", "cpu", 100, cpu_s, None)
    estimates.observe("w:train", "cuda", 100, cuda_s, None)
    made = Driver()
    made.scheduler = Scheduler(estimates)
    return made.send(NodeJoined(devices=(gpu(0), cpu(1))))


def test_the_device_that_is_faster() -> None:
    made = shared(cpu_s=100.0, cuda_s=1.0).submit(batch(device="mixed"), ["A", "B", "C"])
    assert made.launched == ["A"]
    assert devices(made, B) == {"GPU-0": "its slot is taken", "cpu": OTHER_KIND}
    made.end(A, ending=RESULT)


def test_the_device_for_which_a_window_waits_while_nothing_is_started() -> None:
    made = shared(cpu_s=1.0, cuda_s=100.0).send(ShutdownRequested(mode="drain"))
    made.submit(batch(device="mixed"), ["A"])
    assert devices(made, A) == {"GPU-0": OTHER_KIND, "cpu": None}


def test_a_batch_at_its_limit_goes_before_nobody() -> None:
    made = Driver(cpu(1)).submit(batch(workers=1, priority=1), ["A", "B"]).submit(batch("c"), ["A"])
    assert hindrances(made, key("A", "c")) == []
    assert made.scheduler.running_batches() == ("b",)


def test_a_batch_whose_last_waiting_window_is_cancelled_goes_before_nobody() -> None:
    made = Driver(cpu(1)).submit(batch(), ["A", "B"]).submit(batch("c"), ["A"])
    assert hindrances(made, key("A", "c")) == []
    made.submit(batch("first", priority=1), ["A"])
    assert hindrances(made, key("A", "c")) == [("turn", "first (priority 1, here 0) goes first")]
    made.send(ChangeRequested(verb="cancel", batch_id="first", label=A.label))
    made.send(ChangeRequested(verb="cancel", batch_id="b", label=B.label))
    assert hindrances(made, key("A", "c")) == []
