"""The machine of the client, which is also the daemon's: its load, its memory, and the disk of the state."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path

from gpusched.client.views.host import HostView


def look_at_host(state_dir: Path) -> HostView:
    """The present values; None where the system does not tell. Blocks as long as the state's file system does."""
    load, used, disk = None, None, None
    memory: dict[str, int] = {}
    with contextlib.suppress(OSError):
        load = os.getloadavg()[0]
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                memory[name] = int(rest.split()[0]) << 10
    total = memory.get("MemTotal")
    if total is not None and "MemAvailable" in memory:
        used = total - memory["MemAvailable"]
    with contextlib.suppress(OSError):
        disk = shutil.disk_usage(state_dir)
    return HostView(
        name=socket.gethostname().partition(".")[0],
        load=load,
        cores=os.cpu_count() or 1,
        memory_used_bytes=used,
        memory_total_bytes=total,
        disk_used_bytes=disk.used if disk else None,
        disk_total_bytes=disk.total if disk else None,
    )
