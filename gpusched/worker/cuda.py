"""What the CUDA driver shows this process: the proof that a window got the device that it was promised.

Asks the driver's own library (libcuda), whatever the window trains with. Only for window processes: what it starts does
not survive a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import uuid
from typing import Any

from gpusched.core.model import CPU
from gpusched.workload import DeviceMismatch

_NO_DEVICE = 100


def require_device(device: str) -> str | None:
    """The UUID of the one device that CUDA shows, None where there is no CUDA driver to ask. Raises DeviceMismatch."""
    if device == CPU:
        return None
    shown = shown_devices()
    if shown is None:
        return None
    if shown != (device.partition("-")[2].lower(),):
        raise DeviceMismatch(f"the slot's device is {device}, and CUDA shows {', '.join(shown) or 'none'}")
    return device


def shown_devices() -> tuple[str, ...] | None:
    """The UUIDs, without `GPU-` or `MIG-`, of the devices that CUDA shows in its order; None if it cannot be asked."""
    try:
        cuda: Any = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    started = cuda.cuInit(0)
    if started == _NO_DEVICE:
        return ()
    count = ctypes.c_int()
    if started or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return None
    get_uuid = cuda.cuDeviceGetUuid
    with contextlib.suppress(AttributeError):
        get_uuid = cuda.cuDeviceGetUuid_v2  # knows MIG instances
    found = []
    for index in range(count.value):
        handle, text = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        if cuda.cuDeviceGet(ctypes.byref(handle), index) or get_uuid(text, handle):
            return None
        found.append(str(uuid.UUID(bytes=bytes(text))))
    return tuple(found)
