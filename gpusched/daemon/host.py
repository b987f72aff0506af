"""The host's processors as a device that can be read: their use and the machine's memory, from /proc."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import anyio

from gpusched.core.events import DeviceRead
from gpusched.core.model import CPU, Reading

#: columns of /proc/stat that are time spent doing nothing: idle, and waiting for disks
_IDLE = slice(3, 5)
#: user to steal; guest time is in user time already
_COLUMNS = 8


class Host:
    """`read` tells the use since the last call; the first one has none to tell."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = root
        self._last = self._ticks()

    def read(self, at: float) -> Reading:
        ticks = self._ticks()
        passed = [new - old for new, old in zip(ticks, self._last, strict=False)]
        self._last = ticks
        total = sum(passed)
        memory = self._memory()
        return Reading(
            device_id=CPU,
            at=at,
            memory_total_bytes=memory.get("MemTotal"),
            memory_free_bytes=memory.get("MemAvailable"),
            utilisation=min(1.0, max(0.0, 1 - sum(passed[_IDLE]) / total)) if total > 0 else None,
        )

    def _ticks(self) -> list[int]:
        try:
            with (self._root / "stat").open() as lines:
                return [int(word) for word in lines.readline().split()[1 : _COLUMNS + 1]]
        except (OSError, ValueError):
            return []

    def _memory(self) -> dict[str, int]:
        """Bytes by name."""
        found = {}
        try:
            for line in (self._root / "meminfo").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in ("MemTotal", "MemAvailable"):
                    found[name] = int(rest.split()[0]) * 1024
        except (OSError, ValueError, IndexError):
            return {}
        return found


async def read_host(deliver: Callable[[DeviceRead], None], *, interval_s: float = 1.0) -> None:
    """Call `deliver` with a reading every `interval_s` seconds until it is cancelled."""
    host = Host()
    while True:
        await anyio.sleep(interval_s)
        deliver(DeviceRead(reading=host.read(time.time())))
