"""Batches, windows, devices and endings in few words, and a scheduler that keeps its own time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from gpusched.core.commands import CheckResults, Command, Kill, Launch, Terminate
from gpusched.core.estimates import Estimates
from gpusched.core.events import (
    AttemptEnded,
    AttemptStarted,
    BatchSubmitted,
    Event,
    HostRead,
    NodeJoined,
    Record,
    ResultsChecked,
    TimePassed,
)
from gpusched.core.model import (
    CPU,
    Batch,
    BatchSpec,
    Device,
    DeviceChoice,
    HostReading,
    Instant,
    Limits,
    PlannedWindow,
    Reading,
    Window,
    WindowKey,
    WindowResult,
)
from gpusched.core.scheduler import Scheduler
from gpusched.core.states import Ending, Failure, FailureKind, State, Usage

GIB = 1 << 30
DAY = dt.date(2022, 1, 1)
RESULT = WindowResult(
    artifacts_path="/out/w",
    metrics={},
    sample_counts={},
    fingerprint="f",
    device_type="cpu",
    device="cpu",
    phases={},
    seconds=1.0,
)


def cpu(capacity: int = 1, *, auto: bool = True, host: str = "") -> Device:
    id_ = f"{CPU}@{host}" if host else CPU
    return Device(
        id=id_, host=host, name="the processors", kind="host", lightgbm_type="cpu", capacity=capacity, auto=auto
    )


def gpu(number: int = 0, capacity: int = 1, *, host: str = "") -> Device:
    return Device(id=f"GPU-{number}", host=host, name="a card", lightgbm_type="cuda", capacity=capacity)


def reading(
    device_id: str = "GPU-0",
    *,
    free: int | None = None,
    total: int | None = None,
    utilisation: float | None = None,
    processes: dict[int, int] | None = None,
) -> Reading:
    return Reading(
        device_id=device_id,
        at=0.0,
        memory_free_bytes=free,
        memory_total_bytes=total,
        utilisation=utilisation,
        process_memory_bytes=processes,
    )


def planned(
    symbol: str, rows: int = 100, *, skip: str | None = None, refusal: str | None = None, committed: bool = False
) -> PlannedWindow:
    return PlannedWindow(
        window=Window(symbol, DAY, DAY),
        bars=rows,
        usable_rows=rows,
        skip_reason=skip,
        refusal=refusal,
        committed=RESULT if committed else None,
    )


def label(symbol: str) -> str:
    return planned(symbol).window.label


def key(symbol: str, batch_id: str = "b") -> WindowKey:
    return WindowKey(batch_id, label(symbol))


def batch(
    batch_id: str = "b",
    *,
    device: DeviceChoice = "auto",
    workers: int = 0,
    priority: int = 0,
    limits: Limits | None = None,
) -> Batch:
    spec = BatchSpec(
        symbols=("A",),
        start=DAY,
        end=DAY,
        window_days=1,
        data_root="/data",
        workload="w:train",
        settings={},
        device=device,
        workers=workers,
        priority=priority,
        limits=Limits() if limits is None else limits,
    )
    return Batch(id=batch_id, digest="d", output_dir=f"/out/{batch_id}", submitted_at=0.0, spec=spec)


def failure(kind: FailureKind = "raised", message: str = "ValueError: no") -> Failure:
    return Failure(kind=kind, message=message)


def host(free: int, total: int = 64 * GIB, processes: dict[int, int] | None = None) -> HostRead:
    return HostRead(reading=HostReading(free_bytes=free, total_bytes=total, process_bytes=processes or {}))


class Driver:
    """A scheduler and its clock. `send` validates after each event and keeps the effects of the last one."""

    def __init__(self, *devices: Device, estimates: Estimates | None = None) -> None:
        self.scheduler = Scheduler(estimates)
        self.at = 1000.0
        self.records: list[Record] = []
        self.commands: list[Command] = []
        #: labels of the windows whose results are missing at the end of their batch
        self.missing: tuple[str, ...] = ()
        self.send(NodeJoined(devices=devices or (cpu(),)))

    def send(self, event: Event) -> Driver:
        now = Instant(monotonic=self.at, wall=self.at + 1e9)
        self.records, self.commands = self.scheduler.handle(event, now)
        for asked in [command for command in self.commands if isinstance(command, CheckResults)]:
            # Usually no result is missing.
            self.commands.remove(asked)
            found = ResultsChecked(batch_id=asked.batch_id, check=asked.check, missing=self.missing)
            records, commands = self.scheduler.handle(found, now)
            self.records += records
            self.commands += commands
        self.scheduler.validate()
        return self

    def submit(self, accepted: Batch, windows: Iterable[PlannedWindow | str]) -> Driver:
        plans = tuple(planned(w) if isinstance(w, str) else w for w in windows)
        return self.send(BatchSubmitted(batch=accepted, windows=plans))

    def start(self, where: WindowKey, attempt: int = 1, pid: int = 10) -> Driver:
        return self.send(AttemptStarted(key=where, attempt=attempt, pid=pid))

    def end(self, where: WindowKey, attempt: int = 1, ending: Ending = RESULT, usage: Usage | None = None) -> Driver:
        return self.send(AttemptEnded(key=where, attempt=attempt, ending=ending, usage=usage or Usage()))

    def wait(self, seconds: float) -> Driver:
        self.at += seconds
        return self.send(TimePassed())

    def wait_for_deadline(self) -> float:
        """Wait for the scheduler's next deadline, let it handle that, and return the seconds that passed."""
        deadline = self.scheduler.deadline
        assert deadline is not None
        seconds = deadline - self.at
        self.wait(seconds)
        return seconds

    def state(self, where: WindowKey) -> State:
        return {p.window.label: s for p, s in self.scheduler.states(where.batch_id)}[where.label]

    def held(self, batch_id: str) -> str | None:
        """Why a batch is held, or None."""
        reason = self.scheduler.held(batch_id)
        return None if reason is None else reason.text

    @property
    def launched(self) -> list[str]:
        """Symbols of the windows that the last event launched."""
        return [c.key.label.split("_")[0] for c in self.commands if isinstance(c, Launch)]

    @property
    def terminated(self) -> list[tuple[WindowKey, int]]:
        return [(c.key, c.attempt) for c in self.commands if isinstance(c, Terminate)]

    @property
    def killed(self) -> list[tuple[WindowKey, int]]:
        return [(c.key, c.attempt) for c in self.commands if isinstance(c, Kill)]
