"""The processors of this machine: as a device with slots, and how many of its cores may be kept busy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from gpusched.core.model import CPU, Device
from gpusched.teacher.opencl import processor_name


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
