"""Batches on GPUs against a deadline: run each, and read its store afterwards."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
#: exit code of a command whose time was up
TIMED_OUT = 124
#: the name of the one symbol whose bars all twins have
ORIGINAL = "SYM00"
#: where NVIDIA's OpenCL driver may be on a machine that has no file in /etc/OpenCL/vendors
OPENCL_DRIVERS = tuple(
    Path(directory, "libnvidia-opencl.so.1")
    for directory in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/nvidia/lib64")
)


class OutOfTime(Exception):
    """The deadline is too near for another measurement."""


@dataclass(frozen=True)
class Work:
    """A batch to run: its symbols file, beside which its data are, and its bars."""

    symbols: Path
    interval: Interval
    end: dt.date = END


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
    #: it was ended because its time was up
    timed_out: bool = False

    def object(self) -> dict[str, Any]:
        return asdict(self)


class Bench:
    """Runs commands in `directory` until the deadline; `more` are settings for each of them, as `key=value`.

    `opencl` is a directory with a LightGBM that has OpenCL, for where the installed one has CUDA instead.
    """

    def __init__(
        self,
        directory: Path,
        devices: Sequence[Device],
        deadline_s: float,
        more: Iterable[str] = (),
        opencl: Path | None = None,
    ) -> None:
        self.directory = directory
        self.devices = devices
        # the benchmarks' own programs are started in another directory
        here = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        self._environment = {"PYTHONPATH": path}
        self._for_opencl = {} if opencl is None else {"PYTHONPATH": os.pathsep.join((str(opencl.absolute()), path))}
        self._deadline = time.monotonic() + deadline_s
        self._more = tuple(more)

    def environment(self, device: DeviceChoice) -> dict[str, str]:
        """The environment in which LightGBM has this device type, if any LightGBM here has."""
        return {**os.environ, **self._environment, **(self._opencl() if device == "gpu" else {})}

    def _opencl(self) -> dict[str, str]:
        driver = next((path for path in OPENCL_DRIVERS if path.exists()), None)
        if driver is None or any(Path("/etc/OpenCL/vendors").glob("*nvidia*")):
            return self._for_opencl
        vendors = self.directory / "vendors"
        vendors.mkdir(exist_ok=True)
        (vendors / "nvidia.icd").write_text(f"{driver}\n")
        return {**self._for_opencl, "OCL_ICD_VENDORS": str(vendors), "OPENCL_VENDOR_PATH": str(vendors)}

    # -- the time that is left -----------------------------------------------------------------------------------------

    def left(self) -> float:
        return self._deadline - time.monotonic()

    def seconds(self, wanted: float) -> float:
        """`wanted` seconds, or the seconds that are left. Raises OutOfTime."""
        if self.left() < LEAST_S:
            raise OutOfTime
        return min(wanted, self.left())

    @contextlib.contextmanager
    def share(self, part: float) -> Iterator[None]:
        """Leave only this part of the seconds that are left to the commands inside, but enough for one of them."""
        deadline = self._deadline
        self._deadline = min(deadline, time.monotonic() + max(2 * LEAST_S, part * self.left()))
        try:
            yield
        finally:
            self._deadline = deadline

    # -- batches -------------------------------------------------------------------------------------------------------

    def output(self, name: str) -> Path:
        return self.directory / "out" / name

    def batch(self, interval: Interval, count: int) -> Work:
        """The windows of the first `count` symbols; their data are written once."""
        place = self.directory / interval
        many, bars = SYMBOLS[interval]
        if not place.exists():
            write_batch(place, symbol_count=many, interval=interval, bars_per_day=bars)
        return _first(place, (place / "symbols.txt").read_text().split(), count, interval)

    def twins(self, interval: Interval, count: int) -> Work:
        """One and the same window `count` times: the first one of symbols that have the same bars."""
        place = self.directory / f"twins-{interval}"
        names = [f"TWIN{number:02d}" for number in range(count)]
        end = START + dt.timedelta(days=WINDOW_DAYS - 1)
        if not place.exists():
            bars = SYMBOLS[interval][1]
            write_batch(place, symbol_count=1, end=end, interval=interval, bars_per_day=bars)
        for name in names:
            shutil.copytree(place / "data" / ORIGINAL, place / "data" / name, dirs_exist_ok=True)
        return replace(_first(place, names, count, interval), end=end)

    def options(self, interval: Interval) -> list[str]:
        given = [f"cache.dir={self.directory / 'cache'}", *self._more]
        is_built_in = not any(setting.startswith("run.workload=") for setting in self._more)
        flags = [f"--{name}={value}" for name, value in settings(interval).items()] if is_built_in else []
        return [*flags, *(text for setting in given for text in ("--set", setting))]

    def asked(self, work: Work, device: DeviceChoice) -> list[str]:
        """The arguments of `plan`, `run` and `bench` that describe a batch."""
        dates = ("--start", str(START), "--end", str(work.end), "--window-days", str(WINDOW_DAYS))
        where = ("--data-root", str(work.symbols.parent / "data"), "--device", device)
        return [str(work.symbols), *where, *dates, *self.options(work.interval)]

    # -- commands ------------------------------------------------------------------------------------------------------

    def launcher_environment(self) -> dict[str, str]:
        """The environment of gpusched's own launcher: the kernel caches, and whether processors pass for GPUs."""
        pairs = (text.partition("=") for text in (f"cache.dir={self.directory / 'cache'}", *self._more))
        return launcher_environment(load(flags=[(key, value, "--set") for key, _, value in pairs]).config)

    def call(
        self, command: Sequence[str], seconds: float, device: DeviceChoice, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a session of its own, all of which is ended when its time is up (then code `TIMED_OUT`).

        `device` and `more` make its environment. Raises OutOfTime.
        """
        limit_s = self.seconds(seconds)
        with subprocess.Popen(
            command,
            cwd=self.directory,
            env={**self.environment(device), **(more or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=limit_s)
                return subprocess.CompletedProcess(command, process.returncode, out, err)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)
            except BaseException:  # Ctrl-C, which a session of its own does not get
                os.killpg(process.pid, signal.SIGTERM)
                raise
            try:
                out, err = process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
            return subprocess.CompletedProcess(command, TIMED_OUT, out, f"{err}\nended after {limit_s:.0f} s")

    def gpusched(
        self, *arguments: str, device: DeviceChoice, seconds: float = RUN_S
    ) -> subprocess.CompletedProcess[str]:
        return self.call([sys.executable, "-m", "gpusched", *arguments], seconds, device)

    def run(
        self,
        name: str,
        work: Work,
        device: DeviceChoice,
        slots: int | str,
        *,
        seconds: float = RUN_S,
        watch: Watch | None = None,
    ) -> Run:
        """Run `gpusched run` with `slots` on each device, or in all on the processors. Raises OutOfTime."""
        where = ["--workers", str(slots)] if device == "cpu" else ["--set", f"devices.slots={slots}"]
        output = self.output(name)
        began = time.monotonic()
        with watch or Watch(self.devices) as watch:
            done = self.gpusched(
                "run", *self.asked(work, device), "-o", str(output), "--json", *where, device=device, seconds=seconds
            )
        took = time.monotonic() - began
        error = (done.stderr or done.stdout)[-600:].strip() if done.returncode else ""
        found = Run(
            name, device, slots, 0, took, 0.0, error=error, nvml=watch.summary(), timed_out=done.returncode == TIMED_OUT
        )
        attempts = attempts_of(output)
        return _measured(found, attempts) if attempts else found


def _first(place: Path, names: Sequence[str], count: int, interval: Interval) -> Work:
    path = place / f"symbols-{count}.txt"
    path.write_text("".join(f"{name}\n" for name in names[:count]))
    return Work(path, interval)


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
