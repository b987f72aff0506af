"""The CUDA driver as a window process meets it: is this the device that it was promised, and can CUDA work on it?

Asks the driver's own library (libcuda), whatever the window trains with. Only for window processes: what it starts does
not survive a fork.

A window that trains by CUDA makes the device's primary context here, before its workload does anything: CUDA's runtime
then uses that one. LightGBM dies of an error that it meets while it makes the context itself: while its exception is
on the way up, a destructor calls CUDA, which throws once more, and the process is aborted.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
import uuid
from typing import Any, Literal

from gpusched.core.model import CPU, DeviceType
from gpusched.workload import DeviceMismatch

NO_DEVICE = 100
#: a card in EXCLUSIVE_PROCESS mode that another process has
BUSY = 46
#: room helps against these: out of memory, too many clients of MPS
_WANT_OF_ROOM = frozenset({2, 807, 808, 809})
#: seconds that a process which has ended may still have its card: the driver can put off what it does at the end of one
BUSY_S = 2.0


class CudaError(Exception):
    """The CUDA driver does not let this process use its device, in the driver's words."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    @property
    def kind(self) -> Literal["device_memory", "device_lost"]:
        """What it means for the window. It has done nothing yet, so it is the device that cannot be used."""
        return "device_memory" if self.code in _WANT_OF_ROOM else "device_lost"


def require_device(device: str, device_type: DeviceType) -> str | None:
    """Make sure that CUDA shows the one device that was promised, and can work on it if `device_type` is cuda.

    Returns its UUID, None where nothing was promised, or there is no CUDA driver to ask: whoever promised a device may
    know of another way to it. Raises DeviceMismatch, CudaError.
    """
    if device == CPU and device_type != "cuda":
        return None
    cuda = _library()
    if cuda is None:
        if device == CPU:
            raise CudaError("there is no CUDA driver here (libcuda.so.1)", NO_DEVICE)
        return None
    try:
        shown = _shown(cuda)
    except CudaError as error:
        if device_type != "cuda" and error.code != NO_DEVICE:
            return None  # that CUDA does not work proves nothing to one who uses OpenCL
        raise
    if device != CPU and shown != (device.partition("-")[2].lower(),):
        raise DeviceMismatch(f"the slot's device is {device}, and CUDA shows {', '.join(shown) or 'none'}")
    if device_type == "cuda":
        _hold_context(cuda)
    return None if device == CPU else device


def _library() -> Any | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def _shown(cuda: Any) -> tuple[str, ...]:
    """The UUIDs, without `GPU-` or `MIG-`, of the devices that CUDA shows, in its order."""
    _call(cuda, "cuInit", 0)
    count = ctypes.c_int()
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    # the second version knows MIG instances
    get_uuid = "cuDeviceGetUuid_v2" if hasattr(cuda, "cuDeviceGetUuid_v2") else "cuDeviceGetUuid"
    found = []
    for index in range(count.value):
        handle, text = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        _call(cuda, "cuDeviceGet", ctypes.byref(handle), index)
        _call(cuda, get_uuid, text, handle)
        found.append(str(uuid.UUID(bytes=bytes(text))))
    return tuple(found)


def _hold_context(cuda: Any) -> None:
    """Make the primary context of device 0 and keep it for as long as the process lives."""
    if not hasattr(cuda, "cuDevicePrimaryCtxRetain"):
        return  # a driver from before CUDA 7; what is newer says so itself
    handle, context = ctypes.c_int(), ctypes.c_void_p()
    _call(cuda, "cuDeviceGet", ctypes.byref(handle), 0)
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            _call(cuda, "cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
        except CudaError as error:
            if error.code != BUSY or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_S / 20)
        else:
            return


def _call(cuda: Any, function: str, *arguments: Any) -> None:
    code = getattr(cuda, function)(*arguments)
    if code:
        name, words = (_text(cuda, ask, code) for ask in ("cuGetErrorName", "cuGetErrorString"))
        raise CudaError(f"{words or 'the CUDA driver fails'}: {function} returned {name or code}", code)


def _text(cuda: Any, function: str, code: int) -> str:
    """What the driver calls an error, or empty."""
    text = ctypes.c_char_p()
    with contextlib.suppress(AttributeError):
        getattr(cuda, function)(code, ctypes.byref(text))
    return (text.value or b"").decode(errors="replace")
