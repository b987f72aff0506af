"""The panels of `gpusched top`: their rows and the order of these, the choice and the marks."""

from __future__ import annotations

from gpusched.client.views.panels import PANELS, Cursor, Lens, after, metric_names, rows
from gpusched.core.events import BatchHeld, ChangeRequested
from gpusched.protocol import BatchAnnounced
from tests.client.scenes import Watcher, frame, scene, status
from tests.client.support import drawn, trained
from tests.core.support import failure, gpu, key


def test_the_cursor_goes_through_panels_and_rows_and_stays_with_what_it_chose() -> None:
    watcher, cursor = scene(), Cursor()
    found = rows(watcher.overview)
    assert [len(found[panel]) for panel in PANELS] == [2, 2, 6, 1, 10]
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
    assert [row.label for row in rows(overview, Lens(words="NEWER sym08"))["running"]] == [
        "SYM08_2022-01-01_to_2022-01-01"
    ]
    assert [row.batch_id for row in rows(overview, Lens(words="older"))["batches"]] == ["older"]
    assert len(rows(overview, Lens(words="nothing like it"))["devices"]) == 2
    assert rows(overview, Lens(words="nothing like it"))["finished"] == []
    by_slot = [row.label for row in rows(overview)["running"]]
    assert [row.label for row in rows(overview, Lens(order="time"))["running"]] == by_slot
    watcher = scene()
    first = key(by_slot[0].split("_")[0], "newer")  # type: ignore[union-attr]
    watcher.wait(1.0)
    watcher.end(first, ending=trained())
    by_slot = [row.label for row in rows(watcher.overview)["running"]]
    assert [row.label for row in rows(watcher.overview, Lens(order="time"))["running"]] == by_slot[1:] + by_slot[:1]


def test_batches_at_work_come_first() -> None:
    """One that is held came before those that run if it was newer."""
    watcher = Watcher(gpu(0)).announce("done", 1)
    watcher.start(key("SYM00", "done"), 1).end(key("SYM00", "done"), 1, trained())
    for batch_id in ("runs", "queued", "held", "newest"):
        watcher.announce(batch_id, 2)
    watcher.overview.apply(BatchAnnounced(batch=status("stage", state="waiting", waits="until 18:00")), watcher.at)
    watcher.overview.apply(BatchHeld(batch_id="held", reason="by request", at=0.0), watcher.at)

    def order() -> list[str]:
        return [row.batch_id for row in rows(watcher.overview)["batches"]]

    assert order() == ["runs", "newest", "queued", "stage", "held", "done"]
    first = key(watcher.overview.batches["runs"].running[0].label.split("_")[0], "runs")
    watcher.send(ChangeRequested(verb="hold", batch_id="runs", label=key("SYM01", "runs").label))
    watcher.start(first, 1).end(first, 1, trained())
    assert not watcher.overview.batches["runs"].running, "the slot went to another batch"
    assert order() == ["queued", "runs", "newest", "stage", "held", "done"]


def test_finished_windows_are_ranked_by_a_metric() -> None:
    watcher = Watcher(gpu(0, capacity=3)).announce("b", 3)
    for number, auc in enumerate((0.5, 0.7, None)):
        watcher.end(
            key(f"SYM{number:02}", "b"), ending=trained({"validation": {"auc": auc, "gain": number, "rmse": number}})
        )
    assert metric_names(watcher.overview) == ["auc", "gain", "rmse"]
    ranked = [row.label for row in rows(watcher.overview, Lens(ranking="best", metric="auc"))["finished"]]
    assert [label.split("_")[0] for label in ranked if label] == ["SYM01", "SYM00"], "one is undefined"
    ranked = [row.label for row in rows(watcher.overview, Lens(ranking="worst", metric="gain"))["finished"]]
    assert [label.split("_")[0] for label in ranked if label] == ["SYM00", "SYM01", "SYM02"]
    ranked = [row.label for row in rows(watcher.overview, Lens(ranking="best", metric="rmse"))["finished"]]
    assert [label.split("_")[0] for label in ranked if label] == ["SYM00", "SYM01", "SYM02"], "of a loss less is better"
    shown = drawn(frame(watcher, lens=Lens(metric="gain", ranking="best"), cursor=Cursor("finished")), 80, 24)
    assert "gain" in shown
    assert "best first" in shown
    assert after(["a", "b"], "b") == "a"
    assert after(["a", "b"], "gone") == "a"


def test_marked_rows_are_what_keys_act_upon() -> None:
    watcher, cursor = scene(), Cursor("running")
    found = rows(watcher.overview)
    assert [row.label for row in cursor.rows(found)] == [found["running"][0].label]
    cursor.mark(found)
    cursor.mark(found)
    assert [row.label for row in cursor.rows(found)] == [row.label for row in found["running"][:2]]
    lines = drawn(frame(watcher, cursor=cursor), 80, 24).split("\n")
    assert len([line for line in lines if line.startswith("│●")]) == 2
    cursor.move(found, -1)
    cursor.mark(found)
    assert len(cursor.marked) == 1
    cursor.turn(found, 1)
    assert not cursor.marked
    cursor.go_to("devices", "GPU-1")
    assert cursor.row(found) is found["devices"][1]


def test_a_mark_stays_with_its_window_and_not_with_the_slot() -> None:
    """Short windows end while somebody marks them: the next one in the slot was cancelled in their place."""
    watcher, cursor = scene(), Cursor("running")
    found = rows(watcher.overview)
    cursor.mark(found)
    cursor.mark(found)
    first, second = found["running"][:2]
    watcher.end(key(first.label.split("_")[0], "newer"), ending=trained())  # type: ignore[union-attr]
    found = rows(watcher.overview)
    assert found["running"][0].key == first.key, "another window has the slot"
    assert [row.label for row in cursor.rows(found)] == [second.label]
    assert len([line for line in drawn(frame(watcher, cursor=cursor), 80, 24).split("\n") if "│●" in line]) == 1
    cursor.mark(found)
    assert len(cursor.marked) == 2, "of the window that is gone, nothing is kept"


def test_what_was_cancelled_is_not_told_twice() -> None:
    watcher = scene()
    first = key(watcher.overview.running[0][1].label.split("_")[0], "newer")
    watcher.send(ChangeRequested(verb="cancel", batch_id="newer", label=first.label)).end(first, ending=trained())
    (_, window) = watcher.overview.recent[-1]
    assert (window.label, window.outcome, window.reason) == (first.label, "succeeded", "")
    second = key(watcher.overview.running[1][1].label.split("_")[0], "newer")
    watcher.send(ChangeRequested(verb="cancel", batch_id="newer", label=second.label))
    watcher.end(second, ending=failure("crashed"))
    (_, window) = watcher.overview.recent[-1]
    assert (window.label, window.outcome, window.reason) == (second.label, "cancelled", "")
