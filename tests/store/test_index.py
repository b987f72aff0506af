"""The index repeats the store's finished windows, each once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from gpusched.core.events import BatchAccepted, BatchFinished, Record
from gpusched.core.model import DataNote, WindowKey
from gpusched.core.planning import INDEX
from gpusched.core.states import Cancelled, Failed, Finished, Queued, TimedOut
from gpusched.engines.condition import Condition
from gpusched.store.store import Store
from gpusched.supervisor.followers import TURN_ENDED
from gpusched.supervisor.index import Index
from gpusched.supervisor.index_line import line as index_line
from tests.store.samples import FAILURE, RESULT, accepted, batch, key, moved, run


def log_path(window: WindowKey, attempt: int) -> Path:
    return Path("/logs") / window.batch_id / f"{window.label}.{attempt}.log"


FAILED = Finished(attempts=1, outcome=Failed(failure=FAILURE))


def test_a_line_has_the_memory_of_the_last_attempt(store: Store) -> None:
    store.record([accepted(windows=1), *run(key())])
    (window,) = store.finished_windows("b")
    found = json.loads(index_line(window, None))
    assert (found["peak_memory_bytes"], found["device_memory_bytes"]) == (1 << 20, 1 << 30)


def test_a_line_has_the_words_of_the_commands_beside_those_of_earlier_versions(store: Store) -> None:
    timed_out = Finished(attempts=1, outcome=TimedOut(seconds=5.0))
    store.record([accepted(windows=3), *run(key(0)), *run(key(1), ending=FAILURE), *run(key(2), ending=FAILURE)])
    running = run(key(1), ending=FAILURE)[1].new
    store.record([moved(key(1), running, FAILED, ending=FAILURE), moved(key(2), running, timed_out, ending=FAILURE)])
    lines = [json.loads(index_line(window, None)) for window in store.finished_windows("b")]
    assert [(line["status"], line["outcome"]) for line in lines] == [
        ("success", "succeeded"), ("failed", "failed"), ("failed", "timed_out"),
    ]  # fmt: skip
    assert [line["reason"] for line in lines] == [None, f"raised: {FAILURE.message}", "stopped after 5 s"]


def test_a_window_that_was_retried_has_one_line_in_the_end(store: Store, tmp_path: Path) -> None:
    of_a_batch = submitted(tmp_path)
    index = Index(store, log_path, Condition())

    def happen(*records: Record) -> None:
        """As the supervisor does: all of a turn is committed before any of it is told."""
        store.record(records)
        for news in (*records, TURN_ENDED):
            index.follow(news)

    def lines() -> list[tuple[str, str]]:
        found = [json.loads(line) for line in (tmp_path / INDEX).read_text().splitlines()]
        return [(line["window_label"], line["status"]) for line in found]

    happen(of_a_batch)
    starting, running, _ = run(key(0), ending=FAILURE)
    failed = moved(key(0), running.new, FAILED, ending=FAILURE)
    # It fails, and the retry comes in the same turn: the store has it queued when the index hears of the failure.
    happen(starting, running, failed, moved(key(0), FAILED, Queued(attempt=2)))
    assert lines() == []
    happen(*run(key(1)))
    assert lines() == [(key(1).label, "success")]
    starting, running, _ = run(key(0), attempt=2, ending=FAILURE)
    again = Finished(attempts=2, outcome=Failed(failure=FAILURE))
    happen(starting, running, moved(key(0), running.new, again, ending=FAILURE))
    happen(moved(key(0), again, Queued(attempt=3)))
    happen(*run(key(0), attempt=3, ending=RESULT), BatchFinished(batch_id="b", at=200.0))
    assert sorted(lines()) == sorted([(key(0).label, "success"), (key(1).label, "success")])
    index.close()


def submitted(output: Path, batch_id: str = "b", windows: int = 2) -> BatchAccepted:
    about = msgspec.structs.replace(batch(), id=batch_id, output_dir=str(output))
    return msgspec.structs.replace(accepted(windows=windows), batch=about)


class Indexed:
    """An index that hears all records, as in the supervisor."""

    def __init__(self, store: Store, output: Path, windows: int = 2) -> None:
        self._store = store
        self.condition = Condition()
        self._index = Index(store, log_path, self.condition)
        self.path = output / INDEX
        self.happen(submitted(output, windows=windows))

    def happen(self, *records: Record) -> None:
        self._store.record(records)
        for news in (*records, TURN_ENDED):
            self._index.follow(news)

    def labels(self) -> list[str]:
        return [json.loads(line)["window_label"] for line in self.path.read_text().splitlines()]

    async def gather_late(self) -> None:
        assert self._index.late_at is not None
        await self._index.gather_late()

    def close(self) -> None:
        self._index.close()


def test_a_window_that_ends_in_the_turn_that_accepts_its_batch_has_one_line(store: Store, tmp_path: Path) -> None:
    of_a_batch = submitted(tmp_path)
    index = Index(store, log_path, Condition())
    cancelled = Finished(attempts=0, outcome=Cancelled())
    records = (of_a_batch, moved(key(0), Queued(), cancelled), moved(key(1), Queued(), cancelled))
    store.record(records)
    for news in (*records, TURN_ENDED):
        index.follow(news)
    index.close()
    lines = map(json.loads, (tmp_path / INDEX).read_text().splitlines())
    assert [line["window_label"] for line in lines] == [key(0).label, key(1).label]


def test_an_index_that_is_removed_comes_back(store: Store, tmp_path: Path) -> None:
    index = Indexed(store, tmp_path / "output", windows=3)
    index.happen(*run(key(0)))
    shutil.rmtree(tmp_path / "output")
    index.happen(*run(key(1)))
    assert index.labels() == [key(0).label, key(1).label]
    index.path.rename(tmp_path / "kept")
    index.happen(*run(key(2)), BatchFinished(batch_id="b", at=200.0))
    assert index.labels() == [key(0).label, key(1).label, key(2).label]


def late(store: Store, output: Path) -> Indexed:
    """An index whose directory was gone when its batch finished, and is there again, with a torn file."""
    index = Indexed(store, output, windows=2)
    index.happen(*run(key(0)))
    kept = output.rename(output.with_name("kept"))
    output.write_text("no directory")
    index.happen(*run(key(1)), BatchFinished(batch_id="b", at=200.0))
    output.unlink()
    kept.rename(output)
    with index.path.open("a") as file:
        file.write('{"batch_id": "b", "window_la')
    return index


async def test_an_index_that_could_not_be_written_is_written_later(store: Store, tmp_path: Path) -> None:
    index = late(store, tmp_path / "output")
    assert [(trouble.kind, trouble.about) for trouble in index.condition.troubles] == [("index", str(index.path))]
    await index.gather_late()
    assert index.labels() == [key(0).label, key(1).label]
    assert (index.condition.troubles, store.late_indexes.batches()) == ((), [])


async def test_it_stays_late_until_it_can_be_written(store: Store, tmp_path: Path) -> None:
    index = late(store, tmp_path / "output")
    kept = (tmp_path / "output").rename(tmp_path / "kept")
    (tmp_path / "output").write_text("no directory")
    await index.gather_late()
    assert [trouble.kind for trouble in index.condition.troubles] == ["index"]
    (tmp_path / "output").unlink()
    kept.rename(tmp_path / "output")
    await index.gather_late()
    assert index.labels() == [key(0).label, key(1).label]


@pytest.mark.parametrize("other", ["of another store", "that runs", "that has finished"])
async def test_a_late_index_leaves_that_of_a_later_batch_alone(store: Store, tmp_path: Path, other: str) -> None:
    output = tmp_path / "output"
    index = late(store, output)
    if other == "of another store":
        index.path.write_text('{"batch_id": "another", "window_label": "A"}\n')
    else:
        index.happen(submitted(output, "later"))
        if other == "that has finished":
            index.happen(BatchFinished(batch_id="later", at=300.0))
    before = index.path.read_text()
    await index.gather_late()
    assert index.path.read_text() == before
    assert index.condition.troubles == ()
    index.close()


async def test_that_of_a_forgotten_batch_does_not_come_back(store: Store, tmp_path: Path) -> None:
    index = late(store, tmp_path / "output")
    index.path.unlink()
    store.mark_forgotten("b", results=True)
    await index.gather_late()
    assert not index.path.exists()
    assert index.condition.troubles == ()


@pytest.mark.parametrize("there", ["text of somebody else's", "a link", "a link to an index", "a directory", "a pipe"])
def test_what_is_no_index_is_moved_aside(store: Store, tmp_path: Path, there: str) -> None:
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "output" / INDEX
    path.parent.mkdir()
    elsewhere.write_text('{"batch_id": "a", "window_label": "b"}\n' if there == "a link to an index" else "mine")
    before = elsewhere.read_text()
    match there:
        case "a directory":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "text of somebody else's":
            path.write_text("mine")
        case _:
            path.symlink_to(elsewhere)
    kind = path.lstat().st_mode
    index = Indexed(store, tmp_path / "output")
    index.happen(*run(key(0)))
    assert index.labels() == [key(0).label]
    assert path.with_name(f"{INDEX}.not-an-index").lstat().st_mode == kind
    assert elsewhere.read_text() == before
    index.close()


def test_the_index_of_another_batch_is_replaced(store: Store, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text('{"batch_id": "another", "window_label": "A"}\n')
    index = Indexed(store, tmp_path)
    assert index.labels() == []
    assert [path.name for path in tmp_path.iterdir() if INDEX in path.name] == [INDEX]
    index.close()


def test_the_temporary_file_of_an_index_follows_no_link(store: Store, tmp_path: Path) -> None:
    elsewhere = tmp_path / "state.db"
    elsewhere.write_text("mine")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / f".{INDEX}.tmp").symlink_to(elsewhere)
    index = Indexed(store, tmp_path / "output")
    index.happen(*run(key(0)))
    index.close()
    assert index.labels() == [key(0).label]
    assert elsewhere.read_text() == "mine"


def test_a_line_tells_of_the_data(store: Store, tmp_path: Path) -> None:
    submitted = msgspec.structs.replace(
        accepted(windows=1),
        batch=msgspec.structs.replace(batch(), output_dir=str(tmp_path)),
        notes={"A": (DataNote("jumps", "÷ 4"),), "OTHER": (DataNote("gaps", "1 day"),)},
    )
    index = Index(store, log_path, Condition())
    for records in ([submitted], run(key(0))):
        store.record(records)
        for news in (*records, TURN_ENDED):
            index.follow(news)
    index.close()
    (line,) = map(json.loads, (tmp_path / INDEX).read_text().splitlines())
    assert line["data_notes"] == [{"kind": "jumps", "text": "÷ 4"}]
