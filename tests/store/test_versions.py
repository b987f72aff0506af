"""A store of an older version loads, and whoever only reads it leaves it as it is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
import pytest

from gpusched import files
from gpusched.core.states import Failed, Finished, Running, Skipped, Succeeded
from gpusched.errors import StoreCorrupt
from gpusched.store import opening
from gpusched.store.database import lock_path
from gpusched.store.store import Store
from tests.store.reading import execute, read_everything
from tests.store.samples import RESULT, SLOT, accepted, assert_counted, key, moved, run

FROZEN = Path(__file__).with_name("version_1.sql")


def test_a_store_of_version_1_still_loads(path: Path) -> None:
    path.parent.mkdir()
    execute(path, FROZEN.read_text())
    with Store.open(path) as store:
        read_everything(store)
        held, done = store.batches()
        assert (held.state, held.held_reason) == ("held", "10 windows failed the same way")
        assert held.counts == {"failed": 1, "running": 1, "skipped": 1, "succeeded": 1, "queued": 1}
        assert (done.id, done.state, done.finished_at) == ("done", "finished", 1700000012.0)
        (recovered,) = store.unfinished()
        first, second, third, fourth, _ = [state for _, state in recovered.windows]
        assert isinstance(first, Finished)
        assert isinstance(first.outcome, Succeeded)
        assert isinstance(third, Finished)
        assert isinstance(third.outcome, Skipped)
        assert second == Running(attempt=2, slot=SLOT, pid=4002, started_at=1700000003.5)
        assert isinstance(fourth, Finished)
        assert isinstance(fourth.outcome, Failed)
        assert recovered.windows[0][0].window.symbol == "M&M"
        finished = list(store.finished_windows(held.id))
        assert [(window.start.day, window.status) for window in finished] == [
            (3, "skipped"), (1, "succeeded"), (4, "failed"),
        ]  # fmt: skip
        assert finished[1].result == first.outcome.result
        retried = next(row for row in store.windows(held.id, status="running"))
        assert [attempt.ending for attempt in store.attempts(retried.key)] == ["raised", None]
        assert [line.reason for line in store.story(retried.key)] == ["placed", "started", "ended", "placed", "started"]
        assert store.devices()[0].health == "quarantined"
        assert store.learned()[0].memory_max == 500_000_000
        store.record([accepted("new", 2), *run(key(0, "new"))])
        assert [batch.id for batch in store.batches()] == [held.id, "done", "new"]
        ended = Finished(attempts=2, outcome=Succeeded(result=msgspec.structs.replace(RESULT, constant=True)))
        store.record([moved(retried.key, second, ended, ending=RESULT)])
        assert_counted(store)


def test_a_store_of_version_1_that_another_process_has_is_read_and_not_written(path: Path) -> None:
    path.parent.mkdir()
    execute(path, FROZEN.read_text())
    before = path.read_bytes()
    lock = files.lock(lock_path(path))
    with contextlib.closing(os.fdopen(lock)), Store.peek(path) as store:
        read_everything(store)
        assert [batch.id for batch in store.batches()][1:] == ["done"]
    assert path.read_bytes() == before
    with Store.peek(path):
        assert files.is_free(lock_path(path)), "whoever reads is not at work on it"


def test_migrates_forward(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(path) as store:
        store.record([accepted()])
    script = tmp_path / "store_2.sql"
    monkeypatch.setattr(opening, "MIGRATIONS", (*opening.MIGRATIONS, script))
    monkeypatch.setattr(opening, "VERSION", opening.VERSION + 1)
    script.write_text("ALTER TABLE batches ADD COLUMN shelf TEXT; SELECT nonsense FROM nowhere;")
    with pytest.raises(StoreCorrupt, match="no such table: nowhere"):
        Store.open(path)
    script.write_text("ALTER TABLE batches ADD COLUMN shelf TEXT;")
    with Store.open(path) as store:
        assert store.database.query("SELECT shelf FROM batches") == [(None,)]
        read_everything(store)
    with Store.open(path) as store:
        assert store.database.query("PRAGMA user_version") == [(opening.VERSION,)]
