"""At the end of a batch everything that it names is there: the index, and every result."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.to_thread
import pytest

from gpusched import files, outputs
from gpusched.core.events import BatchFinished, ChangeRequested
from gpusched.core.planning import INDEX
from gpusched.core.states import Finished, Held, Succeeded
from gpusched.store.store import Store
from tests.supervisor.support import Bench, make_batch, plan, supervised

LABELS = [planned.window.label for planned in plan(3)]


def index(output: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (output / "teacher_runs.json").read_text().splitlines()]
    assert len({line["window_label"] for line in lines}) == len(lines)
    return {line["window_label"]: line["status"] for line in lines}


async def test_results_that_are_removed_while_their_batch_runs_are_lost_and_can_be_retried(tmp_path: Path) -> None:
    output = tmp_path / "output"
    async with supervised(tmp_path, slots=1) as bench:
        supervisor = bench.supervisor
        await supervisor.submit(make_batch(tmp_path, "two_files"), plan(3))
        supervisor.post(ChangeRequested(verb="hold", batch_id="b", label=LABELS[2]))
        await bench.moved_to(Held)
        for label in LABELS[:2]:
            await bench.moved_to(Finished, label)
        shutil.rmtree(output)
        supervisor.post(ChangeRequested(verb="release", batch_id="b", label=LABELS[2]))
        await bench.finished()
        assert bench.outcomes() == ["lost", "lost", "succeeded"]
        assert index(output) == dict(zip(LABELS, ["failed", "failed", "success"], strict=True))
        assert sorted(path.name for path in output.iterdir()) == [".partial", LABELS[2], "teacher_runs.json"]
        bench.updates.clear()
        supervisor.post(ChangeRequested(verb="retry", batch_id="b"))
        await bench.finished()
        assert bench.outcomes() == ["succeeded"] * 3
        assert index(output) == dict.fromkeys(LABELS, "success")
    with Store.open(tmp_path / "state" / "state.db") as store:
        row = store.batch("b")
        assert row is not None
        assert row.counts == {"succeeded": 3}
        (key,) = [window.key for window in store.windows("b") if window.key.label == LABELS[0]]
        assert [(line.new, line.reason) for line in store.story(key)][3:5] == [
            ("lost", "its result is no longer there"),
            ("queued", "retried by request"),
        ]


async def test_a_batch_whose_windows_had_all_ended_when_the_supervisor_died_is_looked_at_by_the_next(
    tmp_path: Path,
) -> None:
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "two_files"), plan(2))
        await bench.finished()
    with Store.open(tmp_path / "state" / "state.db") as store:
        store.database.execute("UPDATE batches SET finished_at = NULL")
    shutil.rmtree(tmp_path / "output" / LABELS[0])
    (tmp_path / "output" / "teacher_runs.json").unlink()
    async with supervised(tmp_path, recover=True) as bench:
        await bench.finished()
        assert bench.outcomes() == ["lost", "succeeded"]
        assert index(tmp_path / "output") == {LABELS[0]: "failed", LABELS[1]: "success"}


async def test_a_result_that_was_linked_meanwhile_is_there(tmp_path: Path) -> None:
    async with supervised(tmp_path, slots=1) as bench:
        supervisor = bench.supervisor
        await supervisor.submit(make_batch(tmp_path, "two_files"), plan(3))
        supervisor.post(ChangeRequested(verb="hold", batch_id="b", label=LABELS[2]))
        await bench.moved_to(Held)
        moved = await bench.moved_to(Finished, LABELS[0])
        assert isinstance(moved.new, Finished)
        assert isinstance(moved.new.outcome, Succeeded)
        (tmp_path / "output" / LABELS[0]).rename(tmp_path / "bigger")
        (tmp_path / "output" / LABELS[0]).symlink_to(tmp_path / "bigger")
        supervisor.post(ChangeRequested(verb="release", batch_id="b", label=LABELS[2]))
        await bench.finished()
        assert bench.outcomes() == ["succeeded"] * 3


async def test_a_batch_whose_results_are_being_looked_for_is_not_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large one that was submitted again meanwhile was removed from the store in a turn of seconds."""
    looked, may_end, over = threading.Event(), threading.Event(), anyio.Event()

    def slowly(output_dir: Path, labels: Iterable[str]) -> list[str]:
        looked.set()
        may_end.wait()
        return []

    async def wait() -> None:
        await bench.supervisor.over("b")
        over.set()

    def has_finished() -> bool:
        return any(isinstance(update, BatchFinished) for update in bench.updates)

    monkeypatch.setattr(outputs, "missing", slowly)
    async with supervised(tmp_path) as bench, anyio.create_task_group() as tasks:
        try:
            await bench.supervisor.submit(make_batch(tmp_path, "two_files"), plan(2))
            await anyio.to_thread.run_sync(looked.wait)
            assert not bench.supervisor.scheduler.is_at_work("b")
            tasks.start_soon(wait)
            for _ in range(3):
                await bench.supervisor.committed()
            assert not over.is_set()
            assert not has_finished()
        finally:
            may_end.set()
        await over.wait()
        assert has_finished()


async def test_an_index_that_a_full_disk_kept_back_is_written_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpusched.supervisor.index.RETRY_S", 0.01)
    async with supervised(tmp_path, slots=1) as bench:
        told, over = anyio.Event(), anyio.Event()
        bench.engine.condition.heard_by(lambda change: (told if change.present else over).set())
        with monkeypatch.context() as full:
            await finish_without_index(bench, full)
            await told.wait()
        await over.wait()
        assert index(tmp_path / "output") == {LABELS[0]: "success", LABELS[1]: "cancelled"}


async def test_an_index_that_a_full_disk_kept_back_is_written_by_the_next_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        async with supervised(tmp_path, slots=1) as bench:
            await finish_without_index(bench, full)
    assert not (tmp_path / "output" / INDEX).exists()
    async with supervised(tmp_path, recover=True):
        pass
    assert index(tmp_path / "output") == {LABELS[0]: "success", LABELS[1]: "cancelled"}


async def finish_without_index(bench: Bench, full: pytest.MonkeyPatch) -> None:
    """Finish a batch, one window of which is cancelled, on a disk that is full when its index is to be written."""

    def no_room(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    await bench.supervisor.submit(make_batch(bench.directory, "two_files"), plan(2))
    bench.supervisor.post(ChangeRequested(verb="hold", batch_id="b", label=LABELS[1]))
    await bench.moved_to(Held)
    await bench.moved_to(Finished, LABELS[0])
    (bench.directory / "output" / INDEX).unlink()
    full.setattr(files, "replacing", no_room)
    bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
    await bench.finished()
