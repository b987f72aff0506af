"""Batches on GPUs against a deadline: run each, and read its store afterwards."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from benchmarks.bars import write_batch
from benchmarks.gpus.watch import Watch
from benchmarks.settings import END, START, WINDOW_DAYS, settings
from gpusched.config import STATE_DIR, load
from gpusched.core.model import Device, DeviceChoice
from gpusched.engines.local.warm_up import launcher_environment
from gpusched.protocol import AttemptLine
from gpusched.store.store import Store

Interval = Literal["1d", "5m"]
#: number of symbols with data, and bars a day
SYMBOLS: dict[Interval, tuple[int, int]] = {"1d": (36, 1), "5m": (12, 75)}
#: most seconds for a batch
RUN_S = 90.0
#: seconds: no part begins with fewer left
LEAST_S = 15.0


class OutOfTime(Exception):
    """The deadline is too near for another measurement."""


@dataclass(frozen=True)
class Run:
    """The result of one batch. Seconds of a window are from its start to the moment at which its slot is free."""

    name: str
    device: str
    slots: int | str
    windows: int
    seconds: float
    per_s: float
    #: without the first window of each slot, which starts cold
    steady_per_s: float | None = None
    window_s: float | None = None
    #: from a window's end to the start of the next one on its slot: the median, and the 99th percentile
    refill_ms: float | None = None
    refill_p99_ms: float | None = None
    cpu_s: float | None = None
    #: attempts without a result, by how they ended
    failures: dict[str, int] = field(default_factory=dict)
    nvml: dict[str, Any] = field(default_factory=dict)
    #: the end of its output, if it failed
    error: str = ""

    def object(self) -> dict[str, Any]:
        return asdict(self)


class Bench:
    """Runs commands in `directory` until the deadline; `more` are settings for each of them, as `key=value`."""

    def __init__(self, directory: Path, devices: Sequence[Device], deadline_s: float, more: Iterable[str] = ()) -> None:
        self.directory = directory
        self.devices = devices
        self.environment: dict[str, str] = {}
        self._deadline = time.monotonic() + deadline_s
        self._more = tuple(more)

    def left(self) -> float:
        return self._deadline - time.monotonic()

    def seconds(self, wanted: float) -> float:
        """`wanted` seconds, or the seconds that are left. Raises OutOfTime."""
        if self.left() < LEAST_S:
            raise OutOfTime
        return min(wanted, self.left())

    def output(self, name: str) -> Path:
        return self.directory / "out" / name

    def symbols_file(self, interval: Interval, count: int) -> Path:
        """The first `count` symbols; their data is written once."""
        place = self.directory / interval
        many, bars = SYMBOLS[interval]
        if not place.exists():
            write_batch(place, symbol_count=many, interval=interval, bars_per_day=bars)
        names = (place / "symbols.txt").read_text().split()[:count]
        path = place / f"symbols-{len(names)}.txt"
        path.write_text("".join(f"{name}\n" for name in names))
        return path

    def options(self, interval: Interval) -> list[str]:
        given = [f"cache.dir={self.directory / 'cache'}", *self._more]
        is_built_in = not any(setting.startswith("run.workload=") for setting in self._more)
        flags = [f"--{name}={value}" for name, value in settings(interval).items()] if is_built_in else []
        return [*flags, *(text for setting in given for text in ("--set", setting))]

    def asked(self, interval: Interval, symbols: int, device: DeviceChoice) -> list[str]:
        """The arguments of `plan`, `run` and `bench` that describe a batch."""
        path = self.symbols_file(interval, symbols)
        dates = ("--start", str(START), "--end", str(END), "--window-days", str(WINDOW_DAYS))
        where = ("--data-root", str(path.parent / "data"), "--device", device)
        return [str(path), *where, *dates, *self.options(interval)]

    def launcher_environment(self) -> dict[str, str]:
        """The environment of gpusched's own launcher: the kernel caches, and whether processors pass for GPUs."""
        pairs = (text.partition("=") for text in (f"cache.dir={self.directory / 'cache'}", *self._more))
        return launcher_environment(load(flags=[(key, value, "--set") for key, _, value in pairs]).config)

    def call(
        self, command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a session of its own, all of which is ended when its time is up (then code 124)."""
        with subprocess.Popen(
            command,
            cwd=self.directory,
            env={**os.environ, **self.environment, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=self.seconds(seconds))
                return subprocess.CompletedProcess(command, process.returncode, out, err)
            except (subprocess.TimeoutExpired, OutOfTime):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                out, err = process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
            return subprocess.CompletedProcess(command, 124, out, err)

    def gpusched(self, *arguments: str, seconds: float = RUN_S) -> subprocess.CompletedProcess[str]:
        return self.call([sys.executable, "-m", "gpusched", *arguments], seconds)

    def run(
        self,
        name: str,
        device: DeviceChoice,
        slots: int | str,
        *,
        interval: Interval = "1d",
        symbols: int = 36,
        more: Sequence[str] = (),
        watch: Watch | None = None,
    ) -> Run:
        """Run `gpusched run` with `slots` on each device, or in all on the processors. Raises OutOfTime."""
        seconds = self.seconds(RUN_S)
        where = ["--workers", str(slots)] if device == "cpu" else ["--set", f"devices.slots={slots}"]
        output = self.output(name)
        began = time.monotonic()
        with watch or Watch(self.devices) as watch:
            done = self.gpusched(
                "run", *self.asked(interval, symbols, device), "-o", str(output), "--json", *where, *more,
                seconds=seconds,
            )  # fmt: skip
        took = time.monotonic() - began
        error = (done.stderr or done.stdout)[-600:].strip() if done.returncode else ""
        found = Run(name, device, slots, 0, took, 0.0, error=error, nvml=watch.summary())
        attempts = attempts_of(output)
        return _measured(found, attempts) if attempts else found


def attempts_of(output: Path) -> list[AttemptLine]:
    """Every attempt that ended, in the order of placement; none if there is no store."""
    path = output / STATE_DIR / "state.db"
    if not path.exists():
        return []
    with Store.open(path) as store:
        rows = [
            attempt
            for batch in store.batches()
            for window in store.windows(batch.id)
            for attempt in store.attempts(window.key)
            if attempt.ended_at is not None
        ]
    return sorted(rows, key=lambda row: row.placed_at)


def _measured(run: Run, attempts: Sequence[AttemptLine]) -> Run:
    good = [row for row in attempts if row.ending == "result" and row.ended_at is not None]
    failures = Counter(f"{row.ending}: {(row.message or '')[:120]}" for row in attempts if row.ending != "result")
    if not good:
        return replace(run, failures=dict(failures))
    by_slot: dict[int, list[AttemptLine]] = {}
    for row in attempts:
        by_slot.setdefault(row.slot.index, []).append(row)
    refills = sorted(
        1000 * (later.started_at - earlier.ended_at)
        for rows in by_slot.values()
        for earlier, later in pairwise(rows)
        if later.started_at is not None and earlier.ended_at is not None
    )
    ends = sorted(row.ended_at for row in good if row.ended_at is not None)
    began, cold = min(row.placed_at for row in attempts), len(by_slot)
    steady_s = ends[-1] - ends[cold - 1] if len(ends) > cold else 0.0
    return replace(
        run,
        windows=len(good),
        per_s=round(len(good) / (ends[-1] - began), 2),
        steady_per_s=round((len(ends) - cold) / steady_s, 2) if steady_s > 0 else None,
        window_s=_middle([row.ended_at - row.started_at for row in good if row.started_at and row.ended_at]),
        refill_ms=_middle(refills),
        refill_p99_ms=round(refills[int(0.99 * (len(refills) - 1))], 2) if refills else None,
        cpu_s=_middle([row.usage.cpu_seconds for row in good if row.usage is not None]),
        failures=dict(failures),
    )


def _middle(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 4) if values else None


def last_object(text: str) -> dict[str, Any]:
    """The JSON object in the last line of a command's output; empty if there is none."""
    try:
        found = json.loads(text.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
