"""The cost of a frame of the live screens: `python -m benchmarks.frames [--json]`.

It is measured for `gpusched top` (its first page; that page with nothing but graphs of eight devices; a batch) and
for `gpusched run`, each on a large terminal, with 100,000 windows queued, every slot of eight GPUs at work and as many
finished windows as a screen keeps: the mean processor time of the thread, in ten seconds of frames at eight a second.
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import json
import statistics
import time
from collections.abc import Callable

import msgspec
from rich.console import Console, RenderableType

from benchmarks.makespan import BATCH, RESULT
from benchmarks.throughput import plan
from gpusched.client.drawing import dashboard
from gpusched.client.drawing import run as live
from gpusched.client.drawing.devices import Graphs
from gpusched.client.drawing.windows import WindowsFrame
from gpusched.client.views.batch import BatchView
from gpusched.client.views.overview import Overview
from gpusched.client.views.panels import Cursor
from gpusched.client.views.windows import WindowList
from gpusched.core.commands import Command, Launch
from gpusched.core.events import (
    AttemptEnded,
    AttemptStarted,
    BatchAccepted,
    BatchAltered,
    BatchSubmitted,
    ChangeAdvanced,
    ChangeMade,
    Event,
    NodeJoined,
    ProgressReported,
    WindowsAdded,
)
from gpusched.core.model import Device, Instant, Reading, Slot, WindowKey
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Failure
from gpusched.protocol import BatchAnnounced, BatchStatus, DeviceReported, DeviceStatus, Snapshot, WindowLine

WINDOWS, GPUS, SLOTS, ENDED = 100_000, 8, 4, 500
WIDTH, HEIGHT = 200, 50
FRAMES = 80
METRICS = {"validation": {"accuracy": 0.54, "precision": None, "recall": 0.2, "f1": 0.33, "auc": 0.5321}}


CARDS = tuple(Device(id=f"GPU-{n}", name="a card", lightgbm_type="cuda", capacity=SLOTS) for n in range(GPUS))


def idle(now: float, *, read: bool = True) -> Overview:
    """A daemon with nothing to do."""
    seen = Overview()
    seen.load(Snapshot(at=now, batches=(), active=(), progress=(), devices=tuple(map(_open, range(GPUS), CARDS))), now)
    if read:
        _read(seen, now)
    return seen


def _read(seen: Overview, now: float, *, seconds: int = 600) -> None:
    """Readings of each device, a second apart."""
    for second in range(seconds):
        for card in CARDS:
            reading = Reading(
                device_id=card.id, at=now + second, memory_total_bytes=48 << 30, memory_free_bytes=36 << 30,
                utilisation=second % 101 / 100, temperature_c=61.0, power_w=240.0, power_limit_w=300.0,
            )  # fmt: skip
            seen.apply(DeviceReported(reading=reading), now)


def overview(windows: int = WINDOWS) -> tuple[Overview, BatchView, float]:
    """A daemon at work as `top` sees it, the same batch as `run` sees it, and the present instant."""
    seen, view, scheduler, now = idle(0.0, read=False), BatchView(), Scheduler(), 0.0
    commands: list[Command] = []

    def send(event: Event) -> None:
        records, more = scheduler.handle(event, Instant(monotonic=now, wall=now))
        commands.extend(more)
        for record in records:
            view.apply(record, now)
            if not isinstance(record, BatchAccepted | BatchAltered | ChangeAdvanced | ChangeMade | WindowsAdded):
                seen.apply(record, now)

    send(NodeJoined(devices=CARDS))
    seen.apply(BatchAnnounced(batch=_status(windows)), now)
    send(BatchSubmitted(batch=BATCH, windows=plan(windows)))
    for number in range(ENDED + GPUS * SLOTS):
        launch = commands.pop(0)
        assert isinstance(launch, Launch)
        now += 0.01
        send(AttemptStarted(key=launch.key, attempt=launch.attempt, pid=1))
        report = ProgressReported(key=launch.key, attempt=launch.attempt, phase="train", round=number % 500, rounds=500)
        seen.apply(report, now)
        view.apply(report, now)
        if number < ENDED:
            bad = Failure(kind="bad_data", message="the column 'close' is missing in 2022-03-14.csv")
            good = msgspec.structs.replace(RESULT, metrics=METRICS)
            send(AttemptEnded(key=launch.key, attempt=launch.attempt, ending=good if number % 10 else bad))
    _read(seen, now)
    assert len(view.running) == len(seen.running) == GPUS * SLOTS
    assert view.done == ENDED
    return seen, view, now


def of_top(seen: Overview, now: float) -> float:
    graphs, title = Graphs(), "gpusched at /run/gpusched.sock"

    def frame(at: float) -> RenderableType:
        if at % 1 < 1 / 8:  # a reading of each device every second
            _read(seen, at, seconds=1)
        return dashboard.Frame(overview=seen, monotonic=at, title=title, cursor=Cursor(), graphs=graphs)

    return seconds(frame, now)


def of_run(view: BatchView, now: float) -> float:
    return seconds(lambda at: live.Frame(view=view, began=0.0, monotonic=at), now)


def of_batch(windows: int, view: BatchView, now: float) -> float:
    """The page of a batch, sorted by status, which is looked at anew all the time."""
    listed = WindowList(BATCH.id)
    day = dt.date(2024, 1, 1)
    listed.load(
        WindowLine(
            key=WindowKey(BATCH.id, f"S{number:06}_2024-01-01_to_2024-06-29"), symbol=f"S{number % 500:03}", start=day,
            end=day, status="succeeded" if number % 3 else "queued", moved_at=0.0, usable_rows=120, attempts=1,
        )
        for number in range(windows)
    )  # fmt: skip
    listed.next_order()
    return seconds(lambda at: WindowsFrame(windows=listed, view=view, monotonic=at, wall=at), now)


def of_devices(now: float) -> float:
    """The first page with nothing but devices: all lines are graphs."""
    return of_top(idle(now), now)


def seconds(frame: Callable[[float], RenderableType], now: float) -> float:
    """Seconds of the thread to draw a frame on a terminal that takes it at once, the mean."""
    console = Console(file=io.StringIO(), width=WIDTH, height=HEIGHT, force_terminal=True, color_system="truecolor")
    taken = []
    for number in range(FRAMES):
        began = time.thread_time()
        console.print(frame(now + number / 8))
        taken.append(time.thread_time() - began)
    return statistics.fmean(taken)


def measure(windows: int = WINDOWS) -> dict[str, float]:
    """Seconds for a frame of each screen."""
    seen, view, now = overview(windows)
    return {
        "top": of_top(seen, now),
        "graphs": of_devices(now),
        "batch": of_batch(windows, view, now),
        "run": of_run(view, now),
    }


def _open(number: int, card: Device) -> DeviceStatus:
    slots = tuple(Slot(SLOTS * number + slot, card.id) for slot in range(SLOTS))
    return DeviceStatus(device=card, health="open", reason="", slots=slots, allocations={}, reading=None)


def _status(windows: int) -> BatchStatus:
    return BatchStatus(
        id=BATCH.id, output_dir=BATCH.output_dir, submitted_at=0.0, state="open", held_reason=None, finished_at=None,
        counts={"queued": windows},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = measure()
    if options.json:
        print(json.dumps(measured))
        return
    for screen, cost in measured.items():
        print(f"a frame of {screen:<6} {1e3 * cost:6.2f} ms   8 of them a second: {100 * 8 * cost:.1f} % of a core")


if __name__ == "__main__":
    main()
