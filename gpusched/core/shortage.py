"""The larger need of a window after a GPU's memory or the host's has run out."""

from __future__ import annotations

from gpusched.core.ledger import Allocation
from gpusched.core.memory import Need
from gpusched.core.model import DeviceChoice
from gpusched.core.placement import suits
from gpusched.core.pool import Pool
from gpusched.core.queue import Entry
from gpusched.core.states import FailureKind, Usage

#: the least GPU memory to set aside for a window that ran out of it
LEAST_RETRY_BYTES = 1 << 30


def ask_for_more(
    entry: Entry, kind: FailureKind, had: Allocation, usage: Usage, *, pool: Pool, wanted: DeviceChoice
) -> str:
    """Raise a window's need: first to twice the memory that ran out, then to all of it; return a phrase for its story.

    `had` is the allocation that was too small. A window that ran out of memory with a GPU to itself gets the processors
    next, if its batch may use them. Other kinds of failures change nothing.
    """
    if kind == "device_memory":
        processors = any(s.device.kind == "host" and suits(s.device, wanted) for s in pool.devices.values())
        entry.on_cpu = entry.device.alone and processors
        more = max(2 * had.device.memory_bytes, LEAST_RETRY_BYTES)
        entry.device = Need(more, alone=entry.device.memory_bytes > 0 and not entry.on_cpu)
        return "; next on the processors" if entry.on_cpu else _phrase(entry.device)
    if kind == "host_memory":
        more = 2 * max(had.host.memory_bytes, usage.own_memory_bytes or 0)
        entry.host = Need(more, alone=entry.host.memory_bytes > 0)
        return _phrase(entry.host)
    return ""


def _phrase(need: Need) -> str:
    return "; next alone" if need.alone else f"; next with {need.memory_bytes / 2**20:.0f} MiB set aside"
