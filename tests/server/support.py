"""Helpers for the tests of this directory: daemon processes, batches, raw sockets."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpusched.client.connection import Connection, Subscription, connect
from gpusched.core.events import BatchFinished
from gpusched.core.model import BatchSpec, Limits
from gpusched.core.states import Running
from gpusched.protocol import PROTOCOL, BatchStatus, Delta, Snapshot, WindowLine
from tests.waiting import PATIENCE_S

REPOSITORY = Path(__file__).parents[2]
#: seconds; a longer wait means that something is broken
#: seconds in which an update that is waited for must come, however many others come before it
UPDATE_S = 240.0
#: variable in the environment of every process that a test's daemon leads to
MARKER = "GPUSCHED_TEST_SERVICE"


class Daemon:
    """A daemon that keeps everything in one directory; it can be started again and again."""

    def __init__(self, directory: Path, *, slots: int = 2) -> None:
        self.directory = directory
        self.slots = slots
        self.socket = directory / "run" / "s"
        self.log = directory / "daemon.log"
        self.data = directory / "data"
        self.data.mkdir(parents=True)
        self.process: subprocess.Popen[bytes]
        self.notices: socket.socket

    def start(
        self, prefix: tuple[str, ...] = (), environment: dict[str, str] | None = None, **constants: float
    ) -> None:
        """Start the daemon and wait until it is ready. `constants` replace those of `gpusched.service.server` and
        others.
        """
        self.launch(prefix, environment, **constants)
        self.wait_for_notice("READY=1")

    def listen(self) -> str:
        """Act as the service manager of a daemon that somebody else starts; return the address for it to notify."""
        address = self.directory / "notify"
        address.unlink(missing_ok=True)
        if hasattr(self, "notices"):
            self.notices.close()
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(address))
        self.notices.settimeout(PATIENCE_S)
        return str(address)

    def launch(
        self, prefix: tuple[str, ...] = (), environment: dict[str, str] | None = None, **constants: float
    ) -> None:
        address = self.listen()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tests.server.service", str(self.directory), str(self.slots)],
                cwd=REPOSITORY,
                env=os.environ
                | {
                    "NOTIFY_SOCKET": address,
                    "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
                    "GPUSCHED_TEST_CONSTANTS": json.dumps(constants),
                    MARKER: str(self.directory),
                }
                | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_for_notice(self, wanted: str) -> None:
        """Wait until the daemon sends its service manager a line that begins with `wanted`."""
        try:
            while not any(line.startswith(wanted) for line in self.notices.recv(65536).decode().split("\n")):
                pass
        except TimeoutError:
            raise AssertionError(f"no {wanted}; the daemon said:\n{self.log.read_text()}") from None

    def kill(self) -> None:
        """Kill the daemon as the kernel would: SIGKILL, no warning."""
        self.process.kill()
        self.end()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        code = self.process.wait(PATIENCE_S)
        self.notices.close()
        return code

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)

    # -- clients -----------------------------------------------------------------------------------------------------

    def connect(self) -> Connection:
        connection = connect(self.socket)
        # A test that would wait for ever fails with BlockingIOError.
        connection._link.limit_waiting(int(PATIENCE_S))
        return connection

    def raw(self) -> socket.socket:
        """A connection on which nothing has been sent yet."""
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(PATIENCE_S)
        link.connect(str(self.socket))
        return link

    def greeted(self) -> socket.socket:
        link = self.raw()
        link.sendall(frame(type="hello", protocol=PROTOCOL, version="test"))
        assert read_frame(link)["type"] == "welcome"
        return link

    def spec(self, *symbols: str, windows: int = 1, limits: Limits | None = None, **settings: Any) -> BatchSpec:
        """The spec of a batch with `windows` windows for each symbol."""
        start = dt.date(2022, 1, 1)
        return BatchSpec(
            symbols=symbols,
            start=start,
            end=start + dt.timedelta(days=10 * windows - 1),
            window_days=10,
            data_root=str(self.data),
            workload="tests.server.workloads:window",
            settings=settings,
            limits=limits or Limits(backoff_s=0.0),
        )

    @contextlib.contextmanager
    def fifo(self) -> Iterator[Callable[[], None]]:
        """Yield a function that ends one window of a FIFO… symbol with each call; they run until then."""
        path = self.data / "fifo"
        os.mkfifo(path)
        descriptor = os.open(path, os.O_RDWR)

        def release() -> None:
            os.write(descriptor, b"\n")

        try:
            yield release
        finally:
            os.close(descriptor)
            path.unlink()

    def processes(self) -> list[int]:
        """Every living process that this daemon's directory has led to."""
        mark = f"{MARKER}={self.directory}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found


def frame(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def read_frame(link: socket.socket) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        byte = link.recv(1)
        if not byte:
            raise EOFError(line)
        line += byte
    answer = json.loads(line)
    assert isinstance(answer, dict)
    return answer


def read_to_end(link: socket.socket) -> bytes:
    """Read until the other side closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := link.recv(1 << 20):
            data += piece
    return data


def until(subscription: Subscription, wanted: Callable[[Delta | Snapshot], bool]) -> list[Delta | Snapshot]:
    """Collect updates up to and including the first one that is wanted."""
    seen: list[Delta | Snapshot] = []
    deadline = time.monotonic() + UPDATE_S
    for delta in subscription:
        seen.append(delta)
        if wanted(delta):
            return seen
        # Readings come every second, so the connection's own limit never strikes.
        assert time.monotonic() < deadline, f"not among {len(seen)} updates, of which the last are {seen[-3:]}"
    raise AssertionError("a subscription does not end")


def running(service: Daemon, windows: int, grace_s: float = 10.0) -> list[WindowLine]:
    """A batch of windows that wait for the test, and all of them running."""
    with service.connect() as connection:
        limits = Limits(backoff_s=0.0, grace_s=grace_s)
        connection.submit(service.spec("FIFO", windows=windows, limits=limits), source="s", name="batch")
        subscription = connection.subscribe("batch")
        seen: set[str] = {line.key.label for line in subscription.snapshot.active if line.status == "running"}
        while len(seen) < windows:
            until(subscription, lambda d: isinstance(getattr(d, "new", None), Running))
            seen.add(str(len(seen)))
    with service.connect() as connection:
        return list(connection.windows("batch"))


def launcher_of(service: Daemon) -> int:
    (pid,) = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    return int(pid)


def finished(daemon: Daemon, batch_id: str) -> BatchStatus:
    """Wait until all windows of a batch are finished, and return its status."""
    with daemon.connect() as connection:
        subscription = connection.subscribe(batch_id)
        if subscription.snapshot.batches[0].state != "finished":
            until(
                subscription,
                lambda d: (
                    isinstance(d, BatchFinished) or (isinstance(d, Snapshot) and d.batches[0].state == "finished")
                ),
            )
    with daemon.connect() as connection:
        return connection.batch(batch_id).batch


def label(symbol: str, number: int = 0) -> str:
    start = dt.date(2022, 1, 1) + dt.timedelta(days=10 * number)
    return f"{symbol}_{start}_to_{start + dt.timedelta(days=9)}"
