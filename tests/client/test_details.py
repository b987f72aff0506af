"""A window's story as `show` and `top` tell it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from gpusched.client.details import window_details
from gpusched.core.model import PlannedWindow, Queued, Slot, Usage, Window
from gpusched.protocol import AttemptLine, WindowDetail
from tests.client.test_windows import line

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
