"""`python -m benchmarks.gpus.ballast LEAVE_MIB SECONDS [FILE]`: takes a card's memory except LEAVE_MIB, for SECONDS.

It waits until something is written to FILE, prints `ready` once it has the memory, and goes on taking memory that
others free. Its context alone keeps everybody else off a card in EXCLUSIVE_PROCESS mode.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path
from typing import Any

MIB = 1 << 20
#: sizes of allocations in MiB, the largest first
PIECES = (4096, 512, 64, 8, 2)


def main(leave_mib: int, seconds: float, file: Path | None = None) -> int:
    while file is not None and not (file.exists() and file.stat().st_size):
        time.sleep(0.01)
    try:
        cuda: Any = ctypes.CDLL("libcuda.so.1")
    except OSError:
        print("there is no CUDA driver", flush=True)
        return 1
    device, context = ctypes.c_int(), ctypes.c_void_p()
    code = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
        or cuda.cuCtxSetCurrent(context)
    )
    if code:
        print(f"CUDA refuses: {code}", flush=True)
        return 1
    until = time.monotonic() + seconds
    told = False
    while time.monotonic() < until:
        left = _take(cuda, leave_mib)
        if not told:
            print(f"ready: {left} MiB are left", flush=True)
            told = True
        time.sleep(0.05)
    return 0


def _take(cuda: Any, leave_mib: int) -> int:
    """Allocate until only `leave_mib` MiB are free; return the MiB that are."""
    free, total, at = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_uint64()
    for piece in PIECES:
        while not cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)):
            if free.value < (leave_mib + piece) * MIB or cuda.cuMemAlloc_v2(
                ctypes.byref(at), ctypes.c_size_t(piece * MIB)
            ):
                break
    return free.value // MIB


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), *map(Path, sys.argv[3:])))
