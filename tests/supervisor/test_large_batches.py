"""A batch that is too large for a turn of the loop: it arrives in slices, and is accepted as a whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from gpusched import outputs
from gpusched.core.changes import LARGE
from gpusched.core.commands import Command
from gpusched.core.events import (
    BatchAccepted,
    BatchRecovered,
    ChangeMade,
    ChangeRequested,
    DrainRequested,
    Event,
    Record,
    ResumeRequested,
    WindowMoved,
    WindowsAdded,
    WindowsRecovered,
)
from gpusched.core.model import Instant
from gpusched.core.planning import INDEX
from gpusched.core.states import Finished
from gpusched.errors import StoreFull
from gpusched.store.store import Store
from gpusched.supervisor import kept
from gpusched.supervisor.followers import News
from gpusched.supervisor.index import Index
from gpusched.supervisor.portions import LEAST, MOST, SLICE_WINDOWS, Portion
from tests.store.samples import RESULT
from tests.supervisor.support import Bench, make_batch, plan, supervised

WINDOWS = 3 * SLICE_WINDOWS + 1


def test_a_portion_follows_the_time_that_the_last_ones_took() -> None:
    portion = Portion()
    portion.adapt(0.1)
    assert portion.windows == LEAST
    portion.adapt(0.004)
    assert portion.windows == LEAST * 5 // 4, "it grows slowly"
    for _ in range(50):
        portion.adapt(0.0)
    assert portion.windows == MOST


def index_lines(directory: Path) -> list[str]:
    path = directory / "output" / INDEX
    return path.read_text().splitlines() if path.exists() else []


async def test_it_arrives_in_slices_and_is_accepted_with_the_last(tmp_path: Path) -> None:
    async with supervised(tmp_path) as bench:
        bench.supervisor.post(DrainRequested(device_id="cpu"))
        await bench.supervisor.submit(make_batch(tmp_path, "nothing"), plan(WINDOWS))
        arrived = [update for update in bench.updates if isinstance(update, WindowsAdded | BatchAccepted)]
        *slices, accepted = arrived
        assert isinstance(accepted, BatchAccepted)
        sizes = [len(one.windows) for one in slices if isinstance(one, WindowsAdded)]
        assert len(sizes) == len(slices) > 1
        assert all(LEAST <= size <= MOST for size in sizes)
        assert (accepted.added, len(accepted.windows)) == (sum(sizes), WINDOWS)
        assert [p.window.symbol for p, _ in accepted.windows] == [f"S{number}" for number in range(WINDOWS)]
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
        await bench.finished()
        assert len([update for update in bench.updates if isinstance(update, ChangeMade)]) == 1
        # another round takes its place
        bench.updates.clear()
        await bench.supervisor.submit(make_batch(tmp_path, "nothing"), plan(WINDOWS))
        assert bench.supervisor.scheduler.unfinished == WINDOWS
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
        await bench.finished()
    with Store.open(tmp_path / "state" / "state.db") as store:
        (row,) = store.batches()
        assert row.counts == {"cancelled": WINDOWS}
        assert len(list(store.windows("b"))) == WINDOWS


async def test_its_index_is_whole_when_it_has_finished_again(tmp_path: Path) -> None:
    """It is gathered between the turns; a file with the old lines is never half written."""
    async with supervised(tmp_path) as bench:
        bench.supervisor.post(DrainRequested(device_id="cpu"))
        await bench.supervisor.submit(make_batch(tmp_path, "nothing"), plan(LARGE + 1))
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
        await bench.finished()
        first = (tmp_path / "output" / "teacher_runs.json").read_text().splitlines()
        assert len(first) == LARGE + 1
        bench.updates.clear()
        bench.supervisor.post(ChangeRequested(verb="retry", batch_id="b"))
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
        await bench.finished()
        again = (tmp_path / "output" / "teacher_runs.json").read_text().splitlines()
        assert sorted(again) == sorted(first)
        # so it is when a window moves while it is gathered
        bench.updates.clear()
        bench.supervisor.post(ChangeRequested(verb="retry", batch_id="b"))
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
        await bench.until(lambda update: isinstance(update, ChangeMade) and update.change.verb == "cancel")
        label = "S0_2022-01-01_to_2022-06-30"
        bench.supervisor.post(ChangeRequested(verb="retry", batch_id="b", label=label))
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b", label=label))
        await bench.finished()
        again = (tmp_path / "output" / "teacher_runs.json").read_text().splitlines()
        assert sorted(again) == sorted(first)


async def test_the_index_of_many_reused_results_is_gathered_while_the_rest_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written in the turn that accepts the batch, and everything waited for it."""
    lines: list[int] = []
    follow = Index.follow

    def watched(self: Index, news: News) -> None:
        follow(self, news)
        if isinstance(news, BatchAccepted):
            lines.append(len(index_lines(tmp_path)))

    gather, gathered = Index.gather, anyio.Event()

    async def told(self: Index, batch_id: str) -> None:
        await gather(self, batch_id)
        gathered.set()

    monkeypatch.setattr(Index, "follow", watched)
    monkeypatch.setattr(Index, "gather", told)
    windows = (*plan(LARGE + 1, committed=RESULT), *plan(LARGE + 3)[LARGE + 1 :])
    async with supervised(tmp_path) as bench:
        bench.supervisor.post(DrainRequested(device_id="cpu"))
        await bench.supervisor.submit(make_batch(tmp_path, "nothing"), windows)
        await gathered.wait()
        assert lines == [0]
        assert len(set(index_lines(tmp_path))) == LARGE + 1
        bench.supervisor.post(ResumeRequested(device_id="cpu"))
        last = [planned.window.label for planned in windows[LARGE + 1 :]]
        for label in last:
            await bench.moved_to(Finished, label)
        assert sorted(json.loads(line)["window_label"] for line in index_lines(tmp_path)[LARGE + 1 :]) == last
        monkeypatch.setattr(outputs, "missing", lambda output_dir, labels: [])  # the results were never there
        await bench.finished()
        assert len(set(index_lines(tmp_path))) == LARGE + 3


