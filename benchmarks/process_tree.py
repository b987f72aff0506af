"""The cost of everything that this process starts: processor time and memory.

Linux only. Call `adopt_orphans` first, so that a daemon that a command leaves behind is still a descendant and counts.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

#: seconds between looks; a look takes 2 ms, and 2 ms more for each process, so a timed command must not be watched
WATCH_S = 0.05
SETTLE_S = 30.0

_PR_SET_CHILD_SUBREAPER = 36
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Processors:
    """Processor time of all descendants together, ended ones included."""

    seconds: float = 0.0


@dataclass
class Watched:
    """The memory and processor time of all descendants together, looked at every `WATCH_S`."""

    #: greatest sum of the proportional set sizes: a page that two processes share is counted once
    peak_bytes: int = 0
    #: processor seconds, without those of a process after the last look at it
    seconds: float = 0.0


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@contextmanager
def measured() -> Iterator[Processors]:
    """Fill in the processor time used until the block's end, including that of processes left behind, which are ended.

    A process that nobody waits for is missed if its parent ignores SIGCHLD, as Ray's does: `watched` finds more then.
    """
    used = Processors()
    before = set(_descendants())
    seconds = processor_s()
    try:
        yield used
    finally:
        _settle(before)
        used.seconds = processor_s() - seconds


@contextmanager
def watched(seen: Watched) -> Iterator[None]:
    """Watch all descendants until the block's end, and fill in `seen`."""
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(seen, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _watch(seen: Watched, stop: threading.Event) -> None:
    before = {pid: stat.own for pid, stat in _descendants().items()}
    ticks: dict[int, int] = {}
    while True:
        descendants = _descendants()
        ticks |= {pid: stat.own - before.get(pid, 0) for pid, stat in descendants.items()}
        seen.peak_bytes = max(seen.peak_bytes, sum(map(_proportional_bytes, descendants)))
        seen.seconds = _TICK_S * sum(ticks.values())
        if stop.wait(WATCH_S):
            return


def _settle(before: set[int]) -> None:
    """Wait for every process that has been started since `before`; kill those that do not end."""
    deadline = time.monotonic() + SETTLE_S
    while left := set(_descendants()) - before:
        for pid in left:
            with suppress(ChildProcessError):  # not our child, but a child's
                os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def processor_s() -> float:
    """Processor seconds of all descendants; ended ones were waited for, by us or by a parent that counts."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    living = sum(stat.own + stat.waited_for for stat in _descendants().values())
    return ended.ru_utime + ended.ru_stime + _TICK_S * living


class _Stat(NamedTuple):
    parent: int
    #: clock ticks of the process, and of its ended children that it has waited for
    own: int
    waited_for: int


def _descendants() -> dict[int, _Stat]:
    """The descendants of this process by process id."""
    stats: dict[int, _Stat] = {}
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  # names only, 20 times a second
        if not entry.isdigit():
            continue
        with suppress(OSError):
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            user, system, child_user, child_system = map(int, fields[11:15])
            stats[int(entry)] = stat = _Stat(int(fields[1]), user + system, child_user + child_system)
            children.setdefault(stat.parent, []).append(int(entry))
    descendants: dict[int, _Stat] = {}
    waiting = [os.getpid()]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            descendants[pid] = stats[pid]
            waiting.append(pid)
    return descendants


def _proportional_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
