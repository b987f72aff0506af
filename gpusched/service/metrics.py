"""Metrics for operators, served for Prometheus by its client library at `metrics.listen`.

Counters follow the updates; gauges are computed when Prometheus reads them, on the event loop's thread. No label
contains a batch, a window or a symbol: their number has no bound.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

from gpusched import __version__
from gpusched.core.events import BatchAccepted, WindowMoved
from gpusched.core.model import Health, Reading, WindowResult
from gpusched.core.states import Active, Failure, Finished, Running
from gpusched.core.statuses import OUTCOMES, UNFINISHED, name_of
from gpusched.errors import ConfigError
from gpusched.protocol import TroubleKind
from gpusched.service import views
from gpusched.supervisor.followers import News
from gpusched.supervisor.runtime import Runtime

#: upper bounds of the histogram's buckets in seconds, each twice the one before
BUCKETS = tuple(0.01 * 2**step for step in range(18))
#: names of phases that get a label; a user's workload may report any number of names
MOST_PHASES = 32
#: seconds that the event loop has to answer a reader
PATIENCE_S = 5.0
#: seconds for which gauges count as fresh after they were computed
FRESH_S = 0.5


class NoPrometheus(ConfigError):
    problem = "metrics.listen needs the package prometheus-client"
    remedy = "`pip install 'gpusched-supervisor[metrics]'`, or take the setting out"


class CannotListen(ConfigError):
    problem = "metrics.listen: nothing can be served at {address}: {why}"
    remedy = "choose an address of this machine and a port that is free"


class Metrics:
    """The metrics of a daemon's runtime. `follow` is called on the event loop's thread."""

    def __init__(self, runtime: Runtime) -> None:
        """Raises NoPrometheus."""
        try:
            import prometheus_client
        except ImportError:
            raise NoPrometheus from None
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._registry = registry = prometheus_client.CollectorRegistry()
        self._finished = prometheus_client.Counter(
            "gpusched_windows_finished", "Windows that finished since the start.", ["outcome"], registry=registry
        )
        self._failed = prometheus_client.Counter(
            "gpusched_attempts_failed", "Attempts that failed since the start.", ["kind"], registry=registry
        )
        self._seconds = prometheus_client.Histogram(
            "gpusched_attempt_seconds", "From an attempt's start to its end.", registry=registry, buckets=BUCKETS
        )
        self._phases = prometheus_client.Counter(
            "gpusched_phase_seconds", "Seconds that windows spent in a phase.", ["phase"], registry=registry
        )
        self._phase_names: set[str] = set()
        self._read: list[Any] = []
        self._read_at = float("-inf")
        info = prometheus_client.Gauge("gpusched_build_info", "Always 1.", ["version"], registry=registry)
        info.labels(__version__).set(1)
        registry.register(self)

    def follow(self, news: News) -> None:
        match news:
            case BatchAccepted(counts=counts):
                # Skipped and reused windows are finished from the start, and never move.
                for outcome in counts.keys() & OUTCOMES:
                    self._finished.labels(outcome).inc(counts[outcome])
            case WindowMoved():
                self._count(news)

    def _count(self, moved: WindowMoved) -> None:
        old, new, ending = moved.old, moved.new, moved.ending
        if isinstance(new, Finished):
            self._finished.labels(name_of(new.outcome)).inc()
        if isinstance(old, Running) and not isinstance(new, Active):
            self._seconds.observe(max(0.0, moved.at - old.started_at))
        match ending:
            case Failure(kind=kind) if kind != "no_data":  # such a window is skipped
                self._failed.labels(kind).inc()
            case WindowResult(phases=phases):
                for phase, seconds in phases.items():
                    if self._has_label(phase):
                        self._phases.labels(phase).inc(max(0.0, seconds))

    def _has_label(self, phase: str) -> bool:
        if phase not in self._phase_names and len(self._phase_names) < MOST_PHASES and re.fullmatch(r"\w{1,32}", phase):
            self._phase_names.add(phase)
        return phase in self._phase_names

    @contextmanager
    def served(self, address: str) -> Iterator[None]:
        """Serve at `HOST:PORT`. Raises CannotListen."""
        import prometheus_client

        from gpusched.service.scraped import ScrapeServer  # the standard library's servers are for this setting alone

        host, _, port = address.rpartition(":")
        try:
            server = ScrapeServer(host.strip("[]"), int(port), prometheus_client.make_wsgi_app(self._registry))
        except (OSError, OverflowError) as error:
            raise CannotListen(address=address, why=getattr(error, "strerror", None) or error) from error
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    # -- gauges --------------------------------------------------------------------------------------------------------

    def collect(self) -> Iterable[Any]:
        """The metrics of this moment. The library calls this on the thread of a reader."""
        return asyncio.run_coroutine_threadsafe(self._recent(), self._loop).result(PATIENCE_S)

    def describe(self) -> Iterable[Any]:
        """Describe no metrics, so that the library does not call `collect` at registration."""
        return ()

    async def _recent(self) -> list[Any]:
        """The metrics of this moment, or of one just before, so that no number of readers keeps the loop busy."""
        now = self._loop.time()
        if now - self._read_at >= FRESH_S:
            self._read, self._read_at = self._now(), now
        return self._read

    def _now(self) -> list[Any]:
        from prometheus_client import core

        families_of: Any = core  # not all of it is typed

        def gauge(name: str, text: str, *labels: str) -> Any:
            families.append(families_of.GaugeMetricFamily(f"gpusched_{name}", text, labels=labels))
            return families[-1]

        families: list[Any] = []
        open_batches = [batch for batch in self._runtime.store.batches() if batch.state != "finished"]
        states: Counts[str] = Counts()
        for batch in open_batches:
            states.update(batch.counts)
        windows = gauge("windows", "Windows of batches that are not finished.", "state")
        for state in UNFINISHED:
            windows.add_metric([state], states[state])
        batches = gauge("batches", "Batches that are not finished.", "state")
        for state in ("open", "held"):
            batches.add_metric([state], sum(batch.state == state for batch in open_batches))
        troubles = Counts(trouble.kind for trouble in self._runtime.condition.troubles)
        gauge("store_writable", "0 while nothing moves since the store cannot be written.").add_metric(
            [], int("store" not in troubles)
        )
        wrong = gauge("troubles", "What is wrong with the daemon now, as `gpusched status` says.", "kind")
        for kind in get_args(TroubleKind):
            wrong.add_metric([kind], troubles[kind])
        starts = families_of.CounterMetricFamily("gpusched_launcher_starts", "Launchers started since the start.")
        starts.add_metric([], self._runtime.engine.starts)
        families.append(starts)
        self._add_devices(gauge)
        return families

    def _add_devices(self, gauge: Callable[..., Any]) -> None:
        slots = gauge("slots", "Slots in use at a time, by what they do.", "device", "state")
        health = gauge("device_health", "1 for the health that the device has.", "device", "health")
        readings: list[tuple[Any, Callable[[Reading], float | None]]] = [
            (gauge("device_utilisation_ratio", "0 to 1.", "device"), lambda r: r.utilisation),
            (gauge("device_memory_free_bytes", "Free memory.", "device"), lambda r: r.memory_free_bytes),
            (gauge("device_memory_total_bytes", "All memory.", "device"), lambda r: r.memory_total_bytes),
            (gauge("device_temperature_celsius", "Temperature.", "device"), lambda r: r.temperature_c),
            (gauge("device_power_watts", "Power draw.", "device"), lambda r: r.power_w),
        ]
        for device in views.devices(self._runtime.supervisor.scheduler.pool):
            name, busy = device.device.id, device.busy
            slots.add_metric([name, "busy"], busy)
            slots.add_metric([name, "free"], max(0, device.width - busy))
            for kind in get_args(Health):
                health.add_metric([name, kind], int(device.health == kind))
            for family, value in readings:
                if device.reading is not None and (measured := value(device.reading)) is not None:
                    family.add_metric([name], measured)
