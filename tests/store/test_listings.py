"""Listings and counts of the store."""

from __future__ import annotations

import msgspec

from gpusched.core.events import (
    BatchAccepted,
)
from gpusched.core.model import Slot, Training
from gpusched.core.states import (
    Cancelled,
    Failed,
    Failure,
    Finished,
    Held,
    Queued,
    Reused,
    Running,
    Skipped,
    Starting,
    State,
)
from gpusched.store.rows import MAX_TEXT_BYTES
from gpusched.store.store import Store
from tests.store.samples import FAILURE, RESULT, SLOT, USAGE, accepted, batch, key, moved, plan, run


def test_counts_by_status(store: Store) -> None:
    skipped = Finished(attempts=0, outcome=Skipped(reason="6 rows"))
    reused = Finished(attempts=0, outcome=Reused(result=RESULT))
    first: list[State] = [Queued(), skipped, Held(), reused, Queued(), skipped]
    windows = tuple((plan(number), state) for number, state in enumerate(first))
    store.record([BatchAccepted(batch=batch(), windows=windows, at=1.0)])
    assert store.batches()[0].counts == {"queued": 2, "skipped": 2, "held": 1, "reused": 1}
    store.record(run(key(0))[:1])
    assert store.batches()[0].counts == {"queued": 1, "starting": 1, "skipped": 2, "held": 1, "reused": 1}
    store.record(run(key(0))[1:])
    store.record(run(key(4))[:2])
    assert store.batches()[0].counts == {"running": 1, "succeeded": 1, "skipped": 2, "held": 1, "reused": 1}


def test_lists_windows(store: Store) -> None:
    count = 2500  # more than two pages
    store.record([accepted("a", 5), accepted("b", count), accepted("c", 5)])
    for number in (7, 3, 2400):
        store.record(run(key(number))[:2])
    assert [row.key for row in store.windows("b")] == [key(number) for number in range(count)]
    assert [row.key for row in store.windows("b", status="running")] == [key(3), key(7), key(2400)]
    assert len(list(store.windows("b", status="queued"))) == count - 3
    assert list(store.windows("b", status="failed")) == []


def test_a_listing_survives_what_happens_meanwhile(store: Store) -> None:
    store.record([accepted("b", 2500)])
    listing = store.windows("b")
    first = next(listing)
    store.record(run(key(1)))
    store.record(run(key(2000)))
    rows = [first, *listing]
    assert len(rows) == 2500
    assert rows[2000].status == "succeeded"


def test_the_remedy_of_the_plan_is_for_those_that_were_not_run(store: Store) -> None:
    told = msgspec.structs.replace(plan(0), remedy="complete its files")
    waits = msgspec.structs.replace(plan(1), remedy="complete its files")
    skipped = Finished(attempts=0, outcome=Skipped(reason="6 rows"))
    store.record([BatchAccepted(batch=batch(), windows=((told, skipped), (waits, Queued())), at=1.0)])
    assert [(row.why, row.remedy) for row in store.windows("b")] == [("6 rows", "complete its files"), (None, "")]


def test_only_lines_of_results_have_results(store: Store) -> None:
    training = Training(started_at=50.0, seconds=2.5, attempts=3, slot=4, node="n1")
    reused = msgspec.structs.replace(RESULT, training=training)
    known: list[State] = [Queued(), *(Finished(attempts=0, outcome=Reused(result=one)) for one in (reused, RESULT))]
    windows = tuple((plan(number), state) for number, state in enumerate(known))
    store.record([BatchAccepted(batch=batch(), windows=windows, at=1.0), *run(key(0))])
    trained, *others = store.windows("b")
    detail = store.window(key(0))
    assert detail is not None
    assert detail.window == trained
    assert store.state(key(0)) == detail.state
    assert (trained.status, trained.attempts, trained.slot, trained.ended_at) == ("succeeded", 1, SLOT, 102.0)
    assert {(line.attempts, line.slot, line.started_at) for line in others} == {(0, None, None)}
    assert not any(line.result or line.usage or line.placed_at or line.seconds for line in (trained, *others))
    lines = {line.key: line for line in store.finished_windows("b")}
    assert lines[key(0)] == msgspec.structs.replace(trained, result=RESULT, usage=USAGE, placed_at=101.0, seconds=0.5)
    line = lines[key(1)]
    assert (line.attempts, line.slot, line.started_at, line.ended_at) == (3, Slot(4, "GPU-0", "n1"), 50.0, 52.5)
    assert (line.result, line.seconds, line.device, line.placed_at) == (reused, 2.5, "GPU-0", None)
    line = lines[key(2)]
    assert (line.slot, line.device, line.seconds, line.attempts) == (None, "GPU-0", None, 0)


