"""The host's memory: the part that this service may use, the use of each window, and kills by the kernel.

If a control group limits the service, its limit counts, not the machine's memory. Caches of files count as free, since
the kernel drops them before it kills a process. Control groups of version 1 and 2 are supported.

The kernel counts the processes that it kills because memory ran out: those of the control group if it has such a
counter, otherwise those of the whole machine. Each window that died of a SIGKILL which gpusched did not send is
accounted for by one of these kills, as long as some are left.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

import msgspec

from gpusched.core.events import HostRead
from gpusched.core.model import HostReading

#: seconds within which a kill may explain the death of a window; after that it must have been another process
CLAIM_S = 10.0
#: control groups of version 1 express "no limit" by a number beyond this: the largest number of whole pages, in bytes
_NO_LIMIT = 1 << 60

_PAGE = resource.getpagesize()


class _Names(msgspec.Struct, frozen=True):
    """The names of files and counters in one version of control groups."""

    limits: tuple[str, ...]
    used: str
    #: lines of `memory.stat` that count cached copies of files
    caches: tuple[str, ...]
    kills: str


_NAMES = {
    1: _Names(
        ("memory.limit_in_bytes",),
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
        "memory.oom_control",
    ),
    2: _Names(
        ("memory.max", "memory.high"),
        "memory.current",
        ("inactive_file", "active_file", "slab_reclaimable"),
        "memory.events",
    ),
}


class HostMemory:
    """Reads /proc and the control groups that this process is in."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        #: this process's control group and its ancestors, from the inside out
        self._groups: list[Path] = []
        self._names = _NAMES[2]
        for version, group, top in _memory_groups(proc):
            self._names = _NAMES[version]
            self._groups = [group, *(parent for parent in group.parents if parent.is_relative_to(top))]
            break
        #: a limit (`ulimit -v`, `-d`) leaves this process and its children less memory than the machine has
        self.limited = any(
            resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
        )
        #: by PID of a window's process: bytes that it shares with its launcher
        self._shared: dict[int, int] = {}
        self._claimed = self._kills() or 0
        #: a monotonic instant and the kills counted by then, which expire `CLAIM_S` later
        self._old = (time.monotonic(), self._claimed)

    @property
    def windows(self) -> Collection[int]:
        """The PIDs of the windows' processes at any time."""
        return self._shared.keys()

    def follow(self, pid: int, shared_bytes: int) -> None:
        """Include the process of a window in the readings. `shared_bytes`: memory that it shares with its launcher."""
        self._shared[pid] = shared_bytes

    def forget(self, pid: int) -> None:
        self._shared.pop(pid, None)

    def read(self) -> HostRead:
        """Read the memory in total, free, and used by each window; numbers that cannot be read are None."""
        machine = _numbers(self._proc / "meminfo", unit=1024)
        totals, frees = [machine.get("MemTotal")], [machine.get("MemAvailable")]
        for group in self._groups:
            limits = [limit for name in self._names.limits if (limit := _limit(group / name)) is not None]
            used = _limit(group / self._names.used)
            if limits and used is not None:
                stat = _numbers(group / "memory.stat")
                totals.append(min(limits))
                frees.append(max(0, min(limits) - used + sum(stat.get(name, 0) for name in self._names.caches)))
        self._expire()
        return HostRead(
            reading=HostReading(
                total_bytes=min((total for total in totals if total is not None), default=None),
                free_bytes=min((free for free in frees if free is not None), default=None),
                process_bytes={
                    pid: max(0, own - shared) + _bytes_of_children(self._proc / str(pid))
                    for pid, shared in self._shared.items()
                    if (own := _own_bytes(self._proc / str(pid))) is not None
                },
            )
        )

    def take_kill(self) -> bool | None:
        """Claim a recent kill by the kernel that explains no other window's death; whether there was one.

        None: the kernel does not count kills.
        """
        kills = self._kills()
        if kills is None:
            return None
        if kills <= self._claimed:
            return False
        self._claimed += 1
        return True

    def _kills(self) -> int | None:
        counted = _numbers(self._groups[0] / self._names.kills).get("oom_kill") if self._groups else None
        return _numbers(self._proc / "vmstat").get("oom_kill") if counted is None else counted

    def _expire(self) -> None:
        now, (at, kills) = time.monotonic(), self._old
        if now - at >= CLAIM_S:
            self._claimed = max(self._claimed, kills)
            self._old = (now, self._kills() or 0)


def _memory_groups(proc: Path) -> Iterator[tuple[int, Path, Path]]:
    """Control groups that limit memory here: version, this process's group, and the outermost group that it sees."""
    try:
        lines = _lines_of_paths(proc / "self" / "cgroup")
        mounts = _lines_of_paths(proc / "self" / "mountinfo")
    except OSError:
        return
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        _, _, _, root, top, *_ = before.split(" ")
        kind, _, options = after.split(" ")
        version = {"cgroup": 1, "cgroup2": 2}.get(kind)
        if version is None or (version == 1 and "memory" not in options.split(",")):
            continue
        inside = [
            path for names, path in paths.items() if ("memory" in names.split(",") if version == 1 else not names)
        ]
        for path in inside:
            # A container without its own cgroup namespace sees the path as it is outside the container.
            mounted = PurePosixPath(path).is_relative_to(root)
            group = Path(top, PurePosixPath(path).relative_to(root)) if mounted else Path(top)
            group = group if group.is_dir() else Path(top)
            if (group / _NAMES[version].used).exists() or version == 1:
                yield version, group, Path(top)


def _lines_of_paths(file: Path) -> list[str]:
    """The lines of a file with paths, which may have any bytes in them but an end of a line."""
    return os.fsdecode(file.read_bytes()).removesuffix("\n").split("\n")


def _numbers(file: Path, unit: int = 1) -> dict[str, int]:
    """Read `name value` lines, as /proc and control groups write them; none if the file cannot be read."""
    try:
        fields = (line.split() for line in file.read_text().splitlines())
        return {field[0].rstrip(":"): int(field[1]) * unit for field in fields if len(field) > 1 and field[1].isdigit()}
    except (OSError, ValueError):
        return {}


def _limit(file: Path) -> int | None:
    """Read a file with one number; None if it does not exist, or the number means "no limit"."""
    try:
        number = int(file.read_text())
    except (OSError, ValueError):
        return None
    return number if number < _NO_LIMIT else None


def _bytes_of_children(process: Path) -> int:
    """Anonymous memory in bytes of the programs that a window's process has started."""
    try:
        children = (process / "task" / process.name / "children").read_text().split()
    except OSError:
        return 0
    return sum(_own_bytes(process.with_name(child)) or 0 for child in children)


def _own_bytes(process: Path) -> int | None:
    """Anonymous memory of a process in bytes, including the part that it shares with the parent that forked it."""
    try:
        _, resident, of_files, *_ = (process / "statm").read_text().split()
    except (OSError, ValueError):
        return None
    return (int(resident) - int(of_files)) * _PAGE
