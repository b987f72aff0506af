"""The cost of the service: `python -m benchmarks.service [--windows N]`.

Starts a daemon of its own in a temporary directory; measures its start, its memory and processor time when idle, and
the commands against it; then submits a batch of 100,000 windows, with the devices drained so that nothing runs.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks import commands
from benchmarks.commands import Command
from gpusched.client.connection import connect
from gpusched.core.model import BatchSpec
from gpusched.errors import DaemonError

IDLE_S = 10.0
WINDOWS_PER_SYMBOL = 100
REPOSITORY = Path(__file__).parents[1]


@contextmanager
def daemon(
    directory: Path, extra: Mapping[str, object] | None = None, *, program: Sequence[str] = ("gpusched",)
) -> Iterator[tuple[subprocess.Popen[bytes], Path, float]]:
    """A daemon's process, its socket, and the seconds from its start until it answered.

    `extra` are settings in addition to those of its paths, which are all in `directory`; `program` is the module to
    run, with its arguments before the command.
    """
    socket = directory / "s"
    settings = {"daemon.socket": socket, "daemon.state_dir": directory / "state", "cache.dir": directory / "cache"}
    flags = [f"--set={key}={value}" for key, value in {**settings, **(extra or {})}.items()]
    began = time.perf_counter()
    with (directory / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *program, "daemon", *flags], cwd=REPOSITORY, stdout=log, stderr=log
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


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a daemon without work."""

    #: from its start until it answers
    start_s: float
    #: share of a core
    idle: float
    resident_bytes: int
    status: Command


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a daemon with a batch of many windows, none of which runs."""

    windows: int
    submit_s: float
    #: seconds of a status request alone, the median
    round_trip_s: float
    status: Command
    resident_bytes: int


def measure(idle_s: float = IDLE_S, starts: int = 1) -> Service:
    """Measure an idle daemon; of several starts the fastest counts."""
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(starts):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpusched-bench-")))
            process, socket, seconds = stack.enter_context(daemon(directory))
            started.append(seconds)
        before = processor_seconds(process.pid)
        time.sleep(idle_s)
        idle = (processor_seconds(process.pid) - before) / idle_s
        return Service(
            start_s=min(started), idle=idle, resident_bytes=resident_bytes(process.pid), status=status(socket)
        )


def measure_backlog(windows: int) -> Backlog:
    with (
        tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name,
        daemon(Path(name)) as (process, socket, _),
        connect(socket) as client,
    ):
        client.drain(None)
        began = time.perf_counter()
        batch = client.submit(spec(windows, Path(name)), source="many", output_dir=Path(name) / "out").batch
        submit_s = time.perf_counter() - began
        assert sum(batch.counts.values()) == windows
        trips = []
        for _ in range(10):
            began = time.perf_counter()
            client.batches()
            trips.append(time.perf_counter() - began)
        return Backlog(
            windows=windows,
            submit_s=submit_s,
            round_trip_s=statistics.median(trips),
            status=status(socket),
            resident_bytes=resident_bytes(process.pid),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=100_000)
    options = parser.parse_args()
    service = measure()
    _say("start of the daemon until it answers", f"{service.start_s:.2f} s")
    _say("idle daemon", f"{service.resident_bytes / 1e6:.0f} MB, {100 * service.idle:.1f} % of a core")
    _say("`gpusched status`, shell to prompt (median of 10)", f"{service.status.seconds:.2f} s")
    backlog = measure_backlog(options.windows)
    _say(f"submit of {backlog.windows:,} windows", f"{backlog.submit_s:.1f} s")
    _say("round trip of a status request with them (median of 10)", f"{1000 * backlog.round_trip_s:.1f} ms")
    _say("`gpusched status` with them (median of 10)", f"{backlog.status.seconds:.2f} s")
    _say("daemon with them", f"{backlog.resident_bytes / 1e6:.0f} MB")


def spec(windows: int, directory: Path) -> BatchSpec:
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


def status(socket: Path) -> Command:
    """The cost of `gpusched status` against the daemon at this socket."""
    return commands.measure("--socket", str(socket), "status")


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def _say(label: str, value: str) -> None:
    print(f"{label:<56} {value}")


if __name__ == "__main__":
    main()
