"""Opening the file: it is private, sound and of this version before anything is read from it.

`connect` checks whose file it is, its pages and its version, and applies the scripts of `migrations/` that it lacks.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gpusched.errors import StoreCorrupt, StoreNewer

T = TypeVar("T")

#: "gpus" in ASCII: distinguishes a store from any other sqlite file
APPLICATION_ID = 0x67707573
#: the n-th script takes a database from version n - 1 to n
MIGRATIONS = ("1.sql", "2.sql", "3.sql", "4.sql")
VERSION = len(MIGRATIONS)

_BUSY_TIMEOUT_MS = 2000
#: sqlite's errors if it cannot make the files that it needs to read a store; and the bits of a code without its details
_NOT_MADE, _PRIMARY = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY), 0xFF
#: files up to this size are checked page by page when opened (60 ms); damage to larger ones shows when it is read
_CHECK_BYTES = 64 * 1024 * 1024
#: the log is cut back to this size after a large batch
_LOG_BYTES = 16 * 1024 * 1024


def connect(path: Path) -> sqlite3.Connection:
    """Open the file at `path`, which exists, for reading and writing."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open the file at `path` for reading only.

    One of an older version is read from a copy in memory that is brought up to date: the file may be nobody's to
    write here, or another process's, and does not change.
    """
    connection = _open_to_read(path)
    try:
        version = _checked_version(connection, path)
        return connection if version == VERSION else _up_to_date(connection, version)
    except BaseException:
        connection.close()
        raise


def make_private(path: Path) -> None:
    """Create the file for its owner only; closed before sqlite opens it, since a close would drop sqlite's locks."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.closing(os.fdopen(fd, "r+b")):
        status = os.fstat(fd)
        if status.st_mode & 0o077:
            try:
                os.fchmod(fd, 0o600)  # sqlite gives the same mode to -wal and -shm
            except PermissionError:  # a file system without modes, or the file of somebody else
                if status.st_uid != path.parent.stat().st_uid:
                    raise


def peeked(path: Path, read: Callable[[Callable[..., Any]], list[T]]) -> list[T]:
    """What `read` finds by executing queries; nothing where there is no store or it cannot be read. Changes nothing."""
    try:
        with contextlib.closing(_open_to_read(path)) as connection:
            return read(connection.execute)
    except (sqlite3.Error, TypeError, ValueError):
        return []


def _open_to_read(path: Path) -> sqlite3.Connection:
    """Open a file for reading only, also where nothing can be written; errors show when it is read.

    sqlite makes two files beside a store. Where it cannot (a read-only mount), a store without them can be read as a
    file that does not change: whoever has a store open has made them.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema")
    except sqlite3.Error as error:
        beside = (f"{path}-shm", f"{path}-wal")
        if error.sqlite_errorcode & _PRIMARY in _NOT_MADE and not any(map(os.path.lexists, beside)):
            connection.close()
            return sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
    return connection


def _checked_version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the store in a file. Raises StoreCorrupt if it is none, StoreNewer if it is too new."""
    execute = connection.execute
    execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    ((application_id,),) = execute("PRAGMA application_id").fetchall()
    ((version,),) = execute("PRAGMA user_version").fetchall()
    ((tables,),) = execute("SELECT count(*) FROM sqlite_schema").fetchall()
    if tables and application_id != APPLICATION_ID:
        raise StoreCorrupt(path=path, cause="it is a database of another program")
    if version < 0:
        raise StoreCorrupt(path=path, cause=f"its version is {version}")
    if version > VERSION:
        raise StoreNewer(path=path, version=version, supported=VERSION)
    return int(version)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is a sound store, and bring it to this version."""
    execute = connection.execute
    version = _checked_version(connection, path)
    execute("PRAGMA journal_mode = WAL")
    execute("PRAGMA synchronous = FULL")
    execute("PRAGMA foreign_keys = ON")
    execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    if path.stat().st_size <= _CHECK_BYTES:
        ((finding, *_), *_) = execute("PRAGMA quick_check(1)").fetchall()
        if finding != "ok":
            raise StoreCorrupt(path=path, cause=finding.splitlines()[-1])
    _migrate(connection, version)


def _up_to_date(connection: sqlite3.Connection, version: int) -> sqlite3.Connection:
    """A copy in memory of a store of an older `version`, whose connection is closed."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    try:
        with contextlib.closing(connection):
            connection.backup(copy)
        _migrate(copy, version)
    except BaseException:
        copy.close()
        raise
    return copy


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Apply the scripts that a store of `version` lacks, each whole or not at all."""
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        sql = (Path(__file__).parent / "migrations" / script).read_text("utf-8")
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {sql}; PRAGMA application_id = {APPLICATION_ID};"
                f" PRAGMA user_version = {number}; COMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
