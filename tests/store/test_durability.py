"""Acknowledged records are there, whatever happens to the process, the file or the disk."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpusched.core.events import Record
from gpusched.core.states import Queued
from gpusched.errors import (
    StoreCorrupt,
    StoreLocked,
    StoreNewer,
    StoreUnwritable,
)
from gpusched.store import opening
from gpusched.store.store import Store
from tests.store import writer
from tests.store.reading import execute, read_everything
from tests.store.samples import accepted, assert_counted, key, run

NAMES = ["gpusched.db", "gpusched.db-shm", "gpusched.db-wal", "gpusched.db.lock"]


# -- the process is killed ---------------------------------------------------------------------------------------------


@contextmanager
def writing(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.writer", path],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_acknowledged_records_survive_kill_9(path: Path) -> None:
    chance = random.Random(42)
    acknowledged = 0
    for _ in range(6):
        with writing(path) as process:
            assert process.stdout is not None
            for _ in range(chance.randint(1, 60)):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            # its last acknowledgements count, except half a line
            lines = [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
            acknowledged = int(lines[-1]) if lines else acknowledged
        with Store.open(path) as store:
            row = store.window(key())
            assert row is not None
            assert isinstance(row.state, Queued)
            done = row.state.attempt - 1
            assert done in (acknowledged, acknowledged + 1)
            # whole transactions: the story, the attempts and the state tell the same
            assert len(store.story(key())) == done * writer.GROUP
            assert [attempt.attempt for attempt in store.attempts(key())] == list(range(1, done + 1))
            assert store.batches()[0].counts == {"queued": 1}
            assert_counted(store)


def test_a_killed_writer_leaves_no_lock(path: Path) -> None:
    with writing(path) as process:
        with pytest.raises(StoreLocked, match=rf"is in use by the process {process.pid}\n"):
            Store.open(path)
        process.kill()
        process.wait()
        Store.open(path).close()


# -- opening -----------------------------------------------------------------------------------------------------------


def test_files_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        path = tmp_path / "new" / "deeper" / "gpusched.db"
        with Store.open(path) as store:
            store.record([accepted()])
            assert sorted(child.name for child in path.parent.iterdir()) == NAMES
            modes = {stat.S_IMODE(child.stat().st_mode) for child in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert modes == {0o600}
    assert {stat.S_IMODE(path.parents[n].stat().st_mode) for n in (0, 1)} == {0o700}


def test_an_open_file_becomes_private(path: Path) -> None:
    Store.open(path).close()
    path.chmod(0o644)
    Store.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _has_no_modes(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_file_system_without_modes_will_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """exFAT, and shares that deny chmod, have the mode of their mount."""
    Store.open(path).close()
    path.chmod(0o644)
    monkeypatch.setattr(os, "fchmod", _has_no_modes)
    Store.open(path).close()


def test_a_file_of_another_user_that_stays_open_to_others_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(path).close()
    path.chmod(0o644)
    owner = os.fstat
    monkeypatch.setattr(os, "fchmod", _has_no_modes)
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result((*owner(fd)[:4], owner(fd).st_uid + 1, *owner(fd)[5:])))
    with pytest.raises(StoreUnwritable, match="Operation not permitted"):
        Store.open(path)


def test_one_opener_at_a_time(path: Path) -> None:
    with Store.open(path) as store:
        with pytest.raises(StoreLocked, match=str(os.getpid())):
            Store.open(path)
        store.record([accepted()])
    store.close()  # twice does nothing
    Store.open(path).close()


def test_a_failed_opening_leaves_no_lock(path: Path) -> None:
    Store.open(path).close()
    execute(path, "PRAGMA user_version = 99")
    for _ in range(2):
        with pytest.raises(StoreNewer, match=rf"store version 99, this one reads up to {opening.VERSION}"):
            Store.open(path)


def test_a_version_that_no_store_has(path: Path) -> None:
    Store.open(path).close()
    execute(path, "PRAGMA user_version = -5")
    with pytest.raises(StoreCorrupt, match="its version is -5"):
        Store.open(path)


def test_another_program_that_writes_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_BUSY_TIMEOUT_MS", 1)
    with Store.open(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLocked, match="another program"):
            store.record([accepted()])
        other.execute("ROLLBACK")
        other.close()
        store.record([accepted()])


def test_is_durable_in_the_way_it_says(store: Store) -> None:
    pragmas = {
        name: store.database.query(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_only_the_news_that_a_process_has_started_may_wait_for_the_disk(store: Store) -> None:
    def level(records: Sequence[Record]) -> int:
        """The mode of the records' commit."""
        store.record(records)
        ((level,),) = store.database.query("PRAGMA synchronous")
        assert isinstance(level, int)
        return level

    full, normal = 2, 1
    records: list[Record] = [accepted(), *run(key())]
    assert [level([record]) for record in records] == [full, full, normal, full]  # accepted, placed, started, ended
    assert level(run(key(1))[:2]) == full


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def full_of_batches(path: Path) -> Path:
    with Store.open(path) as store:
        for name in "abc":
            store.record([accepted(name, 100), *(move for n in range(50) for move in run(key(n, name)))])
    return path


