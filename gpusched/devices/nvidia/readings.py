"""Readings of devices by NVML, and the driver's events about them. Every call may block for half a minute.

Values that a card does not report are None, never zero. A device that fails does not affect the readings of others.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Self

from gpusched.core.model import Reading
from gpusched.devices.nvidia.binding import nvml_binding
from gpusched.devices.nvidia.strangers import strangers

#: XIDs that are not the device's fault. Faults of the application, as NVIDIA's k8s-device-plugin lists them:
#: graphics engine exception, page fault, reset channel, preemptive cleanup, video processor, context switch timeout.
#: Memory errors that the device has handled (NVIDIA's XID catalogue): row to be remapped, many single-bit errors,
#: contained error.
HARMLESS_XIDS = frozenset({13, 31, 43, 45, 68, 109, 63, 92, 94})
_XIDS = {
    48: "double-bit ECC error",
    64: "row remapping failed",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    95: "uncontained memory error",
    119: "the GPU's system processor does not answer",
    120: "the GPU's system processor failed",
}
#: inode of the initial PID namespace (PROC_PID_INIT_INO in Linux)
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
#: an event's instance number when it concerns the whole GPU
_WHOLE_GPU = 0xFFFFFFFF


class Unreadable(Exception):
    """A device, or NVML as a whole, did not answer this time."""


class Gone(Exception):
    """A device cannot be trusted any more; the message is the reason."""


class Corrupt(Gone):
    """The device answers, but its memory has lost data."""


class Reader:
    """A session of NVML, and the devices `ids` in it. Not thread-safe; every method may block."""

    def __init__(
        self, ids: Iterable[str], *, slow_s: float, sees_own_pids: bool, windows: Collection[int] = ()
    ) -> None:
        """`windows` as for `Sampler`. Raises `Unreadable` if NVML cannot be started."""
        self._windows = windows
        self._nvml: Any = nvml_binding()
        self._slow_s = slow_s
        self._sees_own_pids = sees_own_pids
        self._handles: dict[str, Any] = {}
        self._parents: dict[str, Any] = {}
        #: by MIG instance's UUID: its GPU instance ID
        self._instances: dict[str, int | None] = {}
        #: UUIDs of the cards, by the addresses of their handles
        self._uuids: dict[int | None, str] = {}
        #: by device: uncorrected memory errors counted so far; those before the first reading are past
        self._ecc_errors: dict[str, int] = {}
        self._events: Any = None
        try:
            self._nvml.nvmlInit()
        except Exception as error:
            raise Unreadable(str(error)) from error
        for device_id in ids:
            with contextlib.suppress(Unreadable, Gone):
                self._open(device_id)
        self.watch()

    def close(self) -> None:
        self._free_events()
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def has_events(self) -> bool:
        return self._events is not None

    def read(self, device_id: str, at: float) -> Reading:
        """Take one reading. Raises `Gone`, or `Unreadable` if no question was answered."""
        nvml = self._nvml
        handle = self._open(device_id)
        questions = _Questions(nvml, self._slow_s)
        memory = questions.ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        utilisation = questions.ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        temperature = questions.ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        power = questions.ask(nvml.nvmlDeviceGetPowerUsage, handle)
        power_limit = questions.ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        fan = questions.ask(nvml.nvmlDeviceGetFanSpeed, handle)
        processes = None
        if self._sees_own_pids:
            processes = questions.ask(nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
            if processes is None:
                processes = questions.ask(nvml.nvmlDeviceGetComputeRunningProcesses_v2, handle)
        ecc_errors = questions.ask(
            nvml.nvmlDeviceGetTotalEccErrors,
            self._parents[device_id],
            nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            nvml.NVML_VOLATILE_ECC,
        )
        if questions.failed and not questions.answered:
            raise Unreadable(questions.failed)
        if ecc_errors is not None and ecc_errors > self._ecc_errors.setdefault(device_id, ecc_errors):
            self._ecc_errors[device_id] = ecc_errors
            raise Corrupt("double-bit ECC error: memory that the card could not correct")
        used = _by_pid(processes, self._windows)
        return Reading(
            device_id=device_id,
            at=at,
            # a card that shares the machine's memory has none of its own
            memory_total_bytes=memory.total if memory and memory.total else None,
            memory_free_bytes=memory.free if memory and memory.total else None,
            utilisation=utilisation.gpu / 100 if utilisation and utilisation.gpu <= 100 else None,
            temperature_c=float(temperature) if temperature is not None else None,
            power_w=power / 1000 if power is not None else None,
            power_limit_w=power_limit / 1000 if power_limit is not None else None,
            fan=min(1.0, fan / 100) if fan is not None else None,
            process_memory_bytes=used,
            foreign=strangers(used or {}, self._windows),
        )

    def wait(self, timeout_s: float) -> list[tuple[str, str]]:
        """Wait up to `timeout_s` for an event; return the devices that it makes untrustworthy, with the reason."""
        nvml = self._nvml
        try:
            data = nvml.nvmlEventSetWait_v2(self._events, max(1, int(timeout_s * 1000)))
        except nvml.NVMLError_Timeout:
            return []
        except nvml.NVMLError:
            # One lost device makes the whole set fail; without events, its loss still shows when it is read.
            self._free_events()
            return []
        if data.eventType == nvml.nvmlEventTypeXidCriticalError:
            if data.eventData in HARMLESS_XIDS:
                return []
            reason = f"XID {data.eventData}: {_XIDS.get(data.eventData, 'see the XID catalogue of NVIDIA')}"
        else:
            reason = "double-bit ECC error: memory that the card could not correct"
        return [(device_id, reason) for device_id in self._concerned(data)]

    def _concerned(self, data: Any) -> list[str]:
        with contextlib.suppress(self._nvml.NVMLError):
            card = self._card(data.device)
            return [
                device_id
                for device_id, parent in self._parents.items()
                if self._card(parent) == card
                and (data.gpuInstanceId == _WHOLE_GPU or self._instances.get(device_id) in (None, data.gpuInstanceId))
            ]
        return []

    def _card(self, handle: Any) -> str:
        """The UUID of a card: the one kept when it was opened, since a card that has an event may no longer answer."""
        return self._uuids.get(_address(handle)) or str(self._nvml.nvmlDeviceGetUUID(handle))

    def _open(self, device_id: str) -> Any:
        """The handle of a device; after a failure, the next call asks for it again."""
        nvml = self._nvml
        if device_id not in self._handles:
            questions = _Questions(nvml, self._slow_s)
            handle = questions.ask(nvml.nvmlDeviceGetHandleByUUID, device_id)
            if handle is None:
                raise Unreadable(questions.failed or "NVML does not know it")
            parent, card = None, device_id
            if device_id.startswith("MIG-"):
                parent = questions.ask(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle)
                card = questions.ask(nvml.nvmlDeviceGetUUID, parent or handle) or device_id
                self._instances[device_id] = questions.ask(nvml.nvmlDeviceGetGpuInstanceId, handle)
            self._parents[device_id] = parent or handle
            self._uuids[_address(parent or handle)] = card
            self._handles[device_id] = handle
        return self._handles[device_id]

    def watch(self) -> None:
        """Register for the driver's events of the devices that have any."""
        nvml = self._nvml
        wanted = nvml.nvmlEventTypeXidCriticalError | nvml.nvmlEventTypeDoubleBitEccError
        registered: set[str] = set()
        with contextlib.suppress(nvml.NVMLError):
            self._events = nvml.nvmlEventSetCreate()
            for parent in self._parents.values():
                with contextlib.suppress(nvml.NVMLError):
                    card = self._card(parent)
                    supported = nvml.nvmlDeviceGetSupportedEventTypes(parent) & wanted
                    if supported and card not in registered:
                        nvml.nvmlDeviceRegisterEvents(parent, supported, self._events)
                        registered.add(card)
        if not registered:
            self._free_events()

    def _free_events(self) -> None:
        if self._events is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlEventSetFree(self._events)
            self._events = None


