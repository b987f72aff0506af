"""A window that fails on a GPU is not blamed before it is known whether the GPU was lost."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from gpusched.core.events import ChangeRequested, DeviceLost, DeviceRead
from gpusched.core.model import Device, Reading
from gpusched.core.states import Queued
from gpusched.devices.kind import UNKNOWN, Accounted
from gpusched.devices.nvidia.accounting import Accountant
from gpusched.supervisor import attempts
from tests.supervisor.support import Bench, make_batch, plan, supervised

CARDS = tuple(Device(id=f"GPU-{number}", name="", lightgbm_type="cuda", capacity=1) for number in range(2))
LOST = DeviceLost(device_id="GPU-0", reason="XID 79: the GPU has fallen off the bus")


class Ends(Accountant):
    """Tells of each process that has ended, before anything else is done about it."""

    def __init__(self) -> None:
        super().__init__(())
        self.devices: asyncio.Queue[str] = asyncio.Queue()

    def counts(self, device_id: str) -> bool:
        return True

    async def account(self, device_id: str, pid: int) -> Accounted:
        self.devices.put_nowait(device_id)
        return UNKNOWN


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for news that do not come waits for ever."""
    monkeypatch.setattr(attempts, "DOUBT_S", math.inf)


async def read(bench: Bench, device_id: str) -> None:
    bench.supervisor.post(DeviceRead(reading=Reading(device_id=device_id, at=0.0)))
    await bench.supervisor.committed()
    await bench.supervisor.committed()


async def test_a_loss_that_is_heard_after_the_failure_costs_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILURE", "[CUDA] unknown error")
    ends = Ends()
    async with supervised(tmp_path, devices=CARDS, accountant=ends) as bench:
        batch = make_batch(tmp_path, "tests.devices.workloads:fails_first", max_attempts=1)
        await bench.supervisor.submit(batch, plan(1))
        assert await ends.devices.get() == "GPU-0"
        await read(bench, "GPU-0")
        bench.supervisor.post(LOST)
        moved = await bench.moved_to(Queued)
        assert moved.reason == "stopped by the supervisor"
        await bench.finished()
        assert bench.outcomes() == ["succeeded"]
        assert await ends.devices.get() == "GPU-1"


async def test_two_readings_of_its_device_say_that_the_window_is_to_blame(tmp_path: Path) -> None:
    ends = Ends()
    async with supervised(tmp_path, devices=CARDS, accountant=ends) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "raises", max_attempts=1), plan(1))
        await ends.devices.get()
        for device_id in ("GPU-0", "GPU-1", "GPU-1"):
            await read(bench, device_id)
            assert bench.outcomes() == ["running"]
        await read(bench, "GPU-0")
        await bench.finished()
        assert bench.outcomes() == ["failed"]


async def test_a_device_that_nothing_is_heard_of_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "DOUBT_S", 0.0)
    async with supervised(tmp_path, devices=CARDS) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "raises", max_attempts=2), plan(2))
        await bench.finished()
        assert bench.outcomes() == ["failed"] * 2


@pytest.mark.parametrize(
    ("workload", "outcome"), [("nothing", "succeeded"), ("bad_data", "failed"), ("bad_parameters", "failed")]
)
async def test_what_no_device_can_have_caused_waits_for_none(tmp_path: Path, workload: str, outcome: str) -> None:
    async with supervised(tmp_path, devices=CARDS) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, workload, max_attempts=1), plan(4))
        await bench.finished()
        assert bench.outcomes() == [outcome] * 4


async def test_the_processors_are_not_doubted(tmp_path: Path) -> None:
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "raises", max_attempts=1), plan(1))
        await bench.finished()
        assert bench.outcomes() == ["failed"]


async def test_a_window_that_was_told_to_end_is_gone_at_once(tmp_path: Path, fifo: Any) -> None:
    said = fifo("said")
    async with supervised(tmp_path, devices=CARDS) as bench:
        batch = make_batch(tmp_path, "hangs", settings={"fifo": said.path}, max_attempts=1)
        await bench.supervisor.submit(batch, plan(1))
        await said.number()
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b"))
        await bench.finished()
        assert bench.outcomes() == ["cancelled"]
