"""The Linux system calls that the standard library does not have."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_SFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_SIGNAL_SET_BYTES = 128

#: larger ones would not come from the heap
_LARGEST_PIECE = 64 * 1024
_SMALLEST_PIECE = 24
#: glibc keeps smaller pieces by their exact size, 16 bytes apart
_EXACT_BINS = 1032

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)

_OWN_TASKS = Path("/proc/self/task")


def die_with_parent(signum: signal.Signals) -> None:
    """Ask for `signum` when the thread that created this process ends. Check afterwards that it has not already."""
    if _prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def block_and_receive(*signals: signal.Signals) -> int:
    """Block signals and return a descriptor that becomes readable when one is pending (signalfd).

    A forked process has nothing of this but the blocked mask, whereas handlers and a wake-up pipe would be shared
    with it until it has reset them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    mask = ctypes.create_string_buffer(_SIGNAL_SET_BYTES)
    for signum in signals:
        _libc.sigaddset(mask, signum)
    descriptor: int = _libc.signalfd(-1, mask, _SFD_FLAGS)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return descriptor


def pending_signals(descriptor: int) -> list[int]:
    """Take the pending signals from a descriptor of `block_and_receive`."""
    try:
        # An array of struct signalfd_siginfo, 128 bytes each, that starts with the number.
        received = os.read(descriptor, 16 * 128)
    except BlockingIOError:
        return []
    return [int.from_bytes(received[start : start + 4], sys.byteorder) for start in range(0, len(received), 128)]


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


def fill_heap_holes() -> None:
    """Allocate, for good, all that malloc has free below the end of its heap, so that new memory lies side by side.

    What a forked process allocates would otherwise go into holes among the pages that it shares, each of which is then
    copied: a sixth of all page faults of a small training, for less than a megabyte and a millisecond once.
    """
    if not hasattr(_libc, "malloc_trim"):  # glibc only
        return
    _libc.malloc.restype = _libc.sbrk.restype = ctypes.c_void_p
    end = _libc.sbrk(ctypes.c_ssize_t(0))
    size = _LARGEST_PIECE
    while size >= _SMALLEST_PIECE:
        piece = _libc.malloc(ctypes.c_size_t(size))
        if piece is None or piece + size > end:  # no hole of this size is left
            _libc.free(ctypes.c_void_p(piece))
            size = size // 2 if size > _EXACT_BINS else size - 16


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
