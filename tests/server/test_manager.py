"""The stages of a stop, as the service manager hears of them."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpusched.config import Config, Daemon
from gpusched.engines.condition import Condition
from gpusched.service import manager
from gpusched.service.manager import Service
from gpusched.service.notify import Notifier

#: by the daemon's monotonic clock
NOW = 1000.0


class Supervised:
    """The part of a supervisor that a service calls."""

    def __init__(self) -> None:
        self.scheduler = SimpleNamespace(active=2, unfinished=3)
        self.stops: list[tuple[bool, float]] = []

    def shut_down(self, *, drain: bool, within_s: float) -> None:
        self.stops.append((drain, round(within_s)))


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager_socket:
        manager_socket.bind(str(tmp_path / "notify"))
        manager_socket.settimeout(5)
        yield manager_socket


@contextlib.contextmanager
def service(supervised: Supervised, address: Path, limit_s: float) -> Iterator[Service]:
    runtime: Any = SimpleNamespace(
        supervisor=supervised,
        condition=Condition(),
        fleet=SimpleNamespace(trying=lambda: ""),
        config=Config(daemon=Daemon(stop_limit_s=limit_s)),
    )
    notifier = Notifier(str(address / "notify"))
    try:
        yield Service(notifier, runtime)
    finally:
        notifier.close()


@pytest.fixture
def no_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the process of the tests. Time stands still, so that stages are as long as they are meant to be."""
    monkeypatch.setattr(Service, "_end_hung_daemon", lambda self: None)
    monkeypatch.setattr(manager, "time", SimpleNamespace(monotonic=lambda: NOW))


@pytest.mark.usefixtures("no_last_resort")
def test_each_stage_has_its_time_and_no_more_is_asked_for(tmp_path: Path, heard: socket.socket) -> None:
    supervised = Supervised()
    with service(supervised, tmp_path, 300.0) as one:
        one._drain("SIGTERM")
        one._stop("a second SIGTERM")
        one._leave_within(0.0)
        assert supervised.stops == [(True, 298), (False, 18), (False, 0)]
        said = [heard.recv(1000).decode() for _ in range(6)]
        assert said[0] == "STOPPING=1"
        told = [line.partition(":")[0] for line in said if line.startswith("STATUS")]
        assert told == ["STATUS=stopping", "STATUS=stopping now"]
        asked = [int(line.partition("=")[2]) / 1e6 for line in said if line.startswith("EXTEND")]
        assert asked == [30.0, 25.0, 5.0]
        one.deadline = NOW - 60
        one._ask_for_time()
        heard.settimeout(0.05)
        with pytest.raises(TimeoutError):
            heard.recv(1000)


@pytest.mark.usefixtures("no_last_resort")
def test_a_short_limit_is_shared_out(tmp_path: Path) -> None:
    supervised = Supervised()
    with service(supervised, tmp_path, 10.0) as one:
        one._drain("SIGTERM")
        one._stop("time is over")
    assert supervised.stops == [(True, 9), (False, 4)]


def test_a_loop_that_hangs_is_ended_from_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(manager, "HANGING_S", 0.0)
    with service(Supervised(), tmp_path, 300.0) as one:
        one.deadline = time.monotonic() + 0.05
        one._end_hung_daemon()
    assert codes == [manager.FAILED]
    assert capfd.readouterr().err == "gpusched: the daemon hangs beyond its stop limit of 300 s and is ended\n"
