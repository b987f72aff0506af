"""The logs that processes write: the part that a reader of their end needs."""

from __future__ import annotations

import os
from pathlib import Path

#: a crash leaves its reason above the stack of every thread and the list of every extension module
END_BYTES = 64 * 1024


def end_of_log(path: Path, *, after: int = 0) -> str:
    """The last `END_BYTES` of a log, and nothing of its first `after` bytes; what keeps it from being read, if so."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            return os.pread(descriptor, END_BYTES, max(after, size - END_BYTES)).decode(errors="replace")
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"({error})"


def size_of_log(path: Path) -> int:
    """Bytes that are in it now, 0 if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
