"""The README's picture: a frame of a real run, as `gpusched run` draws it.

    python -m benchmarks.picture          # writes .pictures/run.svg

Trains windows of 5-minute bars (12 symbols × 7 windows) and keeps a frame of the moment when two in three were done.
"""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

import anyio
from rich.console import Console

from benchmarks.bars import write_batch
from benchmarks.settings import END, START, WINDOW_DAYS
from gpusched.client.live import Frame
from gpusched.client.view import BatchView
from gpusched.config import batch_spec, load
from gpusched.core.events import Update
from gpusched.core.planning import batch_id, digest
from gpusched.daemon.run import run_batch

PICTURE = Path(__file__).parents[1] / ".pictures" / "run.svg"
WIDTH, HEIGHT = 110, 20


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gpusched-picture-") as name:
        directory = Path(name)
        symbols_file = write_batch(directory, symbol_count=12, interval="5min", bars_per_day=75)
        symbols = symbols_file.read_text().split()
        flags = [
            ("windows.start", str(START), "--start"), ("windows.end", str(END), "--end"),
            ("windows.days", WINDOW_DAYS, "--window-days"), ("data.root", str(directory / "data"), "--data-root"),
            ("cache.dir", str(directory / "cache"), "--set"), ("run.workers", 4, "--workers"),
            *((key, value, "--set") for key, value in (("data.interval", "5min"), ("labels.threshold", 0.002))),
        ]  # fmt: skip
        config = load(path=None, flags=flags).config
        spec = batch_spec(config, tuple(symbols))
        name = batch_id("nifty36", digest(spec, None))
        view, began, frames = BatchView(), time.monotonic(), list[str]()

        def observe(update: Update) -> None:
            view.apply(update, time.monotonic())
            at_work = sum(running.rounds > 0 for running in view.running.values())
            if not frames and 3 * view.done >= 2 * view.total and at_work == spec.workers:
                frames.append(_drawn(view, began))

        async def train() -> None:
            await run_batch(
                config, spec, batch_id=name, digest="", output_dir=directory / "out",
                observe=observe, on_plan=lambda plan: None, on_interrupt=lambda count: None,
            )  # fmt: skip

        anyio.run(train)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(frames[0])


def _drawn(view: BatchView, began: float) -> str:
    console = Console(width=WIDTH, height=HEIGHT, record=True, force_terminal=True, file=io.StringIO())
    console.print(Frame(view=view, began=began, monotonic=time.monotonic()))
    return console.export_svg(title="gpusched run nifty36.txt")


if __name__ == "__main__":
    main()
