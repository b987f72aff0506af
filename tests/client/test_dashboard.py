"""`gpusched top`: what it knows, and its frames compared with what has been looked at."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from gpusched.client.dashboard import Frame
from gpusched.client.overview import Overview
from gpusched.core.events import BatchHeld, BatchReleased, DeviceChanged, ProgressReported
from gpusched.core.model import Device, Reading, Slot
from gpusched.protocol import BatchAnnounced, BatchStatus, DeviceReported, DeviceStatus, Snapshot
from tests.client.support import Onlooker, drawn, trained
from tests.client.test_screens import HOSTILE, check
from tests.core.support import batch, failure, gpu, key

SIZES = pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])


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

    def read(self, device_id: str, *utilisation: float) -> None:
        for share in utilisation:
            reading = Reading(
                device_id=device_id,
                at=0.0,
                memory_total_bytes=48 << 30,
                memory_free_bytes=36 << 30,
                utilisation=share,
                temperature_c=61.0,
                power_w=240.0,
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
    watcher.read("GPU-1", 0.1, 0.9, 0.3)
    watcher.overview.apply(DeviceChanged(device_id="GPU-1", health="draining", reason="by request", at=0.0), 0.0)
    return watcher


def frame(watcher: Watcher, **fields: object) -> Frame:
    return Frame(overview=watcher.overview, monotonic=watcher.at, title="gpusched 1.0 at /run/s", **fields)  # type: ignore[arg-type]


@SIZES
def test_a_frame(width: int, height: int) -> None:
    check("top", width, drawn(frame(scene(), selected="newer"), width, height))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(("width", "height"), [(40, 8), (80, 24), (80, 3), (200, 50), (20, 1)])
def test_a_frame_never_exceeds_the_screen(width: int, height: int, encoding: str) -> None:
    shown = drawn(frame(scene(), message="A question that is much too long for such a screen? y/n"), width, height,
                  encoding=encoding).split("\n")  # fmt: skip
    assert len(shown) <= max(height, 2)
    assert all(cell_len(line) <= width for line in shown)
    assert encoding == "utf-8" or "".join(shown).isascii()


def test_counts_follow_what_happens() -> None:
    watcher = scene()
    overview = watcher.overview
    assert overview.slots == 6
    assert len(overview.running) == 6
    assert sum(view.done for view in overview.batches.values()) == 12
    assert overview.waiting == 34 - 12 - 6
    assert len(overview.recent) == 12
    assert [window.reason for _, window in overview.failures] == ["3 gaps in 'close'"] * len(overview.failures)
    assert len(overview.failures) == 2
    assert {index for device in overview.devices.values() for index in device.busy} == set(range(6))


def test_a_hold_is_shown_until_it_is_lifted() -> None:
    watcher = scene()
    watcher.overview.apply(BatchHeld(batch_id="newer", reason="10 failed alike", at=0.0), watcher.at)
    assert "10 failed alike" in drawn(frame(watcher), 200, 50)
    watcher.overview.apply(BatchReleased(batch_id="newer", at=0.0), watcher.at)
    assert "10 failed alike" not in drawn(frame(watcher), 200, 50)


def test_a_snapshot_replaces_what_was_known_but_not_what_was_seen() -> None:
    watcher = scene()
    snapshot = Snapshot(
        at=0.0, batches=(status("third", counts={"queued": 1, "succeeded": 2}),), active=(), progress=(),
        devices=pool(gpu(0, capacity=3)),
    )  # fmt: skip
    watcher.overview.apply(snapshot, watcher.at)
    assert list(watcher.overview.batches) == ["third"]
    assert watcher.overview.waiting == 1
    assert len(watcher.overview.recent) == 12
    assert len(watcher.overview.devices["GPU-0"].utilisation) == 40


def test_foreign_text_is_harmless() -> None:
    watcher = Watcher(gpu(0))
    watcher.overview.apply(BatchAnnounced(batch=status(HOSTILE, counts={"queued": 1})), watcher.at)
    watcher.submit(batch(HOSTILE), [HOSTILE])
    shown = drawn(frame(watcher, selected=HOSTILE), 200, 50)
    assert all(line.isprintable() for line in shown.split("\n"))
