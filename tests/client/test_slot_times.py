"""When slots were at work in the last minutes: as it is kept, and as the page of a device draws it."""

from __future__ import annotations

from gpusched.client.drawing.slot_times import slot_line
from gpusched.client.drawing.text import glyphs
from gpusched.client.views.overview import Overview
from gpusched.client.views.slots import SlotTimes, SlotView
from gpusched.core.events import WindowMoved
from gpusched.core.model import Slot
from gpusched.core.samples import RECENT, RECENT_OF_ALL, RECENT_S
from gpusched.core.states import Failed, Finished, Outcome, Running, Succeeded
from gpusched.protocol import BatchAnnounced, Snapshot
from tests.client.scenes import pool, status
from tests.client.support import trained
from tests.core.support import failure, gpu, key

SLOT = Slot(0, "GPU-0")
GOOD, BAD = Succeeded(result=trained()), Failed(failure=failure("bad_data"))


def ended(at: float, began: float, outcome: Outcome = GOOD, slot: Slot = SLOT) -> WindowMoved:
    running = Running(attempt=1, slot=slot, pid=7, started_at=began)
    done = Finished(attempts=1, outcome=outcome)
    return WindowMoved(key=key("A"), old=running, new=done, reason="", at=at)


def drawn(times: SlotTimes, *, latest: float, cells: int = 10, since: float | None = None, plain: bool = False) -> str:
    slot = SlotView(index=0, worked=times.of(SLOT), held_since=since)
    return slot_line(slot, times.since or 0.0, latest, cells, 1, glyphs(ascii_only=plain)).plain


def test_a_window_is_as_long_as_it_took_and_a_failure_is_seen_without_colour() -> None:
    times = SlotTimes()
    times.load([], 1000.0)
    times.add(ended(1011.0, 1001.0), SLOT, 1001.0)
    times.add(ended(1027.0, 1021.0, BAD), SLOT, 1021.0)
    # Four seconds a cell, up to the latest.
    assert drawn(times, latest=1039.0) == "┣━━··┣×···"
    assert drawn(times, latest=1039.0, since=1033.0) == "┣━━··┣×·┣━"
    assert drawn(times, latest=1039.0, plain=True) == "[==..[x..."


def test_nothing_is_said_of_the_time_before_the_first_end_that_is_known() -> None:
    times = SlotTimes()
    times.load([], 1020.0)
    assert drawn(times, latest=1039.0) == "     ·····"
    assert drawn(times, latest=1039.0, since=1008.0) == "  ┣━━━━━━━", "it has run since before"


def test_a_snapshot_tells_of_the_last_ends_and_one_after_a_gap_begins_anew() -> None:
    times = SlotTimes()
    first = [ended(1004.0, 1001.0), ended(1012.0, 1009.0, BAD)]
    times.load(first, 1020.0)
    assert times.since == 1004.0
    times.load([*first, ended(1020.0, 1017.0)], 1024.0)
    assert [worked.number for worked in times.of(SLOT)] == [500, 501, 502, 504, 505, 506, 508, 509, 510]
    assert times.since == 1004.0
    times.load([ended(1100.0, 1099.0)], 1100.0)
    assert (times.since, len(times.of(SLOT))) == (1100.0, 2)


def test_it_takes_bounded_room() -> None:
    times = SlotTimes()
    times.add(ended(1e6, 1.0), SLOT, 1.0)
    assert len(times.of(SLOT)) == RECENT
    slots = [Slot(number, "GPU-0") for number in range(2 * RECENT_OF_ALL // RECENT)]
    for slot in slots:
        times.add(ended(1e6, 1.0, slot=slot), slot, 1e6 - RECENT * RECENT_S)
    assert sum(len(times.of(slot)) for slot in slots) < 2 * RECENT_OF_ALL
    assert len(times.of(slots[-1])) == RECENT // 2


def test_an_overview_hears_of_it_in_snapshots_and_moves() -> None:
    overview = Overview()
    overview.load(Snapshot(at=1000.0, batches=(), active=(), progress=(), devices=pool(gpu(0, capacity=2))), 0.0)
    overview.apply(BatchAnnounced(batch=status("b", counts={"queued": 2})), 0.0)
    overview.apply(ended(1010.0, 1004.0), 10.0)
    first, second = overview.slots_of("GPU-0")
    assert [worked.number for worked in first.worked] == [502, 503, 504, 505]
    assert (first.held_since, second.worked) == (None, ())
    assert overview.slots_of("GPU-9") == []
