"""`gpusched top`: its view, and its frames compared with those that a person has read."""

from __future__ import annotations

import re

import msgspec
import pytest
from rich.cells import cell_len

from gpusched.client.drawing.box import Box, Column, heading
from gpusched.client.drawing.graph import by_time, use_of
from gpusched.client.drawing.text import FANCY
from gpusched.client.views.failures import FailureGroup
from gpusched.client.views.panels import PANELS, Cursor, rows
from gpusched.core.events import (
    BatchHeld,
    BatchReleased,
    ChangeRequested,
    DeviceChanged,
)
from gpusched.core.model import Reading
from gpusched.core.samples import Recent
from gpusched.protocol import BatchAnnounced, DeviceReported, Snapshot, Trouble
from gpusched.users import user_name
from tests.client.scenes import HOST, Watcher, frame, pool, scene, status
from tests.client.support import drawn
from tests.client.test_screens import HOSTILE, check
from tests.core.support import batch, failure, gpu, key

SIZES = pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 50)])


@SIZES
def test_a_frame(width: int, height: int) -> None:
    check("top", width, drawn(frame(scene(), cursor=Cursor(), clock="14:02:11", host=HOST), width, height))


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


def test_a_stage_says_what_it_waits_for_on_a_narrow_screen() -> None:
    watcher = Watcher(gpu(0)).announce("teachers", 3)
    stage = status("students", state="waiting", waits="until teachers has succeeded")
    watcher.overview.apply(BatchAnnounced(batch=stage), watcher.at)
    (line,) = [line for line in drawn(frame(watcher), 80, 24).split("\n") if "students" in line]
    assert "waits until teachers has succeeded" in line
    assert "0/0" not in line


def test_the_chosen_row_is_shown_and_marked_however_long_the_panel() -> None:
    watcher, cursor = scene(), Cursor("finished")
    cursor.move(rows(watcher.overview), 11)
    lines = drawn(frame(watcher, cursor=cursor), 80, 24).split("\n")
    (chosen,) = [line for line in lines if line.startswith("│>")]
    assert "SYM00" in chosen
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
    assert "held 10 failed alike  1 failed  7 succeeded" in drawn(frame(watcher), 120, 40)
    assert "held 10 failed alike  1 failed  …" in drawn(frame(watcher), 80, 24)
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
    assert held[:-1].endswith(more)
    assert quarantined[:-1].endswith(more)
    assert lines[-1].endswith("? help  q quit")


@pytest.mark.parametrize("height", [24, 8, 3])
def test_why_the_chosen_row_is_as_it_is_is_told_in_full(height: int) -> None:
    watcher = scene()
    where = key(watcher.overview.running[0][1].label.split("_")[0], "newer")
    reason = "the column 'close' is missing in 2022-03-14.csv, 2022-03-15.csv, 2022-03-16.csv and 20 other files"
    watcher.end(where, ending=failure("bad_data", reason))
    cursor = Cursor("failed")
    cursor.move(rows(watcher.overview), 1)
    lines = drawn(frame(watcher, cursor=cursor), 80, height).split("\n")
    assert lines[-1].endswith("q quit")
    assert len(lines) == height
    if height > 3:
        assert " ".join(lines[-3:-1]) == f"{where.label}  failed (bad data): {reason}"
    assert "(bad data)" not in drawn(frame(watcher, cursor=cursor, message="An answer"), 80, height)
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
    assert [len(row.targets) for row in found["failed"]] == [1]
    assert len(found["finished"]) == 10


def test_what_failed_is_listed_once() -> None:
    found = rows(scene().overview)
    (alike,) = found["failed"]
    assert isinstance(alike.item, FailureGroup)
    assert {window.outcome for _, window in alike.item.windows} == {"failed"}
    assert {row.item.outcome for row in found["finished"]} == {"succeeded"}  # type: ignore[union-attr]


def test_names_of_batches_get_what_they_need() -> None:
    watcher = Watcher(gpu(0)).announce("a" * 30, 4)
    (row,) = [line for line in drawn(frame(watcher), 80, 24).split("\n") if "0/4" in line]
    assert f"{'a' * 8}…{'a' * 7}" in row, "at most a quarter of the screen"
    assert f"{'a' * 30} ─" in drawn(frame(watcher), 120, 50)
    (row,) = [line for line in drawn(frame(Watcher(gpu(0)).announce("b", 4)), 80, 24).split("\n") if "0/4" in line]
    assert row.startswith("│ b     ─"), "no more than five cells"


