"""The host's memory: how much of it this service may use, what its windows use, and whether the kernel killed one.

Where a control group limits the service, its limit counts and not the machine's memory; what only caches files is
free, since the kernel drops that before it kills. Both versions of control groups are known.

The kernel counts the processes that it kills because memory ran out: those of the control group if it tells, or else
of the machine. A window that died of a SIGKILL which gpusched did not send takes one of these to its account.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from gpusched.core.events import HostRead
from gpusched.core.model import HostReading

#: seconds for which a kill may be taken to a window's account: it was somebody else's if no window of ours has died
CLAIM_S = 10.0
#: control groups of version 1 say so that there is no limit: the largest number of whole pages
_NO_LIMIT = 1 << 60

_PAGE = resource.getpagesize()


class _Names(msgspec.Struct, frozen=True):
    """How the two versions of control groups name the same things."""

    limits: tuple[str, ...]
    used: str
    #: lines of `memory.stat` that are no more than copies of files
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
        #: this process's own control group and those around it, from the inside out
        self._groups: list[Path] = []
        self._names = _NAMES[2]
        for version, group, top in _memory_groups(proc):
            self._names = _NAMES[version]
            self._groups = [group, *(parent for parent in group.parents if parent.is_relative_to(top))]
            break
        #: this process, and all that it starts, may have less memory than there is (`ulimit -v`, `-d`)
        self.limited = any(resource.getrlimit(r)[0] >= 0 for r in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
        #: processes of windows, and what each shares with its launcher
        self._shared: dict[int, int] = {}
        self._claimed = self._kills() or 0
        #: kills that were counted some time ago
        self._old = (time.monotonic(), self._claimed)

    def follow(self, pid: int, shared_bytes: int) -> None:
        """Take the process of a window into the readings. `shared_bytes`: what it shares with its launcher."""
        self._shared[pid] = shared_bytes

    def forget(self, pid: int) -> None:
        self._shared.pop(pid, None)

    def read(self) -> HostRead:
        """What there is and what is used now; what cannot be read is None."""
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
                    pid: max(0, own - shared)
                    for pid, shared in self._shared.items()
                    if (own := _own_bytes(self._proc / str(pid))) is not None
                },
            )
        )

    def take_kill(self) -> bool | None:
        """Whether the kernel killed a process lately that no window has died of yet; None: it does not tell."""
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
    """Versions of control groups that limit memory here: this process's group, and the outermost one that it sees."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
        mounts = (proc / "self" / "mountinfo").read_text().splitlines()
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
            # A container without a namespace of its own for groups sees the path from outside it.
            known = PurePosixPath(path).is_relative_to(root)
            group = Path(top, PurePosixPath(path).relative_to(root)) if known else Path(top)
            group = group if group.is_dir() else Path(top)
            if (group / _NAMES[version].used).exists() or version == 1:
                yield version, group, Path(top)


def _numbers(file: Path, unit: int = 1) -> dict[str, int]:
    """`name value` lines, as /proc and control groups write them; nothing if they cannot be read."""
    try:
        fields = (line.split() for line in file.read_text().splitlines())
        return {field[0].rstrip(":"): int(field[1]) * unit for field in fields if len(field) > 1 and field[1].isdigit()}
    except (OSError, ValueError):
        return {}


def _limit(file: Path) -> int | None:
    """A file with one number; None if there is none, or it says that there is no limit."""
    try:
        number = int(file.read_text())
    except (OSError, ValueError):
        return None
    return number if number < _NO_LIMIT else None


def _own_bytes(process: Path) -> int | None:
    """The anonymous memory of a process, what it shares with the one that it was forked from included."""
    try:
        _, resident, of_files, *_ = (process / "statm").read_text().split()
    except (OSError, ValueError):
        return None
    return (int(resident) - int(of_files)) * _PAGE
