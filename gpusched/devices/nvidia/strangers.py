"""Strangers on a GPU: processes that are no windows, with their users and command lines from /proc."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from gpusched.core.model import ForeignProcess
from gpusched.users import user_name

#: most strangers of a device that are shown
MOST_FOREIGN = 8
#: most characters of a command line that are shown
COMMAND_CHARS = 120


def strangers(
    used: Mapping[int, int], windows: Collection[int], root: Path = Path("/proc")
) -> tuple[ForeignProcess, ...]:
    """The processes without a window, the largest first, at most `MOST_FOREIGN`. `used` is memory by PID."""
    by_size = sorted(((size, pid) for pid, size in used.items() if pid not in windows), reverse=True)
    return tuple(_process(pid, size, root / str(pid)) for size, pid in by_size[:MOST_FOREIGN])


def _process(pid: int, size: int, directory: Path) -> ForeignProcess:
    """Its user and command line stay empty where it has ended, or is another namespace's."""
    try:
        uid = directory.stat().st_uid
        words = (directory / "cmdline").read_bytes()[: 4 * COMMAND_CHARS]
    except OSError:
        return ForeignProcess(pid=pid, memory_bytes=size)
    command = words.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")[:COMMAND_CHARS]
    return ForeignProcess(pid=pid, user=user_name(uid), command=command, memory_bytes=size)
