"""From a request to its first window: `python -m benchmarks.warm [--json] [--repeat N]`.

A daemon gets batches of one symbol of daily bars, one after the other, each of a symbol that it has not seen. Measured
is the time from the request's first byte to the start of the first window's process, the survey of the data included:
with a launcher that is kept ready (daemon.warm), and of the first batch of a daemon that keeps none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.bars import write_batch
from benchmarks.service import daemon
from benchmarks.settings import END, START, WINDOW_DAYS, settings
from gpusched.client.connection import Connection, connect
from gpusched.config import Config
from gpusched.config.workloads import workload_settings
from gpusched.core.model import BatchSpec

REPEAT = 12
#: seconds that the median may take
MOST_S = 0.03


class Warm(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from a request to the start of its first window."""

    warm_s: float
    warm_most_s: float
    cold_s: float


def measure(repeat: int = REPEAT) -> Warm:
    with tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name:
        directory = Path(name)
        write_batch(directory, symbol_count=repeat + 1)
        first, *others = (directory / "symbols.txt").read_text().split()
        (directory / "warm").mkdir()
        (directory / "cold").mkdir()
        with (
            daemon(directory / "warm", {"daemon.warm": "true"}) as (_, socket, _),
            connect(socket) as client,
        ):
            _first_start(client, directory, first)  # the launcher is ready after that, whenever it was begun
            warm = [_first_start(client, directory, symbol) for symbol in others]
        with daemon(directory / "cold") as (_, socket, _), connect(socket) as client:
            cold = _first_start(client, directory, first)
    return Warm(warm_s=statistics.median(warm), warm_most_s=max(warm), cold_s=cold)


def _first_start(client: Connection, directory: Path, symbol: str) -> float:
    """Have a symbol's windows trained; return the seconds from the request to the first window's start."""
    spec = BatchSpec(
        symbols=(symbol,),
        start=START,
        end=END,
        window_days=WINDOW_DAYS,
        data_root=str(directory / "data"),
        workload="gpusched.teacher:train_window",
        settings=workload_settings(Config()) | settings(),
        device="cpu",
    )
    requested_at = time.time()
    output = Path(tempfile.mkdtemp(dir=directory))
    batch = client.submit(spec, source=symbol, output_dir=output).batch
    while client.batch(batch.id).batch.finished_at is None:
        time.sleep(0.02)
    labels = [line.key.label for line in client.windows(batch.id)]
    attempts = (client.window(batch.id, label).attempts for label in labels)
    return min(attempt.started_at for each in attempts for attempt in each if attempt.started_at) - requested_at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=REPEAT)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = measure(options.repeat)
    if options.json:
        print(json.dumps(msgspec.to_builtins(measured)))
        return
    print("from a request to the start of its first window, survey included:")
    print(f"{'daemon.warm, median (longest)':<42} {1e3 * measured.warm_s:6.0f} ({1e3 * measured.warm_most_s:.0f}) ms")
    print(f"{'the first batch, no launcher ready':<42} {1e3 * measured.cold_s:6.0f} ms")


if __name__ == "__main__":
    main()