def test_finished_windows_come_in_the_order_of_finishing(store: Store) -> None:
    skipped = Finished(attempts=0, outcome=Skipped(reason="6 rows"))
    windows = tuple((plan(n), skipped if n % 1000 == 5 else Queued()) for n in range(1500))
    store.record([BatchAccepted(batch=batch(), windows=windows, at=1.0)])
    order = [*range(1400, 100, -1), 3]
    # all at the same instant: the order is that of the records
    store.record([move for number in order if number != 1005 for move in run(key(number), at=7.0)])
    found = [row.key for row in store.finished_windows("b")]
    assert found == [key(5), key(1005), *(key(number) for number in order if number != 1005)]


def test_the_last_endings_come_with_the_slots_that_they_left(store: Store) -> None:
    store.record([accepted(windows=100), accepted("other")])
    failed = Finished(attempts=1, outcome=Failed(failure=FAILURE))
    for number in range(90):
        placed, started, ended = run(key(number), at=float(number))
        if number % 40 == 0:
            ended = moved(key(number), started.new, failed, ending=FAILURE)
        store.record([placed, started, ended])
    cancelled = Finished(attempts=0, outcome=Cancelled())
    store.record([moved(key(95), Queued(), cancelled), *run(key(1, "other"))])
    endings = store.endings(None, 64)
    assert [move.key for move in endings] == [*(key(number) for number in range(27, 90)), key(1, "other")]
    assert isinstance(endings[0].old, Running)
    assert endings[0].old.slot == SLOT
    assert [move.key for move in store.endings("other", 64)] == [key(1, "other")]
    assert [move.key for move in store.endings("b", 2, failed=True)] == [key(40), key(80)]
    assert store.endings("b", 64, failed=True)[-1].new == failed


def test_long_texts_keep_their_end(store: Store) -> None:
    store.record([accepted()])
    failure = Failure(kind="raised", message="m" * 200_000, traceback="a\udcffé" * 100_000 + "the cause")
    failed = Finished(attempts=1, outcome=Failed(failure=failure))
    placed, started, _ = run(key())
    store.record([placed, started, moved(key(), started.new, failed, ending=failure, usage=USAGE)])
    (attempt,) = store.attempts(key())
    row = store.window(key())
    assert row is not None
    assert isinstance(row.state, Finished)
    assert isinstance(row.state.outcome, Failed)
    kept = row.state.outcome.failure
    assert (attempt.message, attempt.traceback) == (kept.message, kept.traceback)
    assert kept.traceback.endswith("the cause")
    assert MAX_TEXT_BYTES - 4 < len(kept.traceback.encode()) <= MAX_TEXT_BYTES
    assert len(kept.message) == MAX_TEXT_BYTES


def test_a_window_that_is_to_be_held_was_placed_once(store: Store) -> None:
    store.record([accepted()])
    starting = Starting(attempt=1, slot=SLOT)
    held = Starting(attempt=1, slot=SLOT, to_hold=True)
    store.record([moved(key(), Queued(), starting, at=101.0)])
    store.record([moved(key(), starting, held, at=102.0)])
    assert [attempt.placed_at for attempt in store.attempts(key())] == [101.0]
    (recovered,) = store.unfinished()
    assert recovered.windows[0][1] == held
