"""The processors of this machine: the kind of device that is always there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import anyio

from gpusched import clock
from gpusched.core.events import DeviceRead, HostRead
from gpusched.core.model import CPU, Device, Reading
from gpusched.devices.kind import UNKNOWN, Accounted, Discovery, Noticed, Reported
from gpusched.devices.memory import HostMemory
from gpusched.teacher.opencl import processor_name

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
    """See `gpusched.devices.kind.Kind`. Reads the processors and the host's memory every `interval_s` seconds."""

    def __init__(self, memory: HostMemory, *, interval_s: float = 1.0) -> None:
        self._memory = memory
        self._interval_s = interval_s

    def discover(self) -> Discovery:
        return Discovery(devices=(cpu_device(usable_cores(), 1),), notes=(), complete=True)

    def environment(self, device: Device) -> dict[str, str | None]:
        return {"CUDA_VISIBLE_DEVICES": ""}

    def watch(self, devices: Iterable[Device]) -> None:
        """Do nothing: the processors are always read."""

    async def run(self, post: Callable[[Reported], None], notice: Callable[[Noticed], None]) -> None:
        host = Host(self._memory)
        while True:
            await anyio.sleep(self._interval_s)
            reading, memory_read = host.read(clock.wall())
            post(memory_read)
            post(DeviceRead(reading=reading))

    async def account(self, device: Device, pid: int) -> Accounted:
        return UNKNOWN

    def close(self) -> None:
        """Do nothing: nobody is asked."""


# -- discovery -------------------------------------------------------------------------------------------------------


def cpu_device(slots: int, threads: int, *, auto: bool = True) -> Device:
    """The host's processors as a device of `slots` slots with `threads` threads each."""
    name = processor_name() or os.uname().machine
    return Device(id=CPU, name=name, kind="host", lightgbm_type="cpu", capacity=slots, auto=auto, threads=threads)


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may keep busy: those of its affinity, or fewer under a cgroup's quota; at least 1."""
    quotas = [quota for quota in _quotas(root) if quota > 0]
    return max(1, min([len(os.sched_getaffinity(0)), *map(int, quotas)]))


def _quotas(root: Path) -> Iterator[float]:
    """Cores granted by each cgroup above this process: cpu.max of version 2, cpu.cfs_quota_us of version 1."""
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mount / controllers
        own = top / name.lstrip("/")
        for group in (own, *own.parents):
            if group == top.parent:
                break
            # inside a container the directories of the outer groups may not exist; then only the top one is read
            if controllers:
                quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
            else:
                quota, _, period = _read(group / "cpu.max").partition(" ")
            with contextlib.suppress(ValueError, ZeroDivisionError):
                yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
