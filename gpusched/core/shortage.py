"""After a memory ran out: what a window asks for next. Of a GPU's memory, or of the host's."""

from __future__ import annotations

from gpusched.core.memory import Need
from gpusched.core.model import CPU, DeviceChoice, FailureKind, Usage
from gpusched.core.placement import Allocation, Pool, suits
from gpusched.core.queue import Entry

#: of a GPU, set aside at least for a window that ran out of its memory
LEAST_RETRY_BYTES = 1 << 30


def ask_for_more(
    entry: Entry, kind: FailureKind, had: Allocation, usage: Usage, *, pool: Pool, wanted: DeviceChoice
) -> str:
    """Have more of what ran out set aside for a window, and after that all of it; how its story goes on.

    `had` was set aside, because the window had asked or because windows like it had taught so: too little. After a GPU
    for itself a window gets the processors, if it may have them. Other kinds of failures change nothing.
    """
    if kind == "device_memory":
        cpu = pool.devices.get(CPU)
        entry.on_cpu = entry.device.alone and cpu is not None and suits(cpu.device, wanted)
        more = max(2 * had.device.memory_bytes, LEAST_RETRY_BYTES)
        entry.device = Need(more, alone=entry.device.memory_bytes > 0 and not entry.on_cpu)
        return "; next on the processors" if entry.on_cpu else _told(entry.device)
    if kind == "host_memory":
        more = 2 * max(had.host.memory_bytes, usage.own_memory_bytes or 0)
        entry.host = Need(more, alone=entry.host.memory_bytes > 0)
        return _told(entry.host)
    return ""


def _told(need: Need) -> str:
    return "; next alone" if need.alone else f"; next with {need.memory_bytes / 2**20:.0f} MiB set aside"
