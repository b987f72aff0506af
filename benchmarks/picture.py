"""The README's pictures, as `gpusched run` and `gpusched top` draw them: `python -m benchmarks.picture`.

Trains windows of 5-minute bars and keeps a frame of the second half, in `.pictures/run.svg`; then does it again through
a daemon, with a second batch that fails and is held, in `.pictures/top.svg`.
"""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

import anyio
import msgspec
from rich.console import Console, RenderableType

from benchmarks.bars import write_batch
from benchmarks.service import daemon
from benchmarks.settings import END, START, WINDOW_DAYS
from gpusched import __version__
from gpusched.client.connection import connect
from gpusched.client.drawing import dashboard
from gpusched.client.drawing.run import Frame
from gpusched.client.host import look_at_host
from gpusched.client.views.batch import BatchView
from gpusched.client.views.overview import Overview
from gpusched.client.views.panels import Cursor
from gpusched.config import batch_spec, load
from gpusched.core.events import Update
from gpusched.core.planning import batch_id, digest
from gpusched.runs.run import Run, run_batch

PICTURES = Path(__file__).parents[1] / ".pictures"
WIDTH, RUN_HEIGHT, TOP_HEIGHT = 110, 20, 36


def run_picture() -> str:
    """A frame of `gpusched run`."""
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
        name = batch_id("nifty12", digest(spec, None))
        view, began = BatchView(), time.monotonic()
        #: number of windows that show their rounds → a frame
        frames: dict[int, str] = {}

        class Camera:
            def follow(self, news: object) -> None:
                if not isinstance(news, Update):
                    return
                view.apply(news, time.monotonic())
                at_work = sum(running.rounds > 0 for running in view.running.values())
                if 2 * view.done >= view.total and at_work not in frames:
                    frame = Frame(view=view, began=began, monotonic=time.monotonic())
                    frames[at_work] = _drawn(frame, "gpusched run nifty12.txt", RUN_HEIGHT)

        run = Run(config=config, spec=spec, batch_id=name, digest="", output_dir=directory / "out")
        anyio.run(run_batch, run, Camera())
    return frames[max(frames)]


def top_picture() -> str:
    """A frame of `gpusched top`."""
    with tempfile.TemporaryDirectory(prefix="gpusched-picture-") as name, daemon(Path(name)) as (_, socket, _):
        directory = Path(name)
        symbols_file = write_batch(directory, symbol_count=12, interval="5min", bars_per_day=75)
        names = tuple(symbols_file.read_text().split())
        flags = [
            ("windows.start", str(START), "--start"), ("windows.end", str(END), "--end"),
            ("data.root", str(directory / "data"), "--data-root"), ("data.interval", "5min", "--interval"),
            ("labels.threshold", 0.002, "--threshold"),
        ]  # fmt: skip
        config = load(path=None, flags=flags).config
        broken = load(path=None, flags=[*flags[:3], ("run.workload", "benchmarks.windows:fails", "--set")]).config
        overview = Overview()
        with connect(socket) as client, connect(socket) as watcher:
            subscription = watcher.subscribe()
            overview.load(subscription.snapshot, time.monotonic())
            client.submit(batch_spec(config, names), source="nifty12", output_dir=directory / "out")
            client.submit(batch_spec(broken, names), source="broken", name="broken", output_dir=directory / "broken")
            for delta in subscription:
                overview.apply(delta, time.monotonic())
                done = max((view.done for name, view in overview.batches.items() if name != "broken"), default=0)
                at_work = sum(window.rounds > 0 for _, window in overview.running)
                if (done > 40 and at_work == overview.slots) or done > 75:
                    break
            title = f"gpusched {__version__} at /run/gpusched/gpusched.sock"
            frame = dashboard.Frame(
                overview=overview, monotonic=time.monotonic(), title=title, cursor=Cursor(),
                clock=time.strftime("%H:%M:%S"), host=msgspec.structs.replace(look_at_host(directory), name="quantbox"),
            )  # fmt: skip
            return _drawn(frame, "gpusched top", TOP_HEIGHT)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "run.svg").write_text(run_picture())
    (PICTURES / "top.svg").write_text(top_picture())


def _drawn(frame: RenderableType, title: str, height: int) -> str:
    console = Console(width=WIDTH, height=height, record=True, force_terminal=True, file=io.StringIO())
    console.print(frame)
    return console.export_svg(title=title)


if __name__ == "__main__":
    main()
