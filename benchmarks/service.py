"""What the service costs: `python -m benchmarks.service [--windows N]`.

Starts a daemon of its own in a temporary directory; measures its start, its memory and processor time when idle, and
the commands against it; then submits a batch of 100,000 windows to it, whose devices are drained so that nothing runs.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gpusched.client.connection import connect
from gpusched.core.model import BatchSpec
from gpusched.errors import DaemonError

IDLE_S = 10.0
WINDOWS_PER_SYMBOL = 100
REPOSITORY = Path(__file__).parents[1]


@contextmanager
def daemon(
    directory: Path, extra: Mapping[str, object] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Path, float]]:
    """A daemon's process, its socket, and the seconds from its start until it answered.

    `extra` are settings beside those of the places, which are all in `directory`.
    """
    socket = directory / "s"
    settings = {"daemon.socket": socket, "daemon.state_dir": directory / "state", "cache.dir": directory / "cache"}
    flags = [f"--set={key}={value}" for key, value in {**settings, **(extra or {})}.items()]
    began = time.perf_counter()
    with (directory / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpusched", "daemon", *flags], cwd=REPOSITORY, stdout=log, stderr=log
        )
    try:
        while True:
            try:
                connect(socket).close()
                break
            except DaemonError:
                time.sleep(0.002)
        yield process, socket, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=100_000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name,
        daemon(Path(name)) as (process, socket, started),
    ):
        _say("start of the daemon until it answers", f"{started:.2f} s")
        before = _processor_seconds(process.pid)
        time.sleep(IDLE_S)
        idle = (_processor_seconds(process.pid) - before) / IDLE_S
        _say("idle daemon", f"{_resident_mb(process.pid):.0f} MB, {100 * idle:.1f} % of a core")
        _say("`gpusched status`, shell to prompt (median of 10)", f"{_status_s(socket):.2f} s")
        with connect(socket) as client:
            client.drain(None)
            began = time.perf_counter()
            batch = client.submit(
                _spec(options.windows, Path(name)), source="many", output_dir=Path(name) / "out"
            ).batch
            _say(f"submit of {sum(batch.counts.values()):,} windows", f"{time.perf_counter() - began:.1f} s")
            began = time.perf_counter()
            client.batches()
            _say("round trip of a status request with them", f"{1000 * (time.perf_counter() - began):.0f} ms")
        _say("`gpusched status` with them (median of 10)", f"{_status_s(socket):.2f} s")
        _say("daemon with them", f"{_resident_mb(process.pid):.0f} MB")


def _spec(windows: int, directory: Path) -> BatchSpec:
    start = dt.date(2000, 1, 1)
    symbols = windows // WINDOWS_PER_SYMBOL
    return BatchSpec(
        symbols=tuple(f"S{number}" for number in range(symbols)),
        start=start,
        end=start + dt.timedelta(days=10 * WINDOWS_PER_SYMBOL - 1),
        window_days=10,
        data_root=str(directory),
        workload="benchmarks.windows:nothing",
        settings={},
    )


def _status_s(socket: Path) -> float:
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        command = [sys.executable, "-m", "gpusched", "--socket", str(socket), "status"]
        subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024 / 1e6


def _say(what: str, value: str) -> None:
    print(f"{what:<52} {value}")


if __name__ == "__main__":
    main()
