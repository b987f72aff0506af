"""An event costs the same however many windows wait, and a request for a whole batch no more than its windows."""

from __future__ import annotations

import time

from benchmarks.event_cost import SLOTS, full, no_collections, of_scheduler
from gpusched.core.changes import SLICE_WINDOWS
from gpusched.core.events import ChangeRequested, SliceGranted, WindowMoved
from gpusched.core.model import Instant

FEW, MANY = 1_000, 100_000


def test_an_event_costs_the_same_however_many_wait() -> None:
    # Another process may take the core away in one run; hardly in each of three.
    assert any(of_scheduler(MANY) <= 3 * of_scheduler(FEW) for _ in range(3))


def cancel(count: int) -> float:
    """Seconds of processor time per window."""
    with no_collections():
        scheduler, launches = full(count)
        begun = time.thread_time()
        now = Instant(monotonic=1.0, wall=1.0)
        records, _ = scheduler.handle(ChangeRequested(verb="cancel", batch_id="b"), now)
        while scheduler.changing:
            more, _ = scheduler.handle(SliceGranted(), now)
            assert len(more) <= SLICE_WINDOWS + 1
            records += more
        taken = time.thread_time() - begun
    assert sum(isinstance(record, WindowMoved) for record in records) == count + SLOTS
    assert scheduler.unfinished == len(launches) == SLOTS
    return taken / count


def test_cancelling_a_batch_is_linear() -> None:
    assert any(cancel(MANY // 4) <= 4 * cancel(FEW) for _ in range(3))
