"""The cost of a frame of the live screens: `python -m benchmarks.frames [--json]`.

It is measured for `gpusched top` and `gpusched run`, each on a large terminal, with 100,000 windows queued, every slot
of eight GPUs at work and as many finished windows as a screen keeps: the median processor time of the frame's thread.
"""

from __future__ import annotations

import argparse
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
from gpusched.client.views.batch import BatchView
from gpusched.client.views.overview import Overview
from gpusched.client.views.panels import Cursor
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
from gpusched.core.model import Device, Instant, Reading, Slot
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Failure
from gpusched.protocol import BatchAnnounced, BatchStatus, DeviceReported, DeviceStatus, Snapshot

WINDOWS, GPUS, SLOTS, ENDED = 100_000, 8, 4, 500
WIDTH, HEIGHT = 200, 50
FRAMES = 40
METRICS = {"validation": {"accuracy": 0.54, "precision": None, "recall": 0.2, "f1": 0.33, "auc": 0.5321}}


def overview(windows: int = WINDOWS) -> tuple[Overview, BatchView, float]:
    """A daemon at work as `top` sees it, the same batch as `run` sees it, and the present instant."""
    cards = tuple(Device(id=f"GPU-{n}", name="a card", lightgbm_type="cuda", capacity=SLOTS) for n in range(GPUS))
    seen, view, scheduler, now = Overview(), BatchView(), Scheduler(), 0.0
    seen.load(Snapshot(at=0.0, batches=(), active=(), progress=(), devices=tuple(map(_open, range(GPUS), cards))), now)
    commands: list[Command] = []

    def send(event: Event) -> None:
        records, more = scheduler.handle(event, Instant(monotonic=now, wall=now))
        commands.extend(more)
        for record in records:
            view.apply(record, now)
            if not isinstance(record, BatchAccepted | BatchAltered | ChangeAdvanced | ChangeMade | WindowsAdded):
                seen.apply(record, now)

    send(NodeJoined(devices=cards))
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
    for _ in range(60):
        for card in cards:
            reading = Reading(
                device_id=card.id, at=now, memory_total_bytes=48 << 30, memory_free_bytes=36 << 30,
                utilisation=0.9, temperature_c=61.0, power_w=240.0,
            )  # fmt: skip
            seen.apply(DeviceReported(reading=reading), now)
    assert len(view.running) == len(seen.running) == GPUS * SLOTS
    assert view.done == ENDED
    return seen, view, now


def of_top(seen: Overview, now: float) -> float:
    return seconds(
        lambda at: dashboard.Frame(
            overview=seen, monotonic=at, title="gpusched at /run/gpusched.sock", cursor=Cursor()
        ),
        now,
    )


def of_run(view: BatchView, now: float) -> float:
    return seconds(lambda at: live.Frame(view=view, began=0.0, monotonic=at), now)


def seconds(frame: Callable[[float], RenderableType], now: float) -> float:
    """Seconds of the thread to draw a frame on a terminal that takes it at once, the median."""
    console = Console(file=io.StringIO(), width=WIDTH, height=HEIGHT, force_terminal=True, color_system="truecolor")
    taken = []
    for number in range(FRAMES):
        began = time.thread_time()
        console.print(frame(now + number / 8))
        taken.append(time.thread_time() - began)
    return statistics.median(taken)


def measure(windows: int = WINDOWS) -> dict[str, float]:
    """Seconds for a frame of each screen."""
    seen, view, now = overview(windows)
    return {"top": of_top(seen, now), "run": of_run(view, now)}


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
        print(f"a frame of {screen:<4} {1e3 * cost:6.2f} ms   8 of them a second: {100 * 8 * cost:.1f} % of a core")


if __name__ == "__main__":
    main()
