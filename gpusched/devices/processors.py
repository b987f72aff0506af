"""The processors of a machine: as a device with slots, and how many of its cores may be kept busy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gpusched.core.model import CPU, Device
from gpusched.teacher.opencl import processor_name


class Machine(msgspec.Struct, frozen=True):
    """A machine on which windows may run."""

    #: cores that they may keep busy
    cores: int
    #: name of its processors
    processor: str
    #: name of the node; empty: this machine
    host: str = ""


def this_machine() -> Machine:
    return Machine(cores=usable_cores(), processor=processor_name() or os.uname().machine)


def cpu_device(machine: Machine, slots: int, *, auto: bool = True) -> Device:
    """The processors of a machine as a device of `slots` slots, each with its share of the cores."""
    return Device(
        id=f"{CPU}@{machine.host}" if machine.host else CPU,
        name=machine.processor,
        kind="host",
        host=machine.host,
        lightgbm_type="cpu",
        capacity=slots,
        auto=auto,
        threads=max(1, machine.cores // max(1, slots)),
        cores=machine.cores,
    )


def usable_cores(root: Path = Path("/")) -> int:
    """The number of cores that this process may keep busy: by its affinity and its cgroups' quotas, at least 1."""
    quotas = [quota for quota in _quotas(root) if quota > 0]
    return max(1, min([len(os.sched_getaffinity(0)), *map(int, quotas)]))


def _quotas(root: Path) -> Iterator[float]:
    """Cores granted by each cgroup above this process: cpu.max of version 2, cpu.cfs_quota_us of version 1."""
    mount = root / "sys/fs/cgroup"
    for line in filter(None, _read(root / "proc/self/cgroup").split("\n")):
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
        return os.fsdecode(path.read_bytes())  # the name of a group may have any bytes
    except OSError:
        return ""
