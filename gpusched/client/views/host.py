"""The machine as the first line of `top` shows it."""

from __future__ import annotations

import msgspec


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a machine. None: not known."""

    name: str
    #: processes that ran or waited for a core or a disk, the mean of a minute
    load: float | None = None
    cores: int = 1
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    #: of the file system that has the daemon's state
    disk_used_bytes: int | None = None
    disk_total_bytes: int | None = None
