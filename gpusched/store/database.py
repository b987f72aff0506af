"""The file of the store while it is open: its lock, its connection, its transactions, and its place on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from gpusched import files
from gpusched.errors import StoreCorrupt, StoreLocked, StoreReplaced, StoreUnlockable
from gpusched.store.opening import connect, connect_to_read, make_private
from gpusched.store.sqlite_errors import translated

#: errors of flock on file systems without locks, as some network file systems are
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class Database:
    """An open file that only this process writes to; made by `Database.open`. One by `peek` is only read."""

    def __init__(self, path: Path, lock_fd: int, connection: sqlite3.Connection) -> None:
        self.path = path
        self._lock_fd = lock_fd
        self._connection = connection
        self._syncs = True
        self._status = path.stat()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file at `path`; see `Store.open`."""
        with contextlib.ExitStack() as on_error, translated(path):
            files.make_private_directory(path.parent)
            lock_fd = _lock(path)
            on_error.callback(os.close, lock_fd)
            make_private(path)
            connection = connect(path)
            on_error.callback(connection.close)
            database = cls(path, lock_fd, connection)
            on_error.pop_all()
        return database

    @classmethod
    def peek(cls, path: Path) -> Self:
        """Open the file at `path` for reading only, without its lock."""
        with translated(path):
            return cls(path, -1, connect_to_read(path))

    @property
    def mark(self) -> str:
        """The device and inode number of the lock file: while a process has that open, no other file has the number."""
        status = os.fstat(self._lock_fd)
        return f"{status.st_dev:x}-{status.st_ino:x}"

    def close(self) -> None:
        """Fold the log into the file and let the next process in. Closing twice does nothing."""
        self._connection.close()
        if self._lock_fd < 0:
            return
        if _has_status(os.fstat(self._lock_fd), lock_path(self.path)) and not _has_status(self._status, self.path):
            _remove_log(self.path)
        os.close(self._lock_fd)
        self._lock_fd = -1

    def keep_in_place(self) -> bool:
        """Write the file anew if it was removed while it was open; see `Store.keep_in_place`."""
        with translated(self.path):
            try:
                if os.path.samestat(self._status, self.path.stat()):
                    return False
            except FileNotFoundError:
                self._restore()
                return True
        raise StoreReplaced(path=self.path)

    def _restore(self) -> None:
        """Copy all commits from the open file, which no longer has a name, to a new one at the old path."""
        files.make_private_directory(self.path.parent)
        if not _has_status(os.fstat(self._lock_fd), lock_path(self.path)):
            lock_fd = _lock(self.path)
            os.close(self._lock_fd)
            self._lock_fd = lock_fd
        copy = self.path.with_name(f".{self.path.name}.restored")
        copy.unlink(missing_ok=True)
        make_private(copy)
        with contextlib.closing(sqlite3.connect(copy)) as target:
            self._connection.backup(target)
        copy.rename(self.path)
        self._connection.close()
        _remove_log(self.path)
        self._status, self._connection = self.path.stat(), connect(self.path)
        self._syncs = True

    def execute(self, sql: str, arguments: Sequence[object] | Mapping[str, object] = ()) -> sqlite3.Cursor:
        """Execute a statement of a transaction. Errors are sqlite's own, which `transaction` translates."""
        return self._connection.execute(sql, arguments)

    def execute_many(self, sql: str, rows: Iterable[Sequence[object]]) -> int:
        """Execute a statement of a transaction for each row; return the number of rows that it changed."""
        return self._connection.executemany(sql, rows).rowcount

    def query(self, sql: str, arguments: Sequence[object] | Mapping[str, object] = ()) -> list[Any]:
        """The rows of a query."""
        with translated(self.path):
            return self._connection.execute(sql, arguments).fetchall()

    @contextlib.contextmanager
    def decoding(self, name: str) -> Iterator[None]:
        """Turn errors of decoding into `StoreCorrupt`; `name` says of which row."""
        try:
            yield
        except msgspec.MsgspecError as error:
            raise StoreCorrupt(path=self.path, cause=f"{name}: {error}") from error

    @contextlib.contextmanager
    def transaction(self, *, sync: bool = True) -> Iterator[None]:
        """Commit the statements executed in the block, all or none of them."""
        with translated(self.path):
            self._sync(sync)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # sqlite has already rolled back after some errors
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _sync(self, now: bool) -> None:
        """Set whether transactions wait for the disk.

        One that does not wait survives a kill of the process, but a loss of power only once a later one has waited.
        """
        if now != self._syncs:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if now else 'NORMAL'}")
            self._syncs = now


def _has_status(status: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(status, path.stat())
    except OSError:
        return False


def _remove_log(path: Path) -> None:
    """Remove the log files of a store that has lost its name: sqlite would apply them to the next file of that name."""
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).unlink()


def _lock(path: Path) -> int:
    try:
        return files.lock(lock_path(path))
    except files.Locked as locked:
        raise StoreLocked(path=path, holder=locked.holder) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise StoreUnlockable(path=path, cause=error.strerror) from error


def lock_path(path: Path) -> Path:
    """The file that whoever writes to the store at `path` has locked."""
    return path.with_name(path.name + ".lock")
