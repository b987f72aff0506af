"""A disk that is full, a place that cannot be written, a file that has gone: nothing acknowledged is lost."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpusched import directories, files
from gpusched.core.events import Record
from gpusched.core.states import Held, Queued
from gpusched.errors import (
    StoreFull,
    StoreLocked,
    StoreReplaced,
    StoreUnlockable,
    StoreUnwritable,
)
from gpusched.store.store import Store
from tests.store.reading import read_everything
from tests.store.samples import accepted, key, moved, run

# -- the disk is full --------------------------------------------------------------------------------------------------


def fill(store: Store) -> list[Record]:
    """Record until it does not fit; the records that did not."""
    for number in range(100_000):
        records: list[Record] = [accepted(f"batch-{number}", 20)]
        try:
            store.record(records)
        except StoreFull:
            return records
    raise AssertionError("it is not full")


def check_full_and_again(store: Store, make_room: object = None) -> None:
    rejected = fill(store)
    before = store.batches()
    assert len(before) > 0
    with pytest.raises(StoreFull, match="make room"):
        store.record(rejected)
    assert store.batches() == before
    read_everything(store)
    assert callable(make_room)
    make_room()
    store.record(rejected)
    assert len(store.batches()) == len(before) + 1


def test_a_full_database(store: Store) -> None:
    store.database.query("PRAGMA max_page_count = 60")
    check_full_and_again(store, lambda: store.database.query("PRAGMA max_page_count = 1000000"))


def test_a_file_that_may_not_grow(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Store.open(path) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            check_full_and_again(store, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def mounted(where: Path, *options: str) -> Iterator[None]:
    where.mkdir(exist_ok=True)
    try:
        subprocess.run(["mount", *options, where], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=2m", "none"):
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1 << 20))
        with Store.open(disk / "gpusched.db") as store:
            check_full_and_again(store, ballast.unlink)
        with Store.open(disk / "gpusched.db") as store:
            read_everything(store)


def test_a_disk_too_full_to_open(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=16k", "none"):
        with pytest.raises(StoreFull):
            Store.open(disk / "gpusched.db")
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        Store.open(disk / "gpusched.db").close()


# -- places that cannot be written -------------------------------------------------------------------------------------


def test_a_read_only_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=4m", "none"):
        Store.open(disk / "gpusched.db").close()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        for path in (disk / "gpusched.db", disk / "new" / "gpusched.db"):
            with pytest.raises(StoreUnwritable, match="mounted read-write"):
                Store.open(path)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission(path: Path) -> None:
    path.parent.mkdir(mode=0o500)
    with pytest.raises(StoreUnwritable, match="owner and the mode"):
        Store.open(path)


def test_a_directory_in_place_of_the_file(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreUnwritable):
        Store.open(path)


def test_a_file_in_place_of_the_directory(path: Path) -> None:
    path.parent.write_text("")
    with pytest.raises(StoreUnwritable):
        Store.open(path)


def test_moves_after_a_failed_commit_are_numbered_on(store: Store) -> None:
    store.record([accepted()])
    with pytest.raises(LookupError):
        store.record([*run(key(0)), moved(key(99), Queued(), Held())])
    store.record(run(key(1)))
    store.record(run(key(0)))
    assert [row.key for row in store.finished_windows("b")] == [key(1), key(0)]


# -- a store that loses its place --------------------------------------------------------------------------------------


@pytest.mark.parametrize("removed", ["the file", "the directory"])
def test_a_store_that_is_removed_while_it_is_open_is_written_anew(tmp_path: Path, removed: str) -> None:
    path = tmp_path / "state" / "state.db"
    with Store.open(path) as store:
        store.record([accepted(windows=2)])
        assert not store.keep_in_place()
        if removed == "the file":
            for one in path.parent.glob("state.db*"):
                if not one.name.endswith(".lock"):
                    one.unlink()
        else:
            shutil.rmtree(path.parent)
        assert store.keep_in_place()
        assert not store.keep_in_place()
        assert path.stat().st_mode & 0o777 == 0o600
        store.record(run(key(0)))
        with pytest.raises(StoreLocked):
            Store.open(path)
    with Store.open(path) as again:
        row = again.batch("b")
        assert row is not None
        assert row.counts == {"queued": 1, "succeeded": 1}


def test_a_store_that_is_replaced_while_it_is_open_is_left_alone(tmp_path: Path) -> None:
    path, other = tmp_path / "state.db", tmp_path / "other.db"
    with Store.open(other) as store:
        store.record([accepted(windows=2)])
    with Store.open(path) as store:
        other.rename(path)
        with pytest.raises(StoreReplaced, match=r"state\.db was replaced while it was in use"):
            store.keep_in_place()
    with Store.open(path) as store:
        assert store.batch("b") is not None


def test_a_store_that_another_one_has_taken_the_place_of_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "state" / "state.db"
    with Store.open(path) as store:
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        with directories.opened(path.parent):
            lock = files.lock(path.with_name("state.db.lock"))
        with pytest.raises(StoreLocked):
            store.keep_in_place()
        assert not path.exists()
        os.close(lock)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Its owner and mode, which were named before, have nothing to do with it."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreUnlockable, match=r"no file locks \(.*\n.*run\.state_dir"):
        Store.open(tmp_path / "state.db")
