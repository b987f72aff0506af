"""An event costs the same however many windows wait, and a request for a whole batch no more than its windows."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator

import pytest

from gpusched.core.events import AttemptEnded, AttemptStarted, BatchSubmitted, CancelRequested, DevicesFound, Launch
from gpusched.core.model import Instant
from gpusched.core.scheduler import Scheduler
from tests.core.support import RESULT, batch, gpu, planned

FEW, MANY = 1_000, 100_000


@pytest.fixture(autouse=True)
def _no_collections() -> Iterator[None]:
    """A garbage collection looks at all windows, and would be measured in place of the event that it falls on."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def full(count: int) -> tuple[Scheduler, list[Launch]]:
    """A scheduler of eight busy slots and `count` windows that wait."""
    scheduler, now = Scheduler(), Instant(monotonic=0.0, wall=0.0)
    scheduler.handle(DevicesFound(devices=tuple(gpu(n) for n in range(8))), now)
    windows = tuple(planned(f"W{n}", n % 3000) for n in range(count + 8))
    _, commands = scheduler.handle(BatchSubmitted(batch=batch(), windows=windows), now)
    return scheduler, [command for command in commands if isinstance(command, Launch)]


def seconds_per_event(count: int) -> float:
    """Median over starts and ends, each end placing the next window."""
    scheduler, launches = full(count)
    taken = []
    for number in range(400):
        launch, at = launches.pop(0), float(number)
        for event in (
            AttemptStarted(key=launch.key, attempt=launch.attempt, pid=1),
            AttemptEnded(key=launch.key, attempt=launch.attempt, ending=RESULT),
        ):
            begun = time.perf_counter()
            _, commands = scheduler.handle(event, Instant(monotonic=at, wall=at))
            _ = scheduler.deadline
            taken.append(time.perf_counter() - begun)
            launches += [command for command in commands if isinstance(command, Launch)]
    assert scheduler.unfinished == count + 8 - 400
    return statistics.median(taken)


def test_an_event_costs_the_same_however_many_wait() -> None:
    # Another process may take the core away in one run; hardly in each of three.
    assert any(seconds_per_event(MANY) <= 3 * seconds_per_event(FEW) for _ in range(3))


def cancel(count: int) -> float:
    """Seconds per window."""
    scheduler, launches = full(count)
    begun = time.perf_counter()
    records, _ = scheduler.handle(CancelRequested(batch_id="b"), Instant(monotonic=1.0, wall=1.0))
    taken = time.perf_counter() - begun
    assert len(records) == count + 8
    assert scheduler.unfinished == len(launches) == 8
    return taken / count


def test_cancelling_a_batch_is_linear() -> None:
    assert any(cancel(MANY // 4) <= 4 * cancel(FEW) for _ in range(3))
