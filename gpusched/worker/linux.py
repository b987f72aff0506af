"""The Linux system calls that the standard library does not have."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_SFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_SIGNAL_SET_BYTES = 128

#: bytes; larger holes are filled with several pieces
_LARGEST_PIECE = 64 * 1024
_SMALLEST_PIECE = 24
#: bytes; glibc has a list for each exact size of smaller free pieces, 16 bytes apart
_EXACT_BINS = 1032

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2 << 20
#: bytes by which the heap grows at once
_HEAP_AHEAD = 16 << 20
#: bytes that the launcher, or a window that does little, may allocate before it reaches the huge pages
_OWN_NEEDS = 128 << 10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.malloc.argtypes = (ctypes.c_size_t,)
_libc.malloc.restype = ctypes.c_void_p
_libc.free.argtypes = (ctypes.c_void_p,)
_libc.getenv.argtypes = (ctypes.c_char_p,)
_libc.getenv.restype = ctypes.c_void_p
_libc.sbrk.argtypes = (ctypes.c_ssize_t,)
_libc.sbrk.restype = ctypes.c_void_p
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)

_PAGE = os.sysconf("SC_PAGE_SIZE")
_OWN_TASKS = Path("/proc/self/task")
_OWN_DESCRIPTORS = Path("/proc/self/fd")
#: more than any descriptor is
_BEYOND = 1 << 30
#: number of the system call `close_range` on every architecture; without it (before Linux 5.9) Python would close one
#: descriptor after the other, up to `_BEYOND`
_CLOSE_RANGE = 436
_CLOSES_RANGES: bool = _libc.syscall(_CLOSE_RANGE, _BEYOND, _BEYOND, 0) == 0


def close_from(first: int) -> None:
    """Close all descriptors from `first` on."""
    if _CLOSES_RANGES:
        os.closerange(first, _BEYOND)
        return
    for descriptor in map(int, os.listdir(_OWN_DESCRIPTORS)):  # noqa: PTH208 - in every window
        if descriptor >= first:
            with contextlib.suppress(OSError):  # the one of the list itself
                os.close(descriptor)


def die_with_parent(signum: signal.Signals) -> None:
    """Ask for `signum` when the thread that created this process ends. Check afterwards that it has not yet ended."""
    if _prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
        raise _last_error()


def die_of(signum: int) -> NoReturn:
    """End this process by a signal, past any handler; with code 128 + `signum` if that signal ends nothing."""
    with contextlib.suppress(OSError):  # SIGKILL can have no handler
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signum])
    os.kill(os.getpid(), signum)
    os._exit(128 + signum)


def block_and_receive(*signals: signal.Signals) -> int:
    """Block signals and return a descriptor that becomes readable when one is pending (signalfd).

    A forked process inherits nothing of this but the blocked mask, whereas it would share handlers and a wake-up pipe
    until it reset them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    mask = ctypes.create_string_buffer(_SIGNAL_SET_BYTES)
    for signum in signals:
        _libc.sigaddset(mask, signum)
    descriptor: int = _libc.signalfd(-1, mask, _SFD_FLAGS)
    if descriptor < 0:
        raise _last_error()
    return descriptor


def pending_signals(descriptor: int) -> list[int]:
    """Take the pending signals from a descriptor of `block_and_receive`."""
    try:
        # An array of struct signalfd_siginfo, 128 bytes each, that starts with the number.
        received = os.read(descriptor, 16 * 128)
    except BlockingIOError:
        return []
    return [int.from_bytes(received[start : start + 4], sys.byteorder) for start in range(0, len(received), 128)]


def rewrite_variable(name: str, value: str) -> None:
    """Set a variable where others see it, too: in the environment that this process was started with.

    /proc/PID/environ shows that memory, of this process and of those that are forked from it. A shorter value is filled
    up with slashes. Raises ValueError if there is no room for it.
    """
    place, room = _libc.getenv(name.encode()), len(os.environ.get(name, ""))
    if place is None or len(value.encode()) > room:
        raise ValueError(f"no room for {name}={value}")
    ctypes.memmove(place, value.encode().ljust(room, b"/"), room)
    os.environ[name] = value  # for the programs that are started from here


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise _last_error()


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def lay_out_heap() -> None:
    """Prepare malloc for forks: a forked process allocates in huge pages, beyond all memory that it shares.

    Otherwise its allocations fill holes in shared pages, which are then copied, and let the heap grow by one page fault
    for each page: together half of all faults of a small training. Preparing takes a millisecond, once.
    """
    if not hasattr(_libc, "malloc_trim"):  # glibc only
        return
    _libc.mallopt(_M_MMAP_THRESHOLD, _HEAP_AHEAD)  # so that arrays come from the heap, too
    _libc.mallopt(_M_TRIM_THRESHOLD, _HEAP_AHEAD)
    _libc.mallopt(_M_TOP_PAD, 0)
    _libc.malloc_trim(0)  # a smaller process is faster to fork, too
    _fill_holes()
    piece = _libc.malloc(2 * _LARGEST_PIECE)  # too large for a hole, so nothing is used beyond it
    if piece is None:
        return
    _libc.mallopt(_M_TOP_PAD, _HEAP_AHEAD)
    # More than the heap has left, so it grows; this allocation ends `_OWN_NEEDS` below a huge page.
    first = (_heap_end() + _OWN_NEEDS) // _HUGE_PAGE * _HUGE_PAGE + _HUGE_PAGE
    _libc.malloc(first - _OWN_NEEDS - (piece + 2 * _LARGEST_PIECE))
    last = _heap_end() // _HUGE_PAGE * _HUGE_PAGE
    if last > first:
        _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_HUGEPAGE)


def _fill_holes() -> None:
    """Allocate, for good, all free pieces that malloc has below the end of its heap."""
    end = _heap_end()
    size = _LARGEST_PIECE
    while size >= _SMALLEST_PIECE:
        piece = _libc.malloc(size)
        if piece is None or piece + size > end:  # no hole of this size is left
            _libc.free(piece)
            size = size // 2 if size > _EXACT_BINS else size - 16


def _heap_end() -> int:
    end: int = _libc.sbrk(0)
    return end


def thread_names() -> list[str]:
    """The names of this process's threads, the main one first. The kernel cuts them at 15 bytes, also amid a letter."""
    return [(task / "comm").read_text("utf-8", "replace").strip() for task in sorted(_OWN_TASKS.iterdir(), key=_number)]


def _number(path: Path) -> int:
    return int(path.name)


def thread_count() -> int:
    return len(os.listdir(_OWN_TASKS))  # noqa: PTH208 - before every fork: no Path for each thread


def own_bytes() -> int:
    """Bytes of this process's resident anonymous memory; a process that is forked from it shares all of it at first."""
    _, resident, of_files, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(of_files)) * _PAGE


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
