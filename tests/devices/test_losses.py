"""Devices that are lost: errors, events of the driver, and cards that answer nothing."""

from __future__ import annotations

import asyncio

import pytest

from gpusched.core.events import DeviceLost
from gpusched.devices.nvidia.readings import HARMLESS_XIDS
from tests.devices.fake_nvml import (
    DOUBLE_BIT_ECC,
    GPU_IS_LOST,
    NOT_SUPPORTED,
    UNKNOWN,
    XID,
    FakeNvml,
    mig_uuid,
    uuid,
)
from tests.devices.sampling import sampling

READ = "nvmlDeviceGetMemoryInfo"


async def test_one_devices_errors_do_not_spoil_the_others(fake: FakeNvml) -> None:
    fake.gpus(2)
    values = ("MemoryInfo", "UtilizationRates", "Temperature", "PowerUsage", "EnforcedPowerLimit", "FanSpeed")
    for function in (*values, "TotalEccErrors"):
        fake.fail(f"nvmlDeviceGet{function}", UNKNOWN, 0)
    fake.fail("nvmlDeviceGetComputeRunningProcesses_v3", UNKNOWN, 0)
    fake.fail("nvmlDeviceGetComputeRunningProcesses_v2", UNKNOWN, 0)
    async with sampling(uuid(0), uuid(1)) as events:
        event = await events.until(lambda _: True)
        assert event.reading.device_id == uuid(1)
        event = await events.until(lambda _: True)
        assert event.reading.device_id == uuid(1)


async def test_a_lost_gpu_is_reported_once_and_again_if_it_comes_back(fake: FakeNvml) -> None:
    fake.gpus(2)
    async with sampling(uuid(0), uuid(1)) as events:
        await events.reading(uuid(0))
        fake.fail(READ, GPU_IS_LOST, 0)
        assert await events.loss() == DeviceLost(device_id=uuid(0), reason="GPU is lost")
        for _ in range(3):
            event = await events.until(lambda _: True)
            assert event.reading.device_id == uuid(1)
        fake.fail(READ, None, 0)
        await events.reading(uuid(0))
        fake.fail(READ, GPU_IS_LOST, 0)
        assert (await events.loss()).device_id == uuid(0)


async def test_a_gpu_that_was_lost_before_the_start(fake: FakeNvml) -> None:
    fake.gpus(2).fail("nvmlDeviceGetHandleByUUID", GPU_IS_LOST, 1)
    async with sampling(uuid(0), uuid(1)) as events:
        assert (await events.loss()).device_id == uuid(1)
        await events.reading(uuid(0))
        fake.fail("nvmlDeviceGetHandleByUUID", None, 1)
        await events.reading(uuid(1))


async def test_a_critical_xid_is_a_loss(fake: FakeNvml) -> None:
    fake.gpus(2)
    async with sampling(uuid(0), uuid(1)) as events:
        await events.reading(uuid(1))
        fake.event(1, XID, 79)
        assert await events.loss() == DeviceLost(device_id=uuid(1), reason="XID 79: the GPU has fallen off the bus")


async def test_an_event_is_not_kept_until_the_next_reading(fake: FakeNvml) -> None:
    fake.gpus(1)
    async with sampling(uuid(0), interval_s=3600) as events:
        await events.reading(uuid(0))
        fake.event(0, XID, 119)
        await events.loss()


async def test_faults_of_the_application_are_not_the_devices(fake: FakeNvml) -> None:
    fake.gpus(1)
    async with sampling(uuid(0)) as events:
        for xid in sorted(HARMLESS_XIDS):
            fake.event(0, XID, xid)
        fake.event(0, XID, 1000)
        assert (await events.loss()).reason == "XID 1000: see the XID catalogue of NVIDIA"


async def test_a_double_bit_error_is_a_loss(fake: FakeNvml) -> None:
    fake.gpus(1)
    async with sampling(uuid(0)) as events:
        await events.reading(uuid(0))
        fake.event(0, DOUBLE_BIT_ECC)
        assert "double-bit" in (await events.loss()).reason


async def test_new_memory_errors_are_a_loss_and_old_ones_are_not(fake: FakeNvml) -> None:
    fake.gpus(1, ecc=3, events=None)
    async with sampling(uuid(0)) as events:
        await events.fresh_reading(uuid(0))
        fake.set(0, ecc=4)
        assert "double-bit" in (await events.loss()).reason
        await events.reading(uuid(0))


async def test_an_xid_of_one_mig_instance_spares_the_others(fake: FakeNvml) -> None:
    fake.gpus(2).mig(0, 0, 1)
    async with sampling(mig_uuid(0, 0), mig_uuid(0, 1), uuid(1)) as events:
        await events.reading(uuid(1))
        fake.event(0, XID, 95, instance=2)
        assert (await events.loss()).device_id == mig_uuid(0, 1)
        fake.event(0, XID, 79)
        assert {(await events.loss()).device_id for _ in range(2)} == {mig_uuid(0, 0), mig_uuid(0, 1)}


@pytest.mark.parametrize(
    "function", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents", "nvmlDeviceGetSupportedEventTypes"]
)
async def test_a_driver_without_events_is_still_read(fake: FakeNvml, function: str) -> None:
    fake.gpus(1).fail(function, NOT_SUPPORTED)
    async with sampling(uuid(0)) as events:
        await events.fresh_reading(uuid(0))


async def test_events_that_fail_later_do_not_stop_the_readings(fake: FakeNvml) -> None:
    fake.gpus(1)
    async with sampling(uuid(0)) as events:
        await events.reading(uuid(0))
        fake.fail("nvmlEventSetWait_v2", UNKNOWN)
        await events.fresh_reading(uuid(0))


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_card_that_answers_nothing_hides_no_event(fake: FakeNvml, lost: int) -> None:
    """Neither that of another card, nor its own."""
    fake.gpus(2)
    async with sampling(uuid(0), uuid(1)) as events:
        await events.reading(uuid(1))
        fake.fail("nvmlDeviceGetUUID", GPU_IS_LOST, lost)
        fake.event(1, XID, 79)
        assert (await events.loss()).device_id == uuid(1)


async def test_an_instance_that_answers_nothing_hides_no_event(fake: FakeNvml) -> None:
    fake.gpus(1).mig(0, 0, 1)
    async with sampling(mig_uuid(0, 0), mig_uuid(0, 1)) as events:
        await events.reading(mig_uuid(0, 1))
        fake.fail("nvmlDeviceGetUUID", GPU_IS_LOST).fail("nvmlDeviceGetGpuInstanceId", GPU_IS_LOST)
        fake.event(0, XID, 95, instance=2)
        assert (await events.loss()).device_id == mig_uuid(0, 1)
        fake.event(0, XID, 79)
        assert {(await events.loss()).device_id for _ in range(2)} == {mig_uuid(0, 0), mig_uuid(0, 1)}


async def test_events_that_fail_once_are_asked_for_again(fake: FakeNvml) -> None:
    """A lost card makes the wait for the events of all fail."""
    fake.gpus(2)
    async with sampling(uuid(0), uuid(1)) as events:
        await events.reading(uuid(1))
        given_up = fake.block("nvmlEventSetFree")
        fake.fail("nvmlEventSetWait_v2", GPU_IS_LOST)
        await asyncio.to_thread(given_up.entered)
        fake.fail("nvmlEventSetWait_v2", None)
        given_up.release()
        fake.event(1, XID, 119)
        assert (await events.loss()).device_id == uuid(1)
