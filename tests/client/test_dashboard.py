"""`gpusched top`: its view, and its frames compared with those that a person has read."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from gpusched.client.drawing.dashboard import Frame
from gpusched.client.views.overview import Overview
from gpusched.client.views.panels import PANELS, Cursor, rows
from gpusched.core.events import (
    BatchHeld,
    BatchReleased,
    ChangeRequested,
    DeviceChanged,
    ProgressReported,
)
from gpusched.core.model import Device, Reading, Slot
from gpusched.protocol import BatchAnnounced, BatchStatus, DeviceReported, DeviceStatus, Snapshot, Trouble
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
    check("top", width, drawn(frame(scene(), cursor=Cursor()), width, height))


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


def test_the_cursor_goes_through_panels_and_rows_and_stays_with_what_it_chose() -> None:
    watcher, cursor = scene(), Cursor()
    found = rows(watcher.overview)
    assert [len(found[panel]) for panel in PANELS] == [2, 2, 6, 2, 10]
    assert cursor.row(found).batch_id == "newer"  # type: ignore[union-attr]
    cursor.move(found, 1)
    assert cursor.row(found).batch_id == "older"  # type: ignore[union-attr]
    cursor.move(found, 5)
    assert cursor.row(found).batch_id == "older"  # type: ignore[union-attr]
    seen = []
    for _ in PANELS:
        cursor.turn(found, 1)
        seen.append(cursor.panel)
    assert seen == ["running", "failed", "finished", "devices", "batches"]
    cursor.turn(found, -2)
    assert cursor.panel == "finished"
    cursor.move(found, 3)
    chosen = cursor.row(found)
    assert chosen is not None
    where = key(watcher.overview.running[0][1].label.split("_")[0], "newer")
    watcher.end(where, ending=trained())
    moved = rows(watcher.overview)
    assert cursor.row(moved) == chosen
    assert cursor.number("finished", moved["finished"]) == 4


def test_empty_panels_are_passed_over() -> None:
    cursor, found = Cursor(), rows(Watcher(gpu(0)).overview)
    assert cursor.row(found) is None
    cursor.move(found, 1)
    cursor.turn(found, 1)
    assert cursor.panel == "devices"
    cursor.turn(found, 1)
    assert cursor.panel == "devices"


def test_words_and_orders() -> None:
    overview = scene().overview
    assert [row.label for row in rows(overview, "NEWER sym08")["running"]] == ["SYM08_2022-01-01_to_2022-01-01"]
    assert [row.batch_id for row in rows(overview, "older")["batches"]] == ["older"]
    assert len(rows(overview, "nothing like it")["devices"]) == 2
    assert rows(overview, "nothing like it")["finished"] == []
    by_slot = [row.label for row in rows(overview)["running"]]
    assert [row.label for row in rows(overview, order="time")["running"]] == by_slot
    watcher = scene()
    first = key(by_slot[0].split("_")[0], "newer")  # type: ignore[union-attr]
    watcher.wait(1.0)
    watcher.end(first, ending=trained())
    by_slot = [row.label for row in rows(watcher.overview)["running"]]
    assert [row.label for row in rows(watcher.overview, order="time")["running"]] == by_slot[1:] + by_slot[:1]


def test_the_chosen_row_is_shown_and_marked_however_long_the_panel() -> None:
    watcher, cursor = scene(), Cursor("finished")
    cursor.move(rows(watcher.overview), 11)
    lines = drawn(frame(watcher, cursor=cursor), 80, 24).split("\n")
    (marked,) = [line for line in lines if line.startswith(">")]
    assert "SYM00" in marked
    assert any("more, " in line and "of them above" in line for line in lines)


def test_slots_show_what_their_windows_do() -> None:
    watcher = Watcher(gpu(0, capacity=4)).announce("b", 3)
    first = key(watcher.overview.running[0][1].label.split("_")[0], "b")
    watcher.start(first, 1)
    assert "■◪◪□" in drawn(frame(watcher), 80, 24)
    assert "#oo." in drawn(frame(watcher), 80, 24, encoding="ascii")
    watcher.send(ChangeRequested(verb="cancel", batch_id="b", label=first.label))
    assert "▣◪◪□" in drawn(frame(watcher), 80, 24)


def test_a_hold_is_shown_until_it_is_lifted() -> None:
    watcher = scene()
    watcher.overview.apply(BatchHeld(batch_id="newer", reason="10 failed alike", at=0.0), watcher.at)
    assert "held  10 failed alike  1 failed  7 succeeded" in drawn(frame(watcher), 200, 50)
    assert "held  10 failed alike  1 failed  …" in drawn(frame(watcher), 80, 24)
    watcher.overview.apply(BatchReleased(batch_id="newer", at=0.0), watcher.at)
    assert "10 failed alike" not in drawn(frame(watcher), 200, 50)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_nothing_is_cut_without_a_sign(encoding: str) -> None:
    watcher = scene()
    long = "the last 10 windows failed alike: bad_data: the column 'close' is missing in 2022-03-14.csv"
    watcher.overview.apply(BatchHeld(batch_id="newer", reason=long, at=0.0), watcher.at)
    watcher.overview.apply(DeviceChanged(device_id="GPU-0", health="quarantined", reason=long, at=0.0), watcher.at)
    lines = drawn(frame(watcher), 80, 24, encoding=encoding).split("\n")
    more = "…" if encoding == "utf-8" else "..."
    held, quarantined = (line for line in lines if "held" in line or "quarantined" in line)
    assert held.endswith(more)
    assert quarantined.endswith(more)
    (done,) = [line for line in lines if "SYM07" in line and "succeeded" in line]
    assert done.split("succeeded")[1].split() == ["4.2s", "auc", "0.532", "newer"], "what does not fit is left out"
    assert lines[-1].endswith("? help  q quit")


@pytest.mark.parametrize("height", [24, 8, 3])
def test_why_the_chosen_row_is_as_it_is_is_told_in_full(height: int) -> None:
    watcher = scene()
    where = key(watcher.overview.running[0][1].label.split("_")[0], "newer")
    reason = "the column 'close' is missing in 2022-03-14.csv, 2022-03-15.csv, 2022-03-16.csv and 20 other files"
    watcher.end(where, ending=failure("bad_data", reason))
    lines = drawn(frame(watcher, cursor=Cursor("failed")), 80, height).split("\n")
    assert lines[-1].endswith("q quit")
    assert len(lines) == height
    if height > 3:
        assert " ".join(lines[-3:-1]) == f"{where.label}  failed (bad data): {reason}"
    assert "(bad data)" not in drawn(frame(watcher, cursor=Cursor("failed"), message="An answer"), 80, height)
    watcher.overview.apply(BatchHeld(batch_id="newer", reason=reason, at=0.0), watcher.at)
    shown = drawn(frame(watcher, cursor=Cursor()), 120, 24)
    assert f"newer is held: {reason}"[:120] in shown
    assert "GPU-1 is draining: by request" in drawn(frame(watcher, cursor=chosen_device(watcher)), 80, 24)


def chosen_device(watcher: Watcher) -> Cursor:
    cursor = Cursor("devices")
    cursor.move(rows(watcher.overview), 1)
    return cursor


def test_what_is_tried_again_has_not_ended() -> None:
    watcher = scene()
    batch_id, window = watcher.overview.failures[-1]
    watcher.send(ChangeRequested(verb="retry", batch_id=batch_id, label=window.label))
    found = rows(watcher.overview)
    assert [len(found[panel]) for panel in ("failed", "finished")] == [1, 10]


def test_what_failed_is_listed_once() -> None:
    found = rows(scene().overview)
    assert {row.item.outcome for row in found["failed"]} == {"failed"}  # type: ignore[union-attr]
    assert {row.item.outcome for row in found["finished"]} == {"succeeded"}  # type: ignore[union-attr]


def test_names_of_batches_get_what_they_need() -> None:
    watcher = Watcher(gpu(0)).announce("a" * 30, 4)
    (row,) = [line for line in drawn(frame(watcher), 80, 24).split("\n") if "0/4" in line]
    assert f"{'a' * 10}…{'a' * 9}" in row, "at most a quarter of the screen"
    assert f"{'a' * 30} ─" in drawn(frame(watcher), 200, 50)
    (row,) = [line for line in drawn(frame(Watcher(gpu(0)).announce("b", 4)), 80, 24).split("\n") if "0/4" in line]
    assert row.startswith("  b     ─"), "no more than its heading"


def test_the_memory_of_a_device_is_shown_and_its_history_where_there_is_room() -> None:
    watcher = scene()
    assert " 25% of 48G " in drawn(frame(watcher), 80, 24)
    wide = drawn(frame(watcher), 200, 50)
    assert f"12.0/48.0 GiB ━━────── {'▃' * 20} " in wide
    assert f"━━────── {'▃' * 3:>8} " in drawn(frame(watcher), 110, 30)
    (row,) = [line for line in wide.split("\n") if "SYM08" in line]
    assert row.split()[-2:] == ["GPU-0", "newer"], "the device of what runs"


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
    shown = drawn(frame(watcher, cursor=Cursor(), words=""), 200, 50)
    assert all(line.isprintable() for line in shown.split("\n"))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (20, 4)])
def test_trouble_stands_below_the_first_line(width: int, height: int) -> None:
    watcher = Watcher(gpu(0))
    trouble = Trouble(kind="window", about="b/AAPL", text="b/AAPL does not die (state D in nfs_wait)", since=0.0)
    other = Trouble(kind="store", about="/s", text="/s cannot grow", since=1.0)
    snapshot = Snapshot(at=0.0, batches=(), active=(), progress=(), devices=pool(gpu(0)), troubles=(trouble, other))
    watcher.overview.apply(snapshot, 1000.0)
    lines = drawn(frame(watcher), width, height).splitlines()
    assert len(lines) <= height
    assert lines[1].startswith("Trouble: b/AAPL")
    if width == 80:
        assert lines[1].rstrip() == "Trouble: b/AAPL does not die (state D in nfs_wait) (and 1 more)"
    watcher.overview.apply(Snapshot(at=0.0, batches=(), active=(), progress=(), devices=()), 1000.0)
    assert "Trouble" not in drawn(frame(watcher), width, height)
