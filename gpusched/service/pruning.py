"""Pruning of the cache of parsed bars: files unused for long are removed, then the longest unused if it is too large.

A file may be removed while it is in use: a process that has mapped it keeps it, and the next one parses the data again.
Only files with the names of the cache's are removed: `cache.dir` may be a directory whose `bars` are the user's data.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time

from gpusched import directories, known_results
from gpusched.config import Cache

DAY_S = 86400.0
#: seconds after which an incomplete file counts as left over by a dead writer
LEFT_OVER_S = DAY_S
#: directory within the cache → names of its files (see `teacher.cache`, which is slow to import, and `known`); those
#: that are being written have a dot and a suffix
_NAMES = {
    "bars": re.compile(r"[A-Za-z0-9.&^=_-]+\.[0-9a-f]{16}(\.tmp(\.\d+)?)?"),
    known_results.DIRECTORY: known_results.NAME,
}


def prune_bars(cache: Cache) -> int:
    """Remove bars unused for `keep_days`, then the longest unused beyond `limit_mb`; return the number of files.

    So are the files of the index of results. Raises OSError.
    """
    removed = 0
    for name, ours in _NAMES.items():
        with contextlib.suppress(FileNotFoundError), directories.opened(cache.dir / name) as directory:
            names = [*filter(ours.fullmatch, directories.names(directory))]
            removed += _prune(directory, names, time.time(), cache.keep_days * DAY_S, cache.limit_mb * 1024 * 1024)
    return removed


def _prune(directory: int, names: list[str], now: float, most_s: float, most_bytes: int) -> int:
    """`most_s`, `most_bytes` 0: no limit."""
    kept: list[tuple[float, int, str]] = []
    old: list[str] = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                continue
            unused_s = now - status.st_mtime
            limit = LEFT_OVER_S if name.startswith(".") else most_s
            if limit and unused_s > limit:
                old.append(name)
            else:
                kept.append((status.st_mtime, status.st_size, name))
    size = sum(size for _, size, _ in kept)
    for _, bytes_, name in sorted(kept):
        if not most_bytes or size <= most_bytes:
            break
        old.append(name)
        size -= bytes_
    for name in old:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
    return len(old)
