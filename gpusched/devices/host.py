"""The processors of this machine as a kind of device: their utilisation from /proc, and the host's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import anyio

from gpusched import clock
from gpusched.core.events import DeviceRead, HostRead
from gpusched.core.model import CPU, Device, Reading
from gpusched.devices.kind import UNKNOWN, Accounted, Reported, Seen
from gpusched.devices.memory import HostMemory

#: seconds between readings
READ_S = 1.0
#: columns of /proc/stat that are time spent doing nothing: idle, and waiting for disks
_IDLE = slice(3, 5)
#: user to steal; guest time is in user time already
_COLUMNS = 8


class Host:
    """Reads the utilisation of the processors since the last call of `read`, or since this was made."""

    def __init__(self, memory: HostMemory, root: Path = Path("/proc")) -> None:
        self._memory = memory
        self._root = root
        self._last = self._ticks()

    def read(self, at: float) -> tuple[Reading, HostRead]:
        ticks = self._ticks()
        passed = [new - old for new, old in zip(ticks, self._last, strict=False)]
        self._last = ticks
        total = sum(passed)
        memory = self._memory.read()
        reading = Reading(
            device_id=CPU,
            at=at,
            memory_total_bytes=memory.reading.total_bytes,
            memory_free_bytes=memory.reading.free_bytes,
            utilisation=min(1.0, max(0.0, 1 - sum(passed[_IDLE]) / total)) if total > 0 else None,
        )
        return reading, memory

    def _ticks(self) -> list[int]:
        try:
            with (self._root / "stat").open() as lines:
                return [int(word) for word in lines.readline().split()[1 : _COLUMNS + 1]]
        except (OSError, ValueError):
            return []


class Processors:
    """See `gpusched.devices.kind.Kind`. Reads the processors and the host's memory every `READ_S` seconds."""

    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory

    def environment(self, device: Device) -> dict[str, str | None]:
        return {"CUDA_VISIBLE_DEVICES": ""}

    def watch(self, devices: Iterable[Device]) -> None:
        """Do nothing: the processors are always read."""

    async def run(self, post: Callable[[Reported], None], notice: Callable[[Seen], None]) -> None:
        host = Host(self._memory)
        while True:
            await anyio.sleep(READ_S)
            reading, memory_read = host.read(clock.wall())
            post(memory_read)
            post(DeviceRead(reading=reading))

    def counts(self, device: Device) -> bool:
        return False

    async def account(self, device: Device, pid: int) -> Accounted:
        return UNKNOWN

    def close(self) -> None:
        """Do nothing: nobody is asked."""