def test_not_a_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(random.Random(1).randbytes(20_000))
    with pytest.raises(StoreCorrupt) as caught:
        Store.open(path)
    assert "move it aside" in str(caught.value)
    assert "artifacts are safe" in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_database_of_another_program(path: Path) -> None:
    path.parent.mkdir()
    execute(path, "CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match="another program"):
        Store.open(path)
    assert path.read_bytes() == before


def test_an_empty_file_is_a_new_store(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with Store.open(path) as store:
        assert store.batches() == []


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(full_of_batches: Path, fraction: float) -> None:
    os.truncate(full_of_batches, int(full_of_batches.stat().st_size * fraction))
    with pytest.raises(StoreCorrupt):
        Store.open(full_of_batches)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("checked", [True, False])
def test_a_damaged_file_is_never_taken_for_a_bug(
    full_of_batches: Path, seed: int, checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether opening checks every page (small files) or reading runs into the damage (large ones)."""
    if not checked:
        monkeypatch.setattr(opening, "_CHECK_BYTES", 0)
    chance = random.Random(seed)
    contents = bytearray(full_of_batches.read_bytes())
    for _ in range(8):
        start = chance.randrange(len(contents) - 64)
        contents[start : start + 64] = chance.randbytes(64)
    full_of_batches.write_bytes(contents)
    with contextlib.suppress(StoreCorrupt, StoreNewer), Store.open(full_of_batches) as store:
        read_everything(store)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE windows SET state = '{}'",
        "UPDATE windows SET plan = 'nonsense'",
        "UPDATE batches SET batch = '{\"id\": 1}'",
        "UPDATE windows SET state = CAST(x'ff80ff' AS TEXT)",
    ],
)
def test_rows_that_make_no_sense(full_of_batches: Path, damage: str) -> None:
    execute(full_of_batches, damage)
    with Store.open(full_of_batches) as store:
        with pytest.raises(StoreCorrupt):
            read_everything(store)
        with pytest.raises(StoreCorrupt):
            list(store.unfinished())


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE batches SET submitted_at = 1e300",
        "UPDATE batches SET owner = 'text'",
        "UPDATE counts SET windows = 'text'",
        "UPDATE windows SET moved_at = 'text'",
        "UPDATE windows SET finishing = id",
        "UPDATE attempts SET started_at = -1e300",
        "UPDATE attempts SET slot = x'ff'",
        "UPDATE attempts SET cpu_seconds = 9e999",
        "UPDATE story SET at = 'text'",
        "INSERT INTO learned VALUES ('w:w', 'cpu', 1, 1, 1.0, 'text', 1.0, 0, 0.0, 0, 0)",
        "INSERT INTO devices VALUES ('GPU-0', 'text', '', 1.0)",
    ],
)
def test_values_that_no_store_has_written(full_of_batches: Path, damage: str) -> None:
    """sqlite keeps them, whatever a column is declared to hold."""
    execute(full_of_batches, damage)
    with Store.open(full_of_batches) as store, pytest.raises(StoreCorrupt):
        read_everything(store)


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE counts",
        "ALTER TABLE attempts DROP COLUMN node",
        "DROP INDEX windows_in_order",
        "PRAGMA user_version = 1",
    ],
)
def test_a_file_that_lacks_a_part_of_a_store(full_of_batches: Path, damage: str) -> None:
    """Somebody has edited it; what is missing shows when it is asked for, or made for the second time."""
    execute(full_of_batches, damage)
    with pytest.raises(StoreCorrupt), Store.open(full_of_batches) as store:
        read_everything(store)


def test_a_torn_log_loses_only_what_was_not_acknowledged(path: Path, tmp_path: Path) -> None:
    store = Store.open(path)
    store.record([accepted()])
    log = path.with_name(path.name + "-wal")
    length = log.stat().st_size
    store.record(run(key()))
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    # as if the power had failed in the middle of the second commit
    copy.with_name("copy.db-wal").write_bytes(log.read_bytes()[: length + 1000])
    store.close()
    with Store.open(copy) as torn:
        assert torn.batches()[0].counts == {"queued": 3}
        assert torn.story(key()) == []
