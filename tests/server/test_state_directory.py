"""The daemon's state directory and the store in it: not there yet, of others, damaged, too new, held by others."""

from __future__ import annotations

import contextlib
import sqlite3
import stat

import pytest

from gpusched.errors import BAD_INPUT, DaemonError
from tests.server.support import Daemon, finished


def refused(daemon: Daemon) -> str:
    """The error of a daemon that does not start."""
    daemon.launch()
    assert daemon.end() == BAD_INPUT
    said = daemon.log.read_text()
    assert "Traceback" not in said
    return said


def test_a_state_directory_that_cannot_be_written(service: Daemon) -> None:
    (service.directory / "state").touch()
    service.launch()
    assert service.end() == 4
    log = service.log.read_text()
    assert "Traceback" not in log
    assert str(service.directory / "state") in log


def test_a_directory_of_others_is_left_alone(service: Daemon) -> None:
    """`state_dir = "/tmp"` would take it from all other programs."""
    state = service.directory / "state"
    state.mkdir()
    state.chmod(0o1777)
    (state / "theirs").touch()
    assert f"{state} is open to others and holds other things than a daemon's (theirs)" in refused(service)
    assert [path.name for path in state.iterdir()] == ["theirs"]
    assert stat.S_IMODE(state.stat().st_mode) == 0o1777


@pytest.mark.parametrize("name", ["lost+found", "state.db.lock"])
def test_a_new_file_system_or_what_a_daemon_has_left_is_made_private(service: Daemon, name: str) -> None:
    state = service.directory / "state"
    state.mkdir()
    state.chmod(0o755)
    (state / name).touch()
    service.start()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    service.stop()


def test_a_damaged_store_is_named_and_results_are_reused_without_it(service: Daemon) -> None:
    service.start()
    with service.connect() as connection:
        connection.submit(service.spec("S0", "S1"), source="x", name="before")
    assert finished(service, "before").counts == {"succeeded": 2}
    service.kill()
    store = service.directory / "state" / "state.db"
    for suffix in ("-wal", "-shm"):
        store.with_name(store.name + suffix).unlink(missing_ok=True)
    store.write_bytes(b"not a database, however long one looks at it" * 100)
    assert f"{store} is not a sound store" in refused(service)
    store.rename(store.with_name("aside"))
    service.start()
    with service.connect() as connection:
        connection.submit(service.spec("S0", "S1"), source="x", name="before")
    assert finished(service, "before").counts == {"reused": 2}


def test_a_store_that_is_damaged_under_a_daemon_ends_it(service: Daemon) -> None:
    service.start()
    store = service.directory / "state" / "state.db"
    with contextlib.closing(sqlite3.connect(store)) as other:
        other.execute("DROP TABLE windows")
    with service.connect() as connection, pytest.raises(DaemonError):
        connection.submit(service.spec("S0"), source="x", name="lost")
    assert service.end() == BAD_INPUT
    said = service.log.read_text()
    assert f"{store} is not a sound store: no such table: windows" in said
    assert "Traceback" not in said


def test_a_store_of_a_newer_version_is_left_alone(service: Daemon) -> None:
    service.start()
    service.stop()
    store = service.directory / "state" / "state.db"
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.commit()
    before = store.read_bytes()
    assert "written by a newer gpusched (store version 99" in refused(service)
    assert store.read_bytes() == before


def test_a_store_that_another_program_holds_waits_for_nobody(service: Daemon) -> None:
    """Nothing moves while it is held, and all goes on when it is released."""
    service.start(COMMIT_PATIENCE_S=0.2)
    database = service.directory / "state" / "state.db"
    with service.fifo() as release, contextlib.closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN IMMEDIATE")
        with service.connect() as connection, pytest.raises(DaemonError, match="cannot write its store"):
            connection.submit(service.spec("FIFO"), source="x", name="waiting")
        other.rollback()
        with service.connect() as connection:
            assert connection.submit(service.spec("FIFO"), source="x", name="waiting").how == "known"
        release()
        assert finished(service, "waiting").counts == {"succeeded": 1}