def test_a_device_in_numbers_and_its_history_where_there_is_room() -> None:
    watcher = scene()
    narrow = drawn(frame(watcher), 80, 24)
    assert "98% 12.0/48.0G ━━────  61° 240/300W" in narrow
    assert "bob" not in narrow
    wide = drawn(frame(watcher), 120, 40)
    assert "98% 12.0/48.0G ━━────  61° 240/300W  40%" in wide
    assert "pid 4711 bob 2.0G python train.py" in wide
    (use, *_) = [line for line in wide.split("\n") if "use " in line and "memory" not in line]
    assert use.endswith("⣿│"), "the last reading is at the right end"
    assert [line for line in wide.split("\n") if " 1m " in line and "now" in line]
    (row,) = [line for line in drawn(frame(watcher), 200, 50).split("\n") if "SYM08" in line and "boosting" in line]
    assert "━━────── " in row, "a bar of its rounds"
    assert "GPU-0  newer" in " ".join(row.split("│")[1].split()).replace(" newer", "  newer")


def test_history_from_before_is_shown_and_a_late_reading_leaves_no_gap() -> None:
    watcher = Watcher(gpu(0))
    reading = Reading(device_id="GPU-0", at=0.0, utilisation=1.0)
    told = Recent()
    for at in (0.0, 2.0, 6.0, 14.0):  # one is late, then the device is silent
        told.add(msgspec.structs.replace(reading, at=at))
    watcher.overview.remember(told.samples())
    shares = by_time(watcher.overview.history.of("GPU-0"), use_of, 9)
    assert shares == [None, 1.0, 1.0, 1.0, 1.0, None, None, None, 1.0]
    watcher.overview.apply(DeviceReported(reading=msgspec.structs.replace(reading, device_id="cpu")), 0.0)
    assert watcher.overview.processors is not None


def test_graphs_get_a_line_for_each_device_or_none() -> None:
    watcher = scene()
    for height in range(20, 40):
        shown = drawn(frame(watcher), 120, height).split("\n")
        begin, end = (next(n for n, line in enumerate(shown) if line[:1] == corner) for corner in "╭╰")
        inside = shown[begin + 1 : end]
        assert not [line for line in inside if not line.strip("│ ")], "a line with nothing in it is wasted"
        graphed = [line for line in inside if line.startswith("│ use ")]
        assert len(graphed) in (0, 2)
        (card,) = [line for line in inside if line.startswith("│ GPU-1")]
        assert any("\u2800" < sign <= "\u28ff" for sign in card) == (not graphed), (
            "in place of graphs there is one here"
        )


def test_the_owner_of_a_batch_stands_at_the_right_end() -> None:
    watcher = Watcher(gpu(0))
    watcher.overview.apply(BatchAnnounced(batch=status("mine", owner=0)), watcher.at)
    watcher.overview.apply(BatchAnnounced(batch=status("theirs", owner=2**31 - 7)), watcher.at)
    shown = drawn(frame(watcher), 80, 24)
    assert f"{user_name(0)}│" in shown
    assert f"{2**31 - 7}│" in shown


def test_headings_of_columns_side_by_side_give_way_one_by_one() -> None:
    """ETA had none, since the outcomes beside it begin where the number of waiting windows stands."""
    columns = [Column("rate", 8, right=True), Column("ETA", 6, right=True), Column("outcomes", 0)]
    headings = heading(columns)
    for width, shown in (
        (60, " rate ── ETA outcomes "),
        (36, " rate ── ETA ──── 95 waiting "),
        (30, " rate ───── 95 waiting "),
    ):
        box = Box(title="b", width=width, lines=[], summary="95 waiting", headings=headings)
        assert shown in box.drawn(FANCY)[0].plain


def test_a_batch_is_named_beside_its_windows_only_where_that_says_something() -> None:
    for width in range(60, 80):
        shown = drawn(frame(scene()), width, 24)
        assert not re.search(r"\d[ms] \S{1,4} *│$", shown, re.MULTILINE), shown


def test_failures_are_grouped_and_their_label_is_shown() -> None:
    watcher = scene()
    shown = drawn(frame(watcher), 80, 24)
    assert "2 lately, 1 reason" in shown
    (row,) = [line for line in shown.split("\n") if "2 × 3 gaps in 'close'" in line]
    assert "SYM0" in row


def test_the_panel_that_keys_act_upon_is_always_there() -> None:
    for panel in PANELS:
        assert f"─ {panel} ─" in drawn(frame(scene(), cursor=Cursor(panel)), 80, 12)


def test_the_mouse_finds_the_row_under_it() -> None:
    watcher = scene()
    for width in (80, 200):
        shown = drawn(frame(watcher), width, 40).split("\n")
        for spot in frame(watcher).spots(width, 40):
            here = shown[spot.y][spot.x : spot.x + spot.width]
            if spot.panel == "batches":
                assert spot.key in here
            if spot.panel == "finished":
                assert spot.key.split("/")[1][:8] in here


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
    assert len(watcher.overview.history.of("GPU-0")) == 40


def test_foreign_text_is_harmless() -> None:
    watcher = Watcher(gpu(0))
    watcher.overview.apply(BatchAnnounced(batch=status(HOSTILE, counts={"queued": 1})), watcher.at)
    watcher.submit(batch(HOSTILE), [HOSTILE])
    shown = drawn(frame(watcher, cursor=Cursor()), 200, 50)
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