async def test_nobody_sees_it_before_and_a_crash_drops_it(tmp_path: Path) -> None:
    async with supervised(tmp_path) as bench:
        bench.supervisor.hand_over(make_batch(tmp_path, "nothing"), plan(WINDOWS))
        await bench.until(lambda update: isinstance(update, WindowsAdded))
        assert "b" in bench.supervisor.arrivals
        assert bench.supervisor.scheduler.batch("b") is None
        store = bench.supervisor._store
        assert (store.batches(), store.batch("b"), list(store.unfinished())) == ([], None, [])
        assert [batch_id for batch_id, _, _ in store.forgotten()] == ["b"]


async def test_a_store_that_cannot_be_written_stops_it_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with supervised(tmp_path) as bench:
        bench.supervisor.post(DrainRequested(device_id="cpu"))
        await bench.supervisor.committed()
        turns = 0
        record = bench.supervisor._store.record

        def fail(*arguments: object) -> None:
            nonlocal turns
            turns += 1
            raise StoreFull(path=tmp_path, cause="no space")

        monkeypatch.setattr(bench.supervisor._store, "record", fail)
        bench.supervisor.hand_over(make_batch(tmp_path, "nothing"), plan(WINDOWS))
        with anyio.move_on_after(0.3):
            await bench.supervisor.committed()
        assert 0 < turns < 5, "it waits, and does not try again all the time"
        monkeypatch.setattr(bench.supervisor._store, "record", record)
        await bench.until(lambda update: isinstance(update, BatchAccepted))


class Turns:
    """The numbers of windows that each turn of a supervisor has recorded or taken up, at most."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.windows = 0
        handle = bench.supervisor.scheduler.handle

        def handled(event: Event, now: Instant) -> tuple[list[Record], list[Command]]:
            records, commands = handle(event, now)
            if isinstance(event, WindowsRecovered | BatchRecovered):
                self.windows = max(self.windows, len(event.windows))
            self.windows = max(self.windows, sum(isinstance(record, WindowMoved) for record in records))
            return records, commands

        monkeypatch.setattr(bench.supervisor.scheduler, "handle", handled)


async def test_it_is_taken_up_again_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished batch was read, and its index written, in one turn."""
    monkeypatch.setattr(kept, "KEPT_WINDOWS", 5)
    async with supervised(tmp_path) as bench:
        bench.supervisor.post(DrainRequested(device_id="cpu"))
        await bench.supervisor.submit(make_batch(tmp_path, "nothing"), plan(WINDOWS))
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
        await bench.finished()
        await bench.supervisor.submit(make_batch(tmp_path, "nothing", batch_id="c"), plan(1, skip_reason="none"))
        await bench.finished("c")
        assert bench.supervisor.scheduler.batch("b") is None
        turns = Turns(bench, monkeypatch)
        async with bench.supervisor.recalled("b"):
            bench.supervisor.post(ChangeRequested(verb="retry", batch_id="b"))
            await bench.supervisor.committed()
        await bench.until(lambda update: isinstance(update, ChangeMade) and update.change.verb == "retry")
        assert bench.outcomes() == ["queued"] * WINDOWS
        assert [p.window.symbol for p, _ in bench.supervisor.scheduler.states("b")] == [
            f"S{number}" for number in range(WINDOWS)
        ]
        assert 0 < turns.windows <= MOST


async def test_a_batch_that_is_not_changed_after_all_may_be_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "KEPT_WINDOWS", 5)
    async with supervised(tmp_path) as bench:
        for name in ("one", "two"):
            await bench.supervisor.submit(make_batch(tmp_path, "nothing", batch_id=name), plan(3, skip_reason="none"))
            await bench.finished(name)
        async with bench.supervisor.recalled("one"):
            await bench.supervisor.submit(make_batch(tmp_path, "nothing", batch_id="c"), plan(4, skip_reason="none"))
            await bench.finished("c")
            assert [batch.id for batch in bench.supervisor.scheduler.batches()] == ["one", "c"]
        await bench.supervisor.submit(make_batch(tmp_path, "nothing", batch_id="d"), plan(5, skip_reason="none"))
        await bench.finished("d")
        assert [batch.id for batch in bench.supervisor.scheduler.batches()] == ["d"]


async def test_its_missing_results_are_lost_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were recorded, and the index written, in one turn."""
    monkeypatch.setattr(outputs, "missing", lambda output_dir, labels: list(labels))
    async with supervised(tmp_path) as bench:
        turns = Turns(bench, monkeypatch)
        await bench.supervisor.submit(make_batch(tmp_path, "nothing"), plan(LARGE + 1, committed=RESULT))
        await bench.finished()
        assert bench.outcomes() == ["lost"] * (LARGE + 1)
        assert turns.windows == SLICE_WINDOWS
        assert len(set(index_lines(tmp_path))) == LARGE + 1
