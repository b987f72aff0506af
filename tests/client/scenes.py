"""Overviews that the tests draw: devices, batches and readings as a daemon would tell of them."""

from __future__ import annotations

from gpusched.client.drawing.dashboard import Frame
from gpusched.client.views.host import HostView
from gpusched.client.views.overview import Overview
from gpusched.core.events import (
    DeviceChanged,
    ProgressReported,
)
from gpusched.core.model import Device, ForeignProcess, Reading, Slot
from gpusched.protocol import BatchAnnounced, BatchStatus, DeviceReported, DeviceStatus, Snapshot
from tests.client.support import Onlooker, trained
from tests.core.support import batch, failure, gpu, key


def status(batch_id: str, **fields: object) -> BatchStatus:
    known: dict[str, object] = {
        "id": batch_id,
        "output_dir": f"/out/{batch_id}",
        "submitted_at": 0.0,
        "state": "open",
        "held_reason": None,
        "finished_at": None,
        "counts": {},
    }
    return BatchStatus(**(known | fields))  # type: ignore[arg-type]


def pool(*devices: Device) -> tuple[DeviceStatus, ...]:
    found, first = [], 0
    for device in devices:
        slots = tuple(Slot(first + number, device.id) for number in range(device.capacity))
        first += device.capacity
        found.append(
            DeviceStatus(
                device=device, health="open", reason="", slots=slots, width=len(slots), allocations={}, reading=None
            )
        )
    return tuple(found)


class Watcher(Onlooker):
    """An overview that is told all that a scheduler does, as a daemon's clients are."""

    def __init__(self, *devices: Device) -> None:
        self.overview = Overview()
        self.overview.load(Snapshot(at=0.0, batches=(), active=(), progress=(), devices=pool(*devices)), 1000.0)
        super().__init__(*devices)

    def send(self, event: object) -> Watcher:
        super().send(event)  # type: ignore[arg-type]
        for record in self.records:
            if type(record).__name__ != "BatchAccepted":
                self.overview.apply(record, self.at)  # type: ignore[arg-type]
        return self

    def announce(self, batch_id: str, count: int) -> Watcher:
        self.overview.apply(BatchAnnounced(batch=status(batch_id, counts={"queued": count})), self.at)
        self.submit(batch(batch_id), [f"SYM{number:02}" for number in range(count)])
        return self

    def read(self, device_id: str, *utilisation: float, foreign: tuple[ForeignProcess, ...] = ()) -> None:
        """A reading every two seconds."""
        for number, share in enumerate(utilisation):
            reading = Reading(
                device_id=device_id,
                at=2.0 * number,
                memory_total_bytes=48 << 30,
                memory_free_bytes=36 << 30,
                utilisation=share,
                temperature_c=61.0,
                power_w=240.0,
                power_limit_w=300.0,
                fan=0.4,
                foreign=foreign,
            )
            self.overview.apply(DeviceReported(reading=reading), self.at)


def scene() -> Watcher:
    """Two devices, two batches, one of them held, some windows done and some at work."""
    watcher = Watcher(gpu(0, capacity=3), gpu(1, capacity=3))
    watcher.announce("older", 4).announce("newer", 30)
    done = 0
    while done < 12:
        batch_id, window = watcher.overview.running[done % len(watcher.overview.running)]
        where = key(window.label.split("_")[0], batch_id)
        watcher.start(where, window.attempt)
        watcher.wait(0.7)
        watcher.end(where, window.attempt, failure("bad_data", "3 gaps in 'close'") if done % 5 == 4 else trained())
        done += 1
    for batch_id, window in watcher.overview.running[:3]:
        where = key(window.label.split("_")[0], batch_id)
        watcher.start(where, window.attempt)
        report = ProgressReported(key=where, attempt=window.attempt, phase="boosting", round=120, rounds=500)
        watcher.overview.apply(report, watcher.at)
    watcher.read("GPU-0", *(number / 40 for number in range(40)))
    stranger = ForeignProcess(pid=4711, user="bob", command="python train.py", memory_bytes=2 << 30)
    watcher.read("GPU-1", 0.1, 0.9, 0.3, foreign=(stranger,))
    watcher.overview.apply(DeviceChanged(device_id="GPU-1", health="draining", reason="by request", at=0.0), 0.0)
    return watcher


HOST = HostView(
    name="quantbox",
    load=3.1,
    cores=16,
    memory_used_bytes=41 << 30,
    memory_total_bytes=128 << 30,
    disk_used_bytes=82,
    disk_total_bytes=100,
)


def frame(watcher: Watcher, **fields: object) -> Frame:
    return Frame(overview=watcher.overview, monotonic=watcher.at, title="gpusched 1.0 at /run/s", **fields)  # type: ignore[arg-type]
