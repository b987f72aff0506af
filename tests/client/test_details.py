"""A window's story as `show` and `top` tell it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import pytest

from gpusched.client.drawing.details import device_details, window_details
from gpusched.core.model import PlannedWindow, Reading, Slot, Window, WindowResult
from gpusched.core.states import Finished, Queued, Succeeded, Usage
from gpusched.protocol import AttemptLine, StoryLine, WindowDetail
from tests.client.test_dashboard import pool
from tests.client.test_windows import line
from tests.core.support import gpu, key

NOW = 1e9


def test_a_device_its_slots_and_how_old_its_reading_is() -> None:
    (status,) = pool(gpu(0, capacity=4))
    status = msgspec.structs.replace(
        status,
        width=3,
        allocations={1: key("A")},
        reading=Reading(device_id="GPU-0", at=NOW - 12.0, utilisation=0.98, temperature_c=61.0),
    )
    told = list(device_details(status, NOW))
    assert "Reading  98 %, 61 C, 12s ago" in told
    assert any(line.startswith("Slots    1 held, 2 free, 3") for line in told)
    assert told[-3:] == [f"Slot     1: {key('A')}", "Slot     0: free", "Slot     2: free"], "one is not in use"


DAY = dt.date(2022, 1, 1)


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (Usage(0.5, 300 << 20), "0.50 s of CPU, 300 MiB at most"),
        (Usage(0.5, 300 << 20, 2 << 30), "0.50 s of CPU, 300 MiB at most, 2048 MiB of the GPU's"),
        (Usage(0.5, 300 << 20, 2 << 30, 0.25), "0.50 s of CPU, 300 MiB at most, 2048 MiB of the GPU's, 0.25 s of GPU"),
    ],
)
def test_what_an_attempt_cost(usage: Usage, told: str) -> None:
    attempt = AttemptLine(
        attempt=1,
        slot=Slot(0, "GPU-1"),
        placed_at=1.0,
        pid=7,
        started_at=1.0,
        ended_at=2.0,
        ending="result",
        message=None,
        traceback=None,
        usage=usage,
    )
    detail = WindowDetail(
        window=line("A"),
        plan=PlannedWindow(window=Window("A", DAY, DAY)),
        state=Queued(),
        story=(),
        attempts=(attempt,),
    )
    assert f"         {told}" in list(window_details(detail, Path("logs")))


def test_what_a_window_gave() -> None:
    result = WindowResult(
        artifacts_path="/srv/out/A",
        metrics={"gain": 2, "train": {"f1": None, "auc": 0.97}, "validation": {"accuracy": 0.54, "auc": 0.5321}},
        sample_counts={},
        fingerprint=None,
        device_type="cuda",
        device="GPU-1",
        phases={"load": 0.0021, "boosting": 0.25},
        seconds=0.3,
    )
    detail = WindowDetail(
        window=line("A", "succeeded"),
        plan=PlannedWindow(window=Window("A", DAY, DAY), bars=100, usable_rows=90),
        state=Finished(attempts=1, outcome=Succeeded(result=result)),
        story=(StoryLine(at=7.0, old="running", new="succeeded", attempt=1, reason="done"),),
        attempts=(),
    )
    assert list(window_details(detail, Path("logs"), lambda at: f"{at:g}s ago"))[3:] == [
        "Trained  as cuda: load 0.002 s, boosting 0.250 s",
        "Metrics  gain 2",
        "Metrics  train: auc 0.970, f1 –",
        "Metrics  validation: auc 0.532, accuracy 0.540",
        "Output   /srv/out/A",
        "    7s ago  running → succeeded  done",
    ]
