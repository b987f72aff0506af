"""What everything costs that this process starts: processor time, and memory.

Linux only. `adopt_orphans` first: then a daemon that a command leaves behind is still a descendant, and measured.
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
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_S = 0.05
#: Share of one core that samples may take: the more processes there are, the rarer they become.
SAMPLING_SHARE = 0.02
SETTLE_S = 30.0

_PR_SET_CHILD_SUBREAPER = 36
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """Of all descendants together."""

    cpu_s: float = 0.0
    #: sum of the proportional set sizes: a page that two processes share is counted once
    peak_bytes: int = 0
    #: how often memory was looked at
    samples: int = field(default=0, repr=False)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@contextmanager
def measured() -> Iterator[Usage]:
    """Fill in what is used until the block's end, and by what it leaves behind, which is ended then."""
    usage = Usage()
    stop = threading.Event()
    before = set(_descendants())
    cpu_s = _cpu_s()
    sampler = threading.Thread(target=_sample, args=(usage, stop), daemon=True)
    sampler.start()
    try:
        yield usage
    finally:
        stop.set()
        sampler.join()
        _settle(before)
        usage.cpu_s = _cpu_s() - cpu_s


def _sample(usage: Usage, stop: threading.Event) -> None:
    while True:
        began = time.thread_time()
        usage.peak_bytes = max(usage.peak_bytes, sum(map(_proportional_bytes, _descendants())))
        usage.samples += 1
        if stop.wait(max(SAMPLE_S, (time.thread_time() - began) / SAMPLING_SHARE)):
            return


def _settle(before: set[int]) -> None:
    """Wait for whatever else has been started since; kill it if it does not end."""
    deadline = time.monotonic() + SETTLE_S
    while left := set(_descendants()) - before:
        for pid in left:
            with suppress(ChildProcessError):  # not ours, but a child's
                os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _cpu_s() -> float:
    """Of all descendants, ended ones included: those have been waited for, by us or by a parent that is counted."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + _TICK_S * sum(_descendants().values())


def _descendants() -> dict[int, int]:
    """Process id → clock ticks of the process and of its children that it has waited for."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  # names only, 20 times a second
        if not entry.isdigit():
            continue
        with suppress(OSError):
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry))
            ticks[int(entry)] = sum(map(int, fields[11:15]))
    found: dict[int, int] = {}
    waiting = [os.getpid()]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            found[pid] = ticks[pid]
            waiting.append(pid)
    return found


def _proportional_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
