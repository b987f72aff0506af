"""A real daemon, killed with SIGKILL at random moments while windows run and batches come in.

Whatever was accepted ends exactly once and as it should; no artifact is corrupt; no process and no slot is left over.
"""

from __future__ import annotations

import json
import os
import random
import select
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gpusched import artifacts
from gpusched.client.connection import Connection
from gpusched.core.model import Limits
from gpusched.errors import GpuschedError
from gpusched.metadata import METADATA, read_metadata
from tests.server import workloads
from tests.server.support import Daemon, finished

OUTCOMES = {"OK": "succeeded", "DIE": "succeeded", "BAD": "failed", "SKIP": "skipped"}
#: seconds that a window takes
WINDOW_S = 0.02


class Submitter(threading.Thread):
    """Submits batch after batch to whatever daemon is there, as an impatient client would, until told to stop."""

    def __init__(self, daemon: Daemon, batches: int, windows: int, *, max_attempts: int = 5) -> None:
        super().__init__()
        self._daemon = daemon
        self._names = [f"batch-{number}" for number in range(batches)]
        self._windows = windows
        self._max_attempts = max_attempts
        #: batches that the daemon has promised
        self.accepted: list[str] = []

    def run(self) -> None:
        for name in self._names:
            while True:
                try:
                    with self._daemon.connect() as connection:
                        self._submit(connection, name)
                except GpuschedError:  # no daemon, or one whose launcher or disk is gone for the moment
                    continue
                break

    def _submit(self, connection: Connection, name: str) -> None:
        number = name.rpartition("-")[2]
        spec = self._daemon.spec(
            *[f"{kind}{number}" for kind in OUTCOMES],
            windows=self._windows,
            limits=Limits(backoff_s=0.0, breaker_failures=0, max_attempts=self._max_attempts),
            seconds=WINDOW_S,
        )
        connection.submit(spec, source="chaos", name=name)
        self.accepted.append(name)


def chaos(daemon: Daemon, *, rounds: int, batches: int, windows: int, seed: int) -> int:
    """Kill the daemon `rounds` times while batches come in, then check everything; kills that hit running windows."""
    dice = random.Random(seed)
    submitter = Submitter(daemon, batches, windows)
    hits = 0
    start_s = timed(daemon.start)
    submitter.start()
    for _ in range(rounds):
        # A moment, not a wait for anything: the daemon's death comes at random here, but later on a slower machine.
        select.select([], [], [], dice.uniform(0.0, start_s))
        hits += len(daemon.processes()) > 2
        daemon.kill()
        all_gone(daemon)
        start_s = timed(daemon.start)
    submitter.join()
    assert submitter.accepted == [f"batch-{number}" for number in range(batches)]
    for name in submitter.accepted:
        finished(daemon, name)
        check(daemon, name, windows)
    with daemon.connect() as connection:
        assert [batch.id for batch in connection.batches()] == submitter.accepted
        assert not any(device.allocations for device in connection.devices())
        assert connection.ping().active == 0
    assert daemon.stop() == 0
    all_gone(daemon)
    return hits


def timed(function: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    began = time.monotonic()
    function()
    return time.monotonic() - began


def all_gone(daemon: Daemon) -> None:
    """Until every process that the daemon led to is gone; they die with it."""
    for pid in daemon.processes():
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], 10)[0], f"the process {pid} has outlived its daemon"
        finally:
            os.close(descriptor)
    assert not daemon.processes()


def check(daemon: Daemon, name: str, windows: int) -> None:
    """Every window of the batch has ended once, as its symbol says, and left its files."""
    output = daemon.directory / "runs" / name
    with daemon.connect() as connection:
        lines = list(connection.windows(name))
        assert len({line.key for line in lines}) == len(lines) == windows * len(OUTCOMES)
        (batch,) = [batch for batch in connection.batches() if batch.id == name]
        assert batch.counts == Counter(line.status for line in lines)
        for line in lines:
            kind = line.symbol.rstrip("0123456789")
            detail = connection.window(name, line.key.label)
            assert line.status == OUTCOMES[kind], detail
            endings = [move for move in detail.story if move.new == line.status]
            assert len(endings) == (kind != "SKIP"), detail
            results = [attempt for attempt in detail.attempts if attempt.ending == "result"]
            assert len(results) == (line.status == "succeeded"), detail
            check_artifacts(output / line.key.label, line.key.label, line.status == "succeeded")
        assert {result.key for result in connection.results(name)} == {line.key for line in lines}
    index = [json.loads(line) for line in (output / "teacher_runs.json").read_text().splitlines()]
    assert sorted(entry["window_label"] for entry in index) == sorted(line.key.label for line in lines)


def check_artifacts(directory: Path, label: str, expected: bool) -> None:
    assert (directory / METADATA).exists() is expected
    if expected:
        metadata = read_metadata(directory)
        assert metadata is not None
        assert artifacts.verify(directory, {str(metadata.fingerprint)}) is not None
        assert (directory / "model.txt").read_text() == workloads.content(label)


def test_killed_five_times(service: Daemon) -> None:
    chaos(service, rounds=5, batches=2, windows=5, seed=5)


@pytest.mark.slow
def test_killed_a_hundred_times(service: Daemon) -> None:
    hits = chaos(service, rounds=100, batches=12, windows=25, seed=int(os.environ.get("CHAOS_SEED", "1")))
    print(f"killed 100 times, {hits} times with windows running")
    assert hits > 20
