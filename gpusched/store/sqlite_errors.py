"""Errors of sqlite and of the operating system, in the words of the catalogue: whose fault it is, and what to do."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from gpusched.errors import StoreCorrupt, StoreFull, StoreLocked, StoreUnwritable

#: sqlite's codes for a write that did not fit: out of space, over quota, larger than the limit on file sizes
_NO_ROOM = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
_NO_TEXT = "it holds bytes where text should be"


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors of sqlite and the operating system into the catalogue's; others are bugs, and pass through."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code in _NO_ROOM:
            raise StoreFull(path=path, cause=error) from error
        if code == sqlite3.SQLITE_IOERR_SHORT_READ:
            raise StoreCorrupt(path=path, cause="it is truncated: shorter than its header says") from error
        if str(error).startswith("Could not decode to UTF-8"):  # Python's own error, without a code
            raise StoreCorrupt(path=path, cause=_NO_TEXT) from error
        match code & 0xFF:
            # SQLITE_ERROR: of a table, a column or an index that is missing, or there already
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_ERROR:
                raise StoreCorrupt(path=path, cause=error) from error
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                raise StoreLocked(path=path, holder="another program that reads or writes it") from error
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_IOERR:
                raise StoreUnwritable(path=path, cause=error) from error
        raise
    except UnicodeDecodeError as error:  # the same damage, where the message cannot even quote the bytes
        raise StoreCorrupt(path=path, cause=_NO_TEXT) from error
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StoreFull(path=path, cause=cause) from error
        raise StoreUnwritable(path=path, cause=cause) from error
