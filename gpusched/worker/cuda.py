"""The CUDA driver's view of a window's device: whether it is the promised one, and whether CUDA can work on it.

Asks the driver's own library (libcuda), for windows of every device type. Only for window processes: an initialized
driver does not survive a fork.

For a window that trains by CUDA the device's primary context is made here, before its workload runs, and CUDA's runtime
then uses that context. If LightGBM made it and failed, the process would abort: while LightGBM's exception unwinds, a
destructor calls CUDA, which throws once more.
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
#: the code for a card in EXCLUSIVE_PROCESS mode that another process holds
BUSY = 46
#: codes that pass when room is made: out of memory, too many clients of MPS
_WANT_OF_ROOM = frozenset({2, 807, 808, 809})
#: seconds to wait for a busy card: the driver may release the card of a process only some time after its end
BUSY_S = 2.0


class CudaError(Exception):
    """The CUDA driver does not let this process use its device, in the driver's words."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    @property
    def kind(self) -> Literal["device_memory", "device_lost"]:
        """The kind of failure. The window has done nothing yet, so the device is the cause."""
        return "device_memory" if self.code in _WANT_OF_ROOM else "device_lost"


def require_device(device: str, device_type: DeviceType) -> str | None:
    """Make sure that CUDA shows the one device that was promised, and can work on it if `device_type` is cuda.

    Returns the device's UUID; None if no GPU was promised, or if CUDA does not work here: a window that does not train
    by CUDA may reach its device by OpenCL. Raises DeviceMismatch, CudaError.
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
            return None  # OpenCL may still work
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
    uuids = []
    for index in range(count.value):
        handle, text = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        _call(cuda, "cuDeviceGet", ctypes.byref(handle), index)
        _call(cuda, get_uuid, text, handle)
        uuids.append(str(uuid.UUID(bytes=bytes(text))))
    return tuple(uuids)


def _hold_context(cuda: Any) -> None:
    """Make the primary context of device 0 and keep it for as long as the process lives."""
    if not hasattr(cuda, "cuDevicePrimaryCtxRetain"):
        return  # a driver older than CUDA 7; a newer runtime will say so itself
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
    """The driver's name for an error, or its description; empty if it has none."""
    text = ctypes.c_char_p()
    with contextlib.suppress(AttributeError):
        getattr(cuda, function)(code, ctypes.byref(text))
    return (text.value or b"").decode(errors="replace")
