"""The driver's own account of processes that have ended, on GPUs in accounting mode (`nvidia-smi -am 1`).

A short window may end before the next reading of its device; the driver's account misses none. Calls into NVML can
block for half a minute, so they are made on a separate thread, and nobody waits for an answer that is late.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterable
from typing import Any

import anyio

from gpusched.core.model import Device
from gpusched.devices.kind import UNKNOWN, Accounted
from gpusched.devices.nvidia.binding import nvml_binding, session
from gpusched.devices.nvidia.readings import in_initial_pid_namespace

#: seconds to wait for an answer; meanwhile a window that has ended keeps its slot
PATIENCE_S = 0.5


_Question = tuple[str, int, asyncio.Future[Accounted]]


class Accountant:
    """Answers questions about processes on watched devices that are in accounting mode, until `close`."""

    def __init__(
        self, devices: Iterable[Device], *, patience_s: float = PATIENCE_S, sees_own_pids: bool | None = None
    ) -> None:
        # Elsewhere NVML knows our processes by other PIDs.
        self._sees_own_pids = in_initial_pid_namespace() if sees_own_pids is None else sees_own_pids
        self._counting: set[str] = set()
        #: devices whose driver was too slow: never asked again
        self._slow: set[str] = set()
        self._patience_s = patience_s
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._started = False
        self.watch(devices)

    def watch(self, devices: Iterable[Device]) -> None:
        """Account for processes on these devices from now on, and on no others."""
        counting = {device.id for device in devices if device.accounting and self._sees_own_pids}
        self._counting = counting - self._slow
        if self._counting and not self._started:
            self._started = True
            # A daemon thread: a blocked call must not keep the process from ending.
            threading.Thread(target=self._answer_all, name="nvml", daemon=True).start()

    def close(self) -> None:
        self._questions.put(None)

    def counts(self, device_id: str) -> bool:
        """Whether `account` has to ask about processes on this device."""
        return device_id in self._counting

    async def account(self, device_id: str, pid: int) -> Accounted:
        """The account of the ended process that had this PID; `UNKNOWN` after `patience_s` seconds. Never raises."""
        if device_id not in self._counting:
            return UNKNOWN
        answer: asyncio.Future[Accounted] = asyncio.get_running_loop().create_future()
        self._questions.put((device_id, pid, answer))
        with anyio.move_on_after(self._patience_s):
            return await answer
        self._slow.add(device_id)
        self._counting.discard(device_id)
        return UNKNOWN

    def _answer_all(self) -> None:
        nvml = nvml_binding()
        while (question := self._questions.get()) is not None:
            device_id, pid, answer = question
            accounted = UNKNOWN
            with contextlib.suppress(nvml.NVMLError):
                accounted = _ask(device_id, pid)
            # the loop may have been closed while the call was blocked
            with contextlib.suppress(RuntimeError):
                answer.get_loop().call_soon_threadsafe(_set, answer, accounted)


def _ask(device_id: str, pid: int) -> Accounted:
    """Ask in a session of its own. Raises NVMLError.

    While the sampler has one, that costs next to nothing; one that stayed open would hide cards that come later.
    """
    with session() as nvml:
        return _read(nvml.nvmlDeviceGetAccountingStats(nvml.nvmlDeviceGetHandleByUUID(device_id), pid))


def _read(stats: Any) -> Accounted:
    """Read nvmlAccountingStats_t: `time` is in ms, and zero until the process has ended; utilisation is in percent."""
    complete = stats.time > 0 and not stats.isRunning and stats.gpuUtilization <= 100
    return Accounted(
        memory_bytes=stats.maxMemoryUsage or None,
        seconds=round(stats.time / 1000 * stats.gpuUtilization / 100, 3) if complete else None,
    )


def _set(answer: asyncio.Future[Accounted], accounted: Accounted) -> None:
    if not answer.done():
        answer.set_result(accounted)
