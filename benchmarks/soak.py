"""Whether the daemon's memory grows with each window that runs: `python -m benchmarks.soak [--json] [--windows N]`.

A daemon of its own runs batches of 1,000 windows that do nothing, one after the other; its resident memory is read
after each. It may grow until it holds as many finished windows as it keeps (`KEPT_WINDOWS`), and not after that.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.service import daemon, resident_bytes, spec
from gpusched.client.connection import Connection, connect
from gpusched.core.events import BatchFinished

WINDOWS, BATCH_WINDOWS = 100_000, 1_000
#: share of the windows that run before memory is read for the first time
WARM = 0.2


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    windows: int
    seconds: float
    #: after the first fifth of the windows, and after the last
    warm_bytes: int
    end_bytes: int


def measure(windows: int = WINDOWS, observe: Callable[[int, int], None] = lambda windows, resident: None) -> Soak:
    """Run `windows` windows; `observe` gets their number so far and the resident bytes after each batch."""
    with (
        tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name,
        daemon(Path(name)) as (process, socket, _),
        connect(socket) as client,
    ):
        began = time.perf_counter()
        warm = 0
        for done in range(BATCH_WINDOWS, windows + 1, BATCH_WINDOWS):
            run(client, socket, Path(name) / "out" / str(done))
            resident = resident_bytes(process.pid)
            observe(done, resident)
            if not warm and done >= WARM * windows:
                warm = resident
        return Soak(windows=done, seconds=time.perf_counter() - began, warm_bytes=warm, end_bytes=resident)


def run(client: Connection, socket: Path, output: Path) -> None:
    """Run a batch until all of its windows have succeeded; remove its output, so that the disk does not fill up."""
    with connect(socket) as watcher:
        updates = watcher.subscribe()
        batch = client.submit(spec(BATCH_WINDOWS, output.parents[1]), source="soak", output_dir=output).batch
        for update in updates:
            if isinstance(update, BatchFinished) and update.batch_id == batch.id:
                break
    counts = client.batch(batch.id).batch.counts
    assert counts == {"succeeded": BATCH_WINDOWS}, counts
    shutil.rmtree(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    def show(windows: int, resident: int) -> None:
        if windows % 10_000 == 0:
            print(f"{windows:>8,} windows  {resident / 1e6:6.1f} MB", file=sys.stderr)

    soak = measure(options.windows, show)
    if options.json:
        print(json.dumps(msgspec.to_builtins(soak)))
        return
    grown = (soak.end_bytes - soak.warm_bytes) / 1e6
    print(f"{soak.windows:,} windows, {soak.windows / soak.seconds:.0f} a second: {soak.end_bytes / 1e6:.0f} MB,"
          f" {grown:+.1f} MB since the first fifth of them")  # fmt: skip


if __name__ == "__main__":
    main()
