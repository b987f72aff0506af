"""The dispatcher: chooses the next window and its slot. Its only state is the order in which batches were served.

Among batches, the highest priority goes first, then the one served least recently, and no batch takes a device on which
an earlier one waits for room. Within a batch, the windows with the most rows go first, so that the last slots fall idle
at about the same time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping

import msgspec

from gpusched.core.estimates import Estimates, work
from gpusched.core.memory import LEAST_HOST_BYTES, Need
from gpusched.core.model import Batch, DeviceChoice, DeviceType, Instant, Slot
from gpusched.core.placement import Demand, type_on
from gpusched.core.pool import Pool
from gpusched.core.queue import BatchQueue, Entry


class Placement(msgspec.Struct, frozen=True):
    """A queued window, the free slot that it gets, and the memory to set aside for it on the device and on the host."""

    entry: Entry
    slot: Slot
    demand: Demand
    #: wall instant at which it is expected to end
    ends_at: float


class Dispatcher:
    """Looks at the scheduler's pool and batches, and at `estimates` of the windows' costs."""

    def __init__(self, pool: Pool, batches: Mapping[str, BatchQueue], estimates: Estimates) -> None:
        self._pool = pool
        self._batches = batches
        self._estimates = estimates
        self._serves = 0

    def next(self, now: Instant) -> Placement | None:
        """The next window and its slot, or None if nothing can be placed now."""
        if not self._pool.offers.has_free:
            return None
        kept: set[str] = set()
        for batch in self._in_turn():
            if (placement := self._next_of(batch, kept, now)) is not None:
                return placement
        return None

    def before(self, batch: BatchQueue, now: Instant) -> tuple[list[BatchQueue], set[str]]:
        """The batches with windows to place that come before `batch`, and the devices that they keep for themselves."""
        before: list[BatchQueue] = []
        kept: set[str] = set()
        for other in itertools.takewhile(lambda other: other is not batch, self._in_turn()):
            if other.peek(now) is not None and not other.is_at_limit:
                before.append(other)
                self._next_of(other, kept, now)
        return before, kept

    def demand_of(self, entry: Entry, batch: BatchQueue, kept: set[str], now: Instant) -> Demand:
        """The needs of a window on the devices where it would be placed, were it the first of its batch."""
        chosen, wanted = self._choose(batch, entry, kept, now)
        # Where a smaller window is taken instead, this one waits for a GPU.
        return self._demand(entry, batch.batch, wanted if chosen is entry else "gpu")

    def _in_turn(self) -> list[BatchQueue]:
        """The batches that may have windows to place, in the order of their turns."""
        return sorted(
            (batch for batch in self._batches.values() if batch.may_have_ready),
            key=lambda batch: (-batch.batch.spec.priority, batch.last_served),
        )

    def served(self, batch: BatchQueue) -> None:
        """Note that a window of `batch` was placed: batches of the same priority go before it next time."""
        self._serves += 1
        batch.last_served = self._serves

    def _next_of(self, batch: BatchQueue, kept: set[str], now: Instant) -> Placement | None:
        """The next window of a batch and its slot, or None if nothing of the batch can be placed.

        `kept` are the devices for which earlier batches wait. If this batch has to wait until the windows of a device
        leave, that device is added: later batches, which need less, would take every slot that becomes free there. If
        it waits for the memory of a host, all devices of that host are added.
        """
        entry = batch.peek(now)
        if entry is None or batch.is_at_limit:
            return None
        entry, wanted = self._choose(batch, entry, kept, now)
        demand = self._demand(entry, batch.batch, wanted)
        slot = self._pool.choose(demand, without=kept)
        if slot is None:
            kept |= self._pool.offers.kept_for(demand, without=kept)
            return None
        return Placement(entry, slot, demand, now.wall + self._expected_on(slot, entry, batch.batch))

    def _demand(self, entry: Entry, batch: Batch, wanted: DeviceChoice) -> Demand:
        """The needs of a window that is to run on the devices that `wanted` names."""
        rows, types = entry.planned.usable_rows, self._pool.offers.device_types(batch.device)
        own, asked = _work(entry, batch), entry.planned.window.expected_memory_bytes
        # The number asked for means memory of a GPU, or memory of the host where the batch trains on the CPU.
        on_gpu, on_host = (0, asked) if batch.device == "cpu" else (asked, 0)
        device = on_gpu or _most(self._estimates.memory_bytes, own, types, rows)
        host = on_host or _most(self._estimates.host_memory_bytes, own, types, rows)
        return Demand(
            wanted=wanted,
            device=Need(max(entry.device.memory_bytes, device), entry.device.alone),
            host=Need(max(entry.host.memory_bytes, host, LEAST_HOST_BYTES), entry.host.alone),
        )

    def _expected_on(self, slot: Slot, entry: Entry, batch: Batch) -> float:
        """Expected seconds of a window on a slot; 0 where nothing is known."""
        device = self._pool.devices[slot.device_id].device
        return self._seconds(entry, batch, type_on(device, batch.device)) or 0.0

    def _seconds(self, entry: Entry, batch: Batch, device_type: DeviceType) -> float | None:
        """Expected seconds of a window on a device type: as asked for, or else as learned."""
        planned = entry.planned
        asked = planned.window.expected_seconds
        return asked or self._estimates.seconds(_work(entry, batch), device_type, planned.usable_rows)

    def _choose(self, batch: BatchQueue, first: Entry, kept: set[str], now: Instant) -> tuple[Entry, DeviceChoice]:
        """The window to place now if `first` is the first of its batch, and the devices on which it may run."""
        wanted: DeviceChoice = "cpu" if first.on_cpu else batch.batch.device
        if self._pool.offers.shares(wanted) and not first.device.alone:
            return self._share(batch, first, kept, now)
        return first, wanted

    def _share(self, batch: BatchQueue, first: Entry, kept: set[str], now: Instant) -> tuple[Entry, DeviceChoice]:
        """The next window of a batch that shares CPU and GPU slots, and where it is expected to end first.

        A window waits for a GPU that will finish it before the CPU would. Meanwhile the CPU takes small windows, which
        suit it, from the other end of the queue, as long as it finishes them before the GPUs finish the rest.
        """
        demand = self._demand(first, batch.batch, "gpu")
        gpu_free = self._pool.choose(demand, without=kept) is not None
        if self._pool.choose(msgspec.structs.replace(demand, wanted="cpu"), without=kept) is None:
            return first, "gpu"
        on_cpu, on_gpu = self._expected_seconds(batch, first)
        wait = 0.0 if gpu_free else self._seconds_to_next_gpu(now)
        if on_cpu is not None and on_gpu is not None and on_cpu < wait + on_gpu:
            return first, "cpu"
        if gpu_free:
            return first, "gpu"
        last = batch.peek_shortest(now) or first
        on_cpu, on_gpu = self._expected_seconds(batch, last)
        if on_cpu is None or on_gpu is None:
            # Learn the CPU's speed from the window that costs least.
            return last, "cpu"
        # A lower bound on the time that the GPUs need for the rest, since `last` is its shortest window.
        left = wait + (batch.unfinished - batch.active) / self._pool.offers.gpu_slots * on_gpu
        return last, "cpu" if on_cpu < left else "gpu"

    def _expected_seconds(self, batch: BatchQueue, entry: Entry) -> tuple[float | None, float | None]:
        """Expected seconds of a window on the CPU, and on a GPU."""
        gpu_type = self._pool.offers.gpu_type
        on_gpu = None if gpu_type is None else self._seconds(entry, batch.batch, gpu_type)
        return self._seconds(entry, batch.batch, "cpu"), on_gpu

    def _seconds_to_next_gpu(self, now: Instant) -> float:
        """Seconds until the first window that holds a slot of a GPU is expected to end."""
        return 0.0 if self._pool.first_end is None else max(0.0, self._pool.first_end - now.wall)


def _work(entry: Entry, batch: Batch) -> str:
    return work(batch.spec.workload, entry.planned.window.point)


def _most(
    learned: Callable[[str, DeviceType, int], int | None], own: str, types: Iterable[DeviceType], rows: int
) -> int:
    """The most memory that windows with similar work took on any of the device types; 0: not known."""
    return max([learned(own, device_type, rows) or 0 for device_type in types], default=0)