class _Questions:
    """The questions of one reading. "Not supported" counts as an answer; a failed call does not."""

    def __init__(self, nvml: Any, slow_s: float) -> None:
        self._nvml = nvml
        self._slow_s = slow_s
        self.answered = False
        self.failed = ""

    def ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of a call, or None if it failed. Raises `Gone`, and `Unreadable` if the call was slow."""
        nvml = self._nvml
        asked_at = time.monotonic()
        try:
            answer = call(*arguments)
        except nvml.NVMLError as error:
            if error.value in {nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED}:
                raise Gone(str(error)) from error
            if error.value in {nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND}:
                self.answered = True
            else:
                self.failed = str(error)
            answer = None
        else:
            self.answered = True
        if time.monotonic() - asked_at > self._slow_s:
            # the next question would block as long
            raise Unreadable("it answers too slowly")
        return answer


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _by_pid(processes: Any, windows: Collection[int]) -> dict[int, int] | None:
    """Memory by PID, that of a window's descendants by the window's; None unless it is known for every process."""
    if processes is None or any(process.usedGpuMemory is None for process in processes):
        return None
    used: dict[int, int] = {}
    for process in processes:
        pid = _window_of(process.pid, windows)
        used[pid] = used.get(pid, 0) + process.usedGpuMemory
    return used


def _window_of(pid: int, windows: Collection[int]) -> int:
    """The PID of the window that a process belongs to, whose session it is in; its own PID if there is none."""
    if pid in windows:
        return pid
    try:
        leader = os.getsid(pid)
    except OSError:
        return pid
    return leader if leader in windows else pid


def in_initial_pid_namespace() -> bool:
    """Whether NVML reports PIDs as this process sees them; in most containers it does not."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _INITIAL_PID_NAMESPACE
    except OSError:
        return False
