"""Permissions that count for root as for everybody else."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

_VERSION_3 = 0x20080522
#: the bits of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
_PAST_PERMISSIONS = 1 << 1 | 1 << 2
_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextlib.contextmanager
def closed(directory: Path, mode: int = 0) -> Iterator[Path]:
    """Nobody may do in the directory more than its mode lets the owner, not even root in this thread."""
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()
    assert _libc.capget(ctypes.byref(header), sets) == 0
    before = sets[0].effective
    directory.chmod(mode)
    sets[0].effective &= ~_PAST_PERMISSIONS
    try:
        assert _libc.capset(ctypes.byref(header), sets) == 0
        yield directory
    finally:
        sets[0].effective = before
        assert _libc.capset(ctypes.byref(header), sets) == 0
        directory.chmod(0o700)
