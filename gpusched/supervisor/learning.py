"""Learning: the costs of windows, from the records of their ends, until the store has committed them."""

from __future__ import annotations

from collections.abc import Iterable

from gpusched.core.estimates import Estimate, Estimates, work
from gpusched.core.events import Record, WindowMoved
from gpusched.core.model import DeviceType, WindowResult
from gpusched.core.placement import type_on
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Active, Failure


class Learning:
    """Keeps the estimates up to date that a scheduler reads. It follows records before they are committed."""

    def __init__(self, estimates: Estimates, scheduler: Scheduler) -> None:
        self._estimates = estimates
        self._scheduler = scheduler
        #: updated estimates that the store does not have yet
        self._unsaved: dict[tuple[str, DeviceType, int], Estimate] = {}

    def follow(self, record: Record) -> None:
        """Learn from a window that was trained, or that ran out of the host's memory.

        A result that was found after a restart has no usage and is passed over: it was not timed.
        """
        if isinstance(record, WindowMoved) and record.usage is not None:
            for estimate in self._observe(record):
                self._unsaved[estimate.workload, estimate.device_type, estimate.bucket] = estimate

    @property
    def unsaved(self) -> Iterable[Estimate]:
        """The estimates to commit; call `saved` after that."""
        return self._unsaved.values()

    def saved(self) -> None:
        self._unsaved.clear()

    def _observe(self, record: WindowMoved) -> list[Estimate]:
        scheduler = self._scheduler
        batch, planned, usage = scheduler.batch(record.key.batch_id), scheduler.planned(record.key), record.usage
        assert batch is not None
        assert usage is not None
        if planned.doubt is not None or planned.refusal is not None:
            return []  # its number of rows is not known
        own, rows = work(batch.spec.workload, planned.window.point), planned.usable_rows
        match record.ending:
            case WindowResult(device_type=device_type, seconds=seconds):
                memory = usage.device_memory_bytes, usage.own_memory_bytes
                return self._estimates.observe(own, device_type, rows, seconds, *memory)
            case Failure(kind="host_memory") if usage.own_memory_bytes and isinstance(record.old, Active):
                device = scheduler.pool.devices.get(record.old.slot.device_id)
                if device is not None:
                    device_type = type_on(device.device, batch.device)
                    return self._estimates.observe_host_memory(own, device_type, rows, usage.own_memory_bytes)
        return []
