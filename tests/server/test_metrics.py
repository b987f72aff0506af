"""The metrics that Prometheus reads, from a real daemon by way of HTTP."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gpusched.service.scraped import MOST_CONNECTIONS, ScrapeServer
from tests.server.support import REPOSITORY, Daemon, finished
from tests.waiting import PATIENCE_S, until

Samples = dict[tuple[str, tuple[str, ...]], float]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scrape(port: int) -> tuple[Samples, set[str]]:
    """The samples by name and labels, and the names of all metrics, those without samples included."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    families = [*text_string_to_metric_families(text)]
    samples = {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}
    return samples, {family.name for family in families} | {name for name, _ in samples}


def test_counts_and_gauges_after_a_batch(tmp_path: Path) -> None:
    port, daemon = free_port(), Daemon(tmp_path / "daemon")
    daemon.start(environment={"GPUSCHED_TEST_METRICS": f"127.0.0.1:{port}"})
    try:
        with daemon.connect() as link, daemon.fifo() as release:
            link.submit(daemon.spec("S0", "S1", "BAD", "SKIP"), source="s", name="first")
            finished(daemon, "first")
            link.submit(daemon.spec("FIFO", "FIFO2", windows=2), source="s", name="second")
            link.change("hold", "second")
            found, names = scrape(port)
            release()
        assert found["gpusched_windows_finished_total", ("succeeded",)] >= 2
        assert found["gpusched_windows_finished_total", ("failed",)] == 1
        assert found["gpusched_windows_finished_total", ("skipped",)] == 1
        assert found["gpusched_attempts_failed_total", ("bad_data",)] == 1
        assert found["gpusched_attempt_seconds_count", ()] >= 3
        assert found["gpusched_batches", ("held",)] == 1
        assert found["gpusched_slots", ("cpu", "busy")] + found["gpusched_slots", ("cpu", "free")] == 2
        assert found["gpusched_device_health", ("cpu", "open")] == 1
        assert found["gpusched_device_health", ("cpu", "quarantined")] == 0
        assert found["gpusched_store_writable", ()] == 1
        assert found["gpusched_launcher_starts_total", ()] == 1
        assert ("gpusched_device_power_watts", ("cpu",)) not in found, "what is not known is not zero"
        assert not any("first" in label or "S0" in label for _, labels in found for label in labels)
        dashboard = json.loads((REPOSITORY / "systemd" / "grafana.json").read_text())
        named = set(re.findall(r"gpusched_\w+", json.dumps(dashboard["panels"])))
        totals = {f"{name}_total" for name in names}
        assert named <= names | totals, named - names - totals
    finally:
        daemon.__exit__(None, None, None)


@contextlib.contextmanager
def scraped() -> Iterator[tuple[str, int]]:
    """The address of a server of a line."""

    def application(environ: object, start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", [])
        return [b"up 1\n"]

    server = ScrapeServer("127.0.0.1", 0, application)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[:2]  # type: ignore[misc]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_readers_that_hang_keep_no_other_out() -> None:
    """Each had a thread and a descriptor of the daemon for good, and anybody on the machine may connect."""
    before = threading.active_count()
    with scraped() as (host, port), contextlib.ExitStack() as stack:
        hanging = [stack.enter_context(socket.create_connection((host, port))) for _ in range(3 * MOST_CONNECTIONS)]
        for connection in hanging:
            connection.sendall(b"GET /metrics HTT")
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=PATIENCE_S) as answer:
            assert answer.read() == b"up 1\n"
        until(lambda: threading.active_count() <= before + 1 + MOST_CONNECTIONS, patience_s=PATIENCE_S)
        assert hanging[0].recv(1) == b""


def test_a_reader_that_breaks_off_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with scraped() as address:
        before = threading.active_count()
        with socket.create_connection(address) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it ends with a reset
            connection.sendall(b"GET /metrics HTT")
            until(lambda: threading.active_count() > before, patience_s=PATIENCE_S)
        until(lambda: threading.active_count() <= before, patience_s=PATIENCE_S)
    assert capfd.readouterr() == ("", "")


def test_an_address_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon = Daemon(tmp_path / "daemon")
        daemon.launch(environment={"GPUSCHED_TEST_METRICS": f"127.0.0.1:{taken.getsockname()[1]}"})
        assert daemon.process.wait(timeout=PATIENCE_S) == 4
        said = daemon.log.read_text()
        assert "metrics.listen: nothing can be served" in said
        assert "Traceback" not in said
        daemon.notices.close()


@pytest.mark.parametrize("listen", ["9464", "127.0.0.1:", "somewhere", "127.0.0.1:123456"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    from gpusched.config import BadValue, load

    with pytest.raises(BadValue, match=r"metrics\.listen"):
        load(flags=[("metrics.listen", listen, "--set")])
