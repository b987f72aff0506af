"""How long requests about a large batch keep others waiting: `python -m benchmarks.blocking [--windows N]`.

A daemon whose devices are drained gets a batch. One connection makes every request that concerns the whole batch, while
another pings the daemon again and again. The longest wait for an answer is the longest turn of the daemon's loop, and
as long again as the machine is busy with other programs; so the processor time of the longest turn is told as well.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from benchmarks.service import daemon, spec
from benchmarks.turns import Longest
from gpusched.client.connection import Connection, connect

BATCH = "many"


class Blocked(msgspec.Struct, frozen=True, kw_only=True):
    """The times that a request took."""

    request: str
    seconds: float
    #: longest wait of another client during the request
    longest_s: float
    #: processor time of the daemon's longest turn meanwhile
    turn_s: float


class Pulse:
    """Pings a daemon, in a thread of its own, again as soon as it answers."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._over = False
        self._longest = 0.0
        self._answered = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()

    def longest_s(self) -> float:
        """The longest wait since the last call, including the wait that is going on."""
        self._answered.clear()
        self._answered.wait()
        longest, self._longest = self._longest, 0.0
        return longest

    def _run(self) -> None:
        with connect(self._socket) as client:
            while not self._over:
                began = time.perf_counter()
                client.ping()
                self._longest = max(self._longest, time.perf_counter() - began)
                self._answered.set()
                time.sleep(0.001)


def measure(windows: int) -> Iterator[Blocked]:
    """Make and time every request in turn."""
    with (
        tempfile.TemporaryDirectory(prefix="gpusched-bench-") as name,
        daemon(Path(name), program=("benchmarks.turns", f"{name}/turns")) as (_, socket, _),
        connect(socket) as client,
        Pulse(socket) as pulse,
    ):
        client.drain(None)
        longest = Longest(Path(name, "turns"))

        def submit(daemon: Connection) -> None:
            submitted = daemon.submit(
                spec(windows, Path(name)), name=BATCH, source=BATCH, output_dir=Path(name) / "out"
            )
            assert sum(submitted.batch.counts.values()) == windows

        requests: list[tuple[str, Callable[[Connection], object]]] = [
            ("submit", submit),
            ("hold", lambda daemon: daemon.change("hold", BATCH)),
            ("release", lambda daemon: daemon.change("release", BATCH)),
            ("cancel", lambda daemon: daemon.change("cancel", BATCH)),
            ("retry", lambda daemon: daemon.change("retry", BATCH)),
            ("cancel again", lambda daemon: daemon.change("cancel", BATCH)),
            ("submit again", submit),
        ]
        for request, make in requests:
            time.sleep(0.5)
            pulse.longest_s()
            longest.set(0.0)
            began = time.perf_counter()
            make(client)
            seconds = time.perf_counter() - began
            yield Blocked(request=request, seconds=seconds, longest_s=pulse.longest_s(), turn_s=longest.get())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=100_000)
    windows = parser.parse_args().windows
    print(f"{f'{windows:,} windows':<24} {'seconds':>8} {'longest wait of others':>24} {'longest turn, CPU':>18}")
    for blocked in measure(windows):
        waited, turn = 1000 * blocked.longest_s, 1000 * blocked.turn_s
        print(f"{blocked.request:<24} {blocked.seconds:8.2f} {waited:21.0f} ms {turn:15.0f} ms", flush=True)


if __name__ == "__main__":
    main()
