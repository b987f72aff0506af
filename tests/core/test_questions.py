"""Questions that others put to the core: totals, reasons, plans, and the scheduler's answers about its batches."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from gpusched.core import planning
from gpusched.core.events import (
    AttemptEnded,
    BatchAltered,
    ChangeRequested,
    DeviceRead,
    ResultsChecked,
    ShutdownRequested,
    WindowsAdded,
    WindowsArrived,
)
from gpusched.core.failures import missed, trained
from gpusched.core.fastest import load
from gpusched.core.memory import Memory, Need
from gpusched.core.model import Choice, DeviceChoice, Instant, Slot
from gpusched.core.placement import types_for
from gpusched.core.planning import Plan
from gpusched.core.queue import BatchQueue, Entry, order_of
from gpusched.core.states import (
    Cancelled,
    Failed,
    Finished,
    Lost,
    Outcome,
    Queued,
    Reused,
    Running,
    Skipped,
    Succeeded,
    TimedOut,
    Usage,
)
from gpusched.core.statuses import reason_of, totals
from gpusched.core.totals import batch_object, device_object
from tests.core.support import GIB, RESULT, Driver, batch, cpu, failure, gpu, host, key, label, planned, reading

SIZES = (("A", 200), ("B", 100))
INSTANT = Instant(monotonic=1.0, wall=1.0)


def test_what_timed_out_or_was_lost_has_failed() -> None:
    counts = {"succeeded": 3, "reused": 2, "failed": 1, "timed_out": 1, "lost": 1, "running": 4}
    told = totals(counts)
    assert told == {"total": 12, "succeeded": 3, "reused": 2, "skipped": 0, "failed": 3, "cancelled": 0}
    assert batch_object("b", "/out", told, 2.0)["windows_per_second"] == 4.0
    assert batch_object("b", "/out", told, 0.0)["windows_per_second"] == 0.0


def test_a_choice_is_told_beside_its_device() -> None:
    assert device_object("cpu", None) == {"device": "cpu", "device_choice": None}
    told = device_object("auto", Choice(device="cpu", reason="CPU: 4 s on 16 cores"))
    assert told["device"] == "auto"
    assert told["device_choice"]["reason"] == "CPU: 4 s on 16 cores"


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Skipped(reason="no data"), "no data"),
        (Failed(failure=failure("crashed", "SIGSEGV")), "crashed: SIGSEGV"),
        (Lost(failure=failure("missing", "gone")), "missing: gone"),
        (TimedOut(seconds=3.0), "stopped after 3 s"),
        (Cancelled(), None),
        (Succeeded(result=RESULT), None),
    ],
)
def test_the_reason_of_an_outcome(outcome: Outcome, reason: str | None) -> None:
    assert reason_of(outcome) == reason


def test_a_success_tells_what_it_moved_aside() -> None:
    assert trained(RESULT) == "trained"
    assert "moved aside to W.not-a-result" in trained(msgspec.structs.replace(RESULT, moved_aside="W.not-a-result"))
    both = trained(msgspec.structs.replace(RESULT, changed=True, moved_aside="W.not-a-result"))
    assert both.startswith("trained; its code or data had changed since the batch was planned; its place was taken")


def test_only_a_result_can_be_missed() -> None:
    finished = missed(Finished(attempts=2, outcome=Reused(result=RESULT)))
    assert finished is not None
    assert finished.attempts == 2
    assert isinstance(finished.outcome, Lost)
    assert missed(Finished(attempts=1, outcome=Cancelled())) is None
    assert missed(Queued()) is None


def test_a_plan_by_what_becomes_of_its_windows() -> None:
    stranger, result = (
        msgspec.structs.replace(planned(symbol), replaces=kind) for symbol, kind in (("A", "stranger"), ("B", "result"))
    )
    skip, fail, reuse = planned("C", skip="no data"), planned("D", refusal="x.csv:1: no"), planned("E", committed=True)
    result = msgspec.structs.replace(result, replaces_others=True)
    plan = Plan(windows=(stranger, result, skip, fail, reuse))
    assert (plan.to_train, plan.to_skip) == ((stranger, result), (skip,))
    assert (plan.to_fail, plan.to_reuse) == ((fail,), (reuse,))
    assert (plan.to_move_aside, plan.to_replace, plan.to_replace_others) == (1, 1, 1)
    assert [planning.reason_of_plan(window) for window in plan.windows] == ["", "", "no data", "x.csv:1: no", ""]
    assert [type(planning.planned_outcome(w)) for w in plan.windows] == [type(None)] * 2 + [Skipped, Failed, Reused]


def test_replacing_is_told_in_numbers() -> None:
    assert planning.replacing(0, 0) == []
    assert planning.replacing(1, 1) == [
        "1 result of other parameters, data or versions will be replaced",
        "1 thing that is not a result will be moved aside",
    ]
    assert planning.replacing(2, 3)[1] == "3 things that are not results will be moved aside"


def test_windows_without_rows_have_a_typical_one() -> None:
    assert load((planned("A", rows=0),)).typical == planned("A", rows=0)


def test_a_reading_that_is_too_old_vetoes_nothing() -> None:
    memory = Memory(0)
    memory.promise(0, Need(GIB))
    memory.observe(4 * GIB, GIB, {0: 2 * GIB})
    assert not memory.room_for(Need(3 * GIB))
    memory.forget_reading()
    assert memory.room_for(Need(3 * GIB))
    assert memory.reserved_bytes == GIB


def test_a_window_that_is_no_longer_ready_is_not_the_shortest() -> None:
    queue = BatchQueue(batch())
    assert queue.peek_shortest(INSTANT) is None
    first, last = (
        Entry(key(symbol), planned(symbol, rows), order_of(planned(symbol, rows), number), Queued())
        for number, (symbol, rows) in enumerate(SIZES)
    )
    for entry in (first, last):
        queue.add(entry)
    last.state = Running(attempt=1, slot=Slot(0, "cpu"), pid=1, started_at=0.0)
    assert queue.peek_shortest(INSTANT) is first


def test_a_batch_that_is_altered_is_named_by_its_id() -> None:
    assert BatchAltered(batch=batch("x"), changes=("priority 1",), at=0.0).batch_id == "x"


# -- the scheduler -----------------------------------------------------------------------------------------------------


def test_what_the_scheduler_knows_of_its_batches() -> None:
    driver = Driver(cpu(1)).submit(batch(), ["A", "B"])
    scheduler = driver.scheduler
    assert (scheduler.at_work, scheduler.is_at_work("b"), scheduler.is_at_work("x")) == (True, True, False)
    assert (scheduler.active, scheduler.unfinished, scheduler.size("b"), scheduler.size("x")) == (1, 2, 2, 0)
    assert (scheduler.changing, scheduler.is_changing("b")) == (False, False)
    assert scheduler.batches() == scheduler.open_batches() == (batch(),)
    assert scheduler.held("b") is None
    assert [window.window.symbol for window, _ in scheduler.states("b")] == ["A", "B"]
    scheduler.forget("b")  # it is at work
    assert scheduler.size("b") == 2
    for symbol in ("A", "B"):
        driver.start(key(symbol)).end(key(symbol))
    assert not scheduler.at_work
    scheduler.forget("b")
    assert scheduler.batches() == ()


@pytest.mark.parametrize("drained", [False, True])
def test_a_draining_scheduler_stops_nothing_and_starts_nothing(drained: bool) -> None:
    driver = Driver(cpu(1)).submit(batch(), ["A", "B"]).start(key("A"))
    driver.send(ShutdownRequested(mode="drain" if drained else "stop"))
    assert bool(driver.commands) is not drained
    driver.end(key("A"))
    assert not any(type(command).__name__ == "Launch" for command in driver.commands)


@pytest.mark.parametrize(
    ("starve", "says"),
    [
        (lambda driver: driver.send(host(free=0)), "the host has 0 MiB free"),
        (lambda driver: driver.send(DeviceRead(reading=reading(free=0, total=4 * GIB))), "GPU-0 has 0 MiB free"),
        (lambda driver: driver.send(DeviceRead(reading=reading(free=4 * GIB, total=4 * GIB))), None),
    ],
    ids=["host", "device", "none"],
)
def test_a_starved_pool_says_whose_memory_is_used(starve: Callable[[Driver], object], says: str | None) -> None:
    driver = Driver(gpu())
    starve(driver)
    driver.submit(batch(), ["A"])
    assert driver.scheduler.starved() == says


def test_a_held_batch_does_not_starve() -> None:
    driver = Driver(gpu()).send(DeviceRead(reading=reading(free=0, total=4 * GIB))).submit(batch(), ["A"])
    driver.send(ChangeRequested(verb="hold", batch_id="b", label=None))
    assert driver.scheduler.starved() is None


def test_a_window_without_a_result_cannot_be_missing_one() -> None:
    driver = Driver(cpu(1))
    driver.missing = (label("A"), label("B"))
    driver.submit(batch(), ["A", planned("B", skip="no data")])
    driver.start(key("A")).end(key("A"))
    outcomes = [type(state.outcome) for _, state in driver.scheduler.states("b") if isinstance(state, Finished)]
    assert outcomes == [Lost, Skipped]


def test_an_answer_about_results_that_comes_too_late_changes_nothing() -> None:
    driver = Driver(cpu(1)).submit(batch(), ["A"])
    driver.send(ResultsChecked(batch_id="b", check=7, missing=(label("A"),)))
    assert driver.records == []


def test_memory_that_the_driver_counted_is_not_replaced_by_a_reading() -> None:
    driver = Driver(gpu()).submit(batch(), ["A"]).start(key("A"))
    driver.send(AttemptEnded(key=key("A"), attempt=1, ending=RESULT, usage=Usage(device_memory_bytes=GIB)))
    (moved,) = [record for record in driver.records if type(record).__name__ == "WindowMoved"]
    assert moved.usage.device_memory_bytes == GIB  # type: ignore[union-attr]  # a WindowMoved


def test_a_large_batch_arrives_in_slices_and_is_there_with_the_last() -> None:
    driver = Driver(cpu(1))
    driver.send(WindowsArrived(batch=batch(), windows=(planned("A"),)))
    assert [type(record) for record in driver.records] == [WindowsAdded]
    assert driver.scheduler.batches() == ()
    driver.submit(batch(), ["B"])
    assert driver.scheduler.size("b") == 2
    assert driver.launched == ["A"]


def test_only_a_window_that_nobody_stopped_is_blamed() -> None:
    driver = Driver(cpu(1)).submit(batch(), ["A"]).start(key("A"))
    assert isinstance(driver.scheduler.state(key("A")), Running)
    assert driver.scheduler.blames(key("A"), failure("raised"))
    assert not driver.scheduler.blames(key("A"), failure("device_lost"))
    driver.send(ShutdownRequested(mode="stop"))
    assert not driver.scheduler.blames(key("A"), failure("raised"))


def test_a_pool_is_full_only_for_those_whom_it_suits() -> None:
    pool = Driver(gpu()).send(DeviceRead(reading=reading(free=0, total=GIB))).scheduler.pool
    assert pool.offers.full("auto") == "GPU-0 has 0 MiB free"
    assert pool.offers.full("cpu") is None
    assert Driver(gpu()).scheduler.pool.offers.full("auto") is None


@pytest.mark.parametrize(("wanted", "types"), [("mixed", ("cpu", "gpu", "cuda")), ("gpu", ("gpu",))])
def test_device_types_that_a_batch_may_be_trained_with(wanted: DeviceChoice, types: tuple[str, ...]) -> None:
    assert types_for(wanted) == types
