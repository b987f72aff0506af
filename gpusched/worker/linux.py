"""The Linux system calls that the standard library does not have."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)

_OWN_TASKS = Path("/proc/self/task")


def die_with_parent(signum: signal.Signals) -> None:
    """Ask for `signum` when the thread that created this process ends. Check afterwards that it has not already."""
    if _prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def return_free_memory() -> None:
    """Give what malloc keeps for later back to the kernel: a smaller process is faster to fork."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:  # glibc only
        trim(0)


def thread_names() -> list[str]:
    """The names of this process's threads, the main one first."""
    return [(task / "comm").read_text().strip() for task in sorted(_OWN_TASKS.iterdir(), key=_number)]


def _number(path: Path) -> int:
    return int(path.name)


def thread_count() -> int:
    return len(os.listdir(_OWN_TASKS))  # noqa: PTH208 - before every fork: no Path for each thread


def children() -> list[int]:
    """The pids of this (single-threaded) process's children, zombies included.

    Empty on a kernel without CONFIG_PROC_CHILDREN, which no distribution ships.
    """
    try:
        descriptor = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        text = b""
        while chunk := os.read(descriptor, 65536):
            text += chunk
    finally:
        os.close(descriptor)
    return [int(pid) for pid in text.split()]
