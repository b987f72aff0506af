"""Keeps a store to one process, in a directory of its own."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gpusched.errors import StoreLocked


def make_private_directory(directory: Path) -> None:
    """As `mkdir -p`, private all the way."""
    if not directory.is_dir():
        make_private_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def lock(path: Path) -> int:
    """The descriptor that keeps other processes out until it is closed. The lock file names its holder's PID."""
    lock_path = path.with_name(path.name + ".lock")
    fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            raise StoreLocked(path=path, holder=f"the process {pid}" if pid else "another process") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd
