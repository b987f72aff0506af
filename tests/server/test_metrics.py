"""The metrics that Prometheus reads, from a real daemon by way of HTTP."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.server.support import REPOSITORY, Daemon, finished
from tests.waiting import PATIENCE_S

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
            link.hold("second")
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
