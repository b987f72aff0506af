"""Batches, windows and moves to record."""

from __future__ import annotations

import datetime as dt

from gpusched.core.events import BatchAccepted, WindowMoved
from gpusched.core.model import Batch, BatchSpec, PlannedWindow, Slot, Window, WindowKey, WindowResult
from gpusched.core.states import Ending, Failure, Finished, Queued, Running, Starting, State, Succeeded, Usage
from gpusched.store.store import Store

SLOT = Slot(1, "GPU-0")
RESULT = WindowResult(
    artifacts_path="/out/x",
    metrics={"accuracy": 0.5, "auc": None},
    sample_counts={"train": 80, "validation": 20},
    fingerprint="f1",
    device_type="gpu",
    device="GPU-0",
    phases={"read": 0.25, "train": 0.5},
    seconds=0.75,
)
FAILURE = Failure(kind="raised", message="ValueError: no", traceback="Traceback …\nValueError: no")
USAGE = Usage(cpu_seconds=0.5, peak_memory_bytes=1 << 20, device_memory_bytes=1 << 30)
SPEC = BatchSpec(
    symbols=("A", "M&M"),
    start=dt.date(2022, 1, 1),
    end=dt.date(2024, 12, 31),
    window_days=180,
    data_root="/data",
    workload="gpusched.teacher:train_window",
    settings={"horizon": 7},
)


def batch(batch_id: str = "b", at: float = 100.0) -> Batch:
    return Batch(id=batch_id, digest="d", output_dir=f"/out/{batch_id}", submitted_at=at, spec=SPEC)


def plan(number: int, symbol: str = "A") -> PlannedWindow:
    first = dt.date(2000, 1, 1) + dt.timedelta(number)
    window = Window(symbol, first, first + dt.timedelta(6))
    return PlannedWindow(window=window, bars=7, usable_rows=5, fingerprint=f"f{number}")


def accepted(batch_id: str = "b", windows: int = 3, *, state: State | None = None, at: float = 100.0) -> BatchAccepted:
    states = tuple((plan(number), state or Queued()) for number in range(windows))
    return BatchAccepted(batch=batch(batch_id, at), windows=states, at=at)


def key(number: int = 0, batch_id: str = "b") -> WindowKey:
    return WindowKey(batch_id, plan(number).window.label)


def moved(
    window: WindowKey,
    old: State,
    new: State,
    *,
    at: float = 101.0,
    reason: str = "because",
    ending: Ending | None = None,
    usage: Usage | None = None,
) -> WindowMoved:
    return WindowMoved(key=window, old=old, new=new, reason=reason, at=at, ending=ending, usage=usage)


def run(window: WindowKey, *, attempt: int = 1, at: float = 101.0, ending: Ending = RESULT) -> list[WindowMoved]:
    """The moves of one attempt: one that ends with a failure goes back to the queue."""
    queued, starting = Queued(attempt=attempt), Starting(attempt=attempt, slot=SLOT)
    running = Running(attempt=attempt, slot=SLOT, pid=4000 + attempt, started_at=at + 0.5)
    last: State = Queued(attempt=attempt + 1)
    if isinstance(ending, WindowResult):
        last = Finished(attempts=attempt, outcome=Succeeded(result=ending))
    return [
        moved(window, queued, starting, at=at, reason="placed"),
        moved(window, starting, running, at=at + 0.5, reason="started"),
        moved(window, running, last, at=at + 1, reason="ended", ending=ending, usage=USAGE),
    ]


def assert_counted(store: Store) -> None:
    """The counts of all batches are those of their windows."""
    rows = store.database.query("SELECT batch_id, status, count(*) FROM windows GROUP BY 1, 2")
    constants = dict(store.database.query("SELECT batch_id, sum(constant) FROM windows GROUP BY 1"))
    for row in store.batches():
        assert row.counts == {status: count for batch_id, status, count in rows if batch_id == row.id}
        assert row.constants == constants.get(row.id, 0)
