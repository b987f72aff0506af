"""The dispatcher: chooses the next window and its slot. Its only state is the order in which batches were served.

Among batches, the highest priority goes first, then the one served least recently, and no batch takes a device on which
an earlier one waits for room. Within a batch, the windows with the most rows go first, so that the last slots fall idle
at about the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from gpusched.core.estimates import Estimates
from gpusched.core.memory import Need
from gpusched.core.model import Batch, DeviceChoice, DeviceType, Instant, Slot
from gpusched.core.placement import Pool
from gpusched.core.queue import BatchQueue, Entry
from gpusched.core.states import Running


class Placement(msgspec.Struct, frozen=True):
    """A queued window, the free slot that it gets, and the memory to set aside for it on the device and on the host."""

    entry: Entry
    slot: Slot
    device: Need
    host: Need


class Dispatcher:
    """Looks at the scheduler's pool and batches, and at `estimates` of the windows' costs."""

    def __init__(self, pool: Pool, batches: Mapping[str, BatchQueue], estimates: Estimates) -> None:
        self._pool = pool
        self._batches = batches
        self._estimates = estimates
        self._serves = 0

    def next(self, now: Instant) -> Placement | None:
        """The next window and its slot, or None if nothing can be placed now."""
        if not self._pool.has_free:
            return None
        candidates = sorted(
            (batch for batch in self._batches.values() if batch.may_have_ready),
            key=lambda batch: (-batch.batch.spec.priority, batch.last_served),
        )
        kept: set[str] = set()
        placements = (self._next_of(batch, kept, now) for batch in candidates)
        return next((placement for placement in placements if placement is not None), None)

    def served(self, batch: BatchQueue) -> None:
        """Note that a window of `batch` was placed: batches of the same priority go before it next time."""
        self._serves += 1
        batch.last_served = self._serves

    def _next_of(self, batch: BatchQueue, kept: set[str], now: Instant) -> Placement | None:
        """The next window of a batch and its slot, or None if nothing of the batch can be placed.

        `kept` are the devices for which earlier batches wait. If this batch has to wait until the windows of a device
        leave, that device is added: later batches, which need less, would take every slot that becomes free there. If
        it waits for the host's memory, all devices are added.
        """
        spec = batch.batch.spec
        entry = batch.peek(now)
        if entry is None or (spec.workers and batch.active >= spec.workers):
            return None
        wanted = "cpu" if entry.on_cpu else batch.batch.device
        if self._pool.shares(wanted) and not entry.device.alone:
            entry, wanted = self._share(batch, entry, kept, now)
        device, host = self._device_need(entry, batch.batch), self._host_need(entry, batch.batch)
        if not self._pool.host.room_for(host):
            if self._pool.host.room_when_empty(host):
                kept.update(self._pool.devices)
            return None
        slot = self._pool.choose(wanted, device, without=kept)
        if slot is not None:
            return Placement(entry, slot, device, host)
        soonest = self._pool.soonest(wanted, device, without=kept)
        if soonest is not None:
            kept.add(soonest)
        return None

    def _share(self, batch: BatchQueue, first: Entry, kept: set[str], now: Instant) -> tuple[Entry, DeviceChoice]:
        """The next window of a batch that shares CPU and GPU slots, and where it is expected to end first.

        A window waits for a GPU that will finish it before the CPU would. Meanwhile the CPU takes small windows, which
        suit it, from the other end of the queue, as long as it finishes them before the GPUs finish the rest.
        """
        need = self._device_need(first, batch.batch)
        gpu_free = self._pool.choose("gpu", need, without=kept) is not None
        if self._pool.choose("cpu", without=kept) is None:
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
        left = wait + (batch.unfinished - batch.active) / self._pool.gpu_slots * on_gpu
        return last, "cpu" if on_cpu < left else "gpu"

    def _expected_seconds(self, batch: BatchQueue, entry: Entry) -> tuple[float | None, float | None]:
        """Expected seconds of a window on the CPU, and on a GPU."""
        workload, rows = batch.batch.spec.workload, entry.planned.usable_rows
        gpu_type = self._pool.gpu_type
        on_gpu = None if gpu_type is None else self._estimates.seconds(workload, gpu_type, rows)
        return self._estimates.seconds(workload, "cpu", rows), on_gpu

    def _seconds_to_next_gpu(self, now: Instant) -> float:
        """Seconds until the first window that runs on a GPU is expected to end."""
        left = []
        for state in self._pool.devices.values():
            for allocation in state.allocations.values() if state.device.kind != "host" else ():
                batch = self._batches[allocation.key.batch_id]
                window = batch.entries[allocation.key.label]
                expected = self._expected_seconds(batch, window)[1] or 0.0
                ran = now.wall - window.state.started_at if isinstance(window.state, Running) else 0.0
                left.append(max(0.0, expected - ran))
        return min(left, default=0.0)

    def _device_need(self, entry: Entry, batch: Batch) -> Need:
        learned = self._learned(entry, batch, self._estimates.memory_bytes)
        return Need(max(entry.device.memory_bytes, learned), entry.device.alone)

    def _host_need(self, entry: Entry, batch: Batch) -> Need:
        learned = self._learned(entry, batch, self._estimates.host_memory_bytes)
        return Need(self._pool.host.least(max(entry.host.memory_bytes, learned)), entry.host.alone)

    def _learned(self, entry: Entry, batch: Batch, learned: Callable[[str, DeviceType, int], int | None]) -> int:
        """The most memory that similar windows took on any device type that this one may get; 0: not known."""
        rows, types = entry.planned.usable_rows, self._pool.device_types(batch.device)
        return max((learned(batch.spec.workload, device_type, rows) or 0 for device_type in types), default=0)
