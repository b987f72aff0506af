"""The number of slots of a GPU changes while windows run: who watches is told, and why."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path
from typing import Any

import pytest

from gpusched import config
from gpusched.config import Cache, Config
from gpusched.core import tuning
from gpusched.core.model import BatchSpec
from gpusched.devices import processors
from gpusched.runs.run import Run, run_batch
from gpusched.service.journal import Journal
from gpusched.supervisor.followers import Noted
from tests.devices.fake_nvml import FakeNvml, uuid

WORKLOAD = "tests.devices.workloads:until_told"
#: one core's share is one slot, and two at most
WHY = "2 slots: to see what that does"


async def test_a_run_and_the_log_say_how_many_slots_are_used_and_why(
    fake: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake.gpus(1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(processors, "usable_cores", lambda: 1)
    monkeypatch.setattr(tuning, "PERIOD_S", 0.0)
    caplog.set_level(logging.INFO, "gpusched")
    start = dt.date(2022, 1, 1)
    windows = 1 + tuning.ENDS  # the first is left out
    notes: list[str] = []
    journal = Journal()

    class Onlooker:
        def follow(self, news: Any) -> None:
            journal.follow(news)
            if isinstance(news, Noted):
                notes.append(news.text)

    run = Run(
        config=Config(run=config.Run(workload=WORKLOAD), cache=Cache(dir=tmp_path / "cache")),
        spec=BatchSpec(
            symbols=("S",),
            start=start,
            end=start + dt.timedelta(days=windows - 1),
            window_days=1,
            data_root=str(tmp_path),
            workload=WORKLOAD,
            settings={},
            device="cuda",
        ),
        batch_id="b",
        digest="d",
        output_dir=tmp_path / "out",
    )
    await run_batch(run, Onlooker())
    assert notes == [f"{uuid(0)} uses {WHY}"]
    assert f"slots device={uuid(0)} slots=2 reason={WHY!r}" in caplog.messages
