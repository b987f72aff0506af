"""Readings and losses while windows run, through the real pynvml and the real thread."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from gpusched.core.events import DeviceLost, DeviceRead
from gpusched.core.model import Device, Reading
from gpusched.devices.nvidia import readings
from gpusched.devices.nvidia import sampler as module
from gpusched.devices.nvidia.readings import HARMLESS_XIDS
from gpusched.devices.nvidia.sampler import Sampler
from tests.devices.fake_nvml import (
    DOUBLE_BIT_ECC,
    GIB,
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNINITIALIZED,
    UNKNOWN,
    XID,
    FakeNvml,
    mig_uuid,
    uuid,
)

READ = "nvmlDeviceGetMemoryInfo"
PATIENCE_S = 10.0


class Events:
    """The deliveries of a running sampler that no test has looked at yet."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[DeviceRead | DeviceLost] = asyncio.Queue()

    def deliver(self, event: DeviceRead | DeviceLost) -> None:
        self._queue.put_nowait(event)

    def empty(self) -> bool:
        return self._queue.empty()

    def clear(self) -> None:
        while not self.empty():
            self._queue.get_nowait()

    async def until(self, wanted: Callable[[DeviceRead | DeviceLost], bool]) -> Any:
        with anyio.fail_after(PATIENCE_S):
            while not wanted(event := await self._queue.get()):
                pass
        return event

    async def reading(self, device_id: str) -> Reading:
        event = await self.until(lambda e: isinstance(e, DeviceRead) and e.reading.device_id == device_id)
        reading = event.reading
        assert isinstance(reading, Reading)
        return reading

    async def loss(self) -> DeviceLost:
        event = await self.until(lambda e: isinstance(e, DeviceLost))
        assert isinstance(event, DeviceLost)
        return event

    async def fresh_reading(self, device_id: str) -> Reading:
        """A reading that began after this call: the one that may be under way does not count."""
        await self.reading(device_id)
        self.clear()
        await self.reading(device_id)
        return await self.reading(device_id)


@asynccontextmanager
async def sampling(*ids: str, **options: Any) -> AsyncIterator[Events]:
    processors = Device(id="cpu", name="", kind="host", lightgbm_type="cpu", capacity=1)
    devices = [processors, *(Device(id=id_, name="", lightgbm_type="gpu", capacity=1) for id_ in ids)]
    events = Events()
    sampler = Sampler(devices, **{"interval_s": 0.005, "sees_own_pids": True} | options)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sampler.run, events.deliver)
        yield events
        tasks.cancel_scope.cancel()


async def test_reads_everything(fake: FakeNvml) -> None:
    fake.gpus(1, memory_free=40 * GIB, utilisation=73, temperature=61, power=250_500, processes="11:1000 22:2000 11:5")
    async with sampling(uuid(0), wall=lambda: 1234.5) as events:
        assert await events.reading(uuid(0)) == Reading(
            device_id=uuid(0),
            at=1234.5,
            memory_total_bytes=48 * GIB,
            memory_free_bytes=40 * GIB,
            utilisation=0.73,
            temperature_c=61.0,
            power_w=250.5,
            process_memory_bytes={11: 1005, 22: 2000},
        )


async def test_what_a_program_uses_that_a_window_started_is_its_windows(fake: FakeNvml) -> None:
    window = await anyio.open_process(["sh", "-c", "sleep 1000 & echo $!; wait"], start_new_session=True)
    try:
        assert window.stdout is not None
        child = int(await window.stdout.receive())
        fake.gpus(1, processes=f"{window.pid}:5 {child}:7 {os.getpid()}:11")
        async with sampling(uuid(0), windows={window.pid}) as events:
            assert (await events.reading(uuid(0))).process_memory_bytes == {window.pid: 12, os.getpid(): 11}
        async with sampling(uuid(0)) as events:
            found = (await events.reading(uuid(0))).process_memory_bytes
            assert found == {window.pid: 5, child: 7, os.getpid(): 11}
    finally:
        os.killpg(window.pid, signal.SIGKILL)
        await window.aclose()


@pytest.mark.parametrize("count", [2, 16])
async def test_reads_each_device(fake: FakeNvml, count: int) -> None:
    fake.gpus(count)
    async with sampling(*(uuid(index) for index in range(count))) as events:
        for index in range(count):
            await events.reading(uuid(index))


async def test_sees_changes(fake: FakeNvml) -> None:
    fake.gpus(1, utilisation=5)
    async with sampling(uuid(0)) as events:
        assert (await events.reading(uuid(0))).utilisation == 0.05
        fake.set(0, utilisation=95)
        assert (await events.fresh_reading(uuid(0))).utilisation == 0.95


@pytest.mark.parametrize("error", [NOT_SUPPORTED, NO_PERMISSION, UNKNOWN])
@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetMemoryInfo", "memory_free_bytes"),
        ("nvmlDeviceGetUtilizationRates", "utilisation"),
        ("nvmlDeviceGetTemperature", "temperature_c"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "process_memory_bytes"),
    ],
)
async def test_a_value_that_is_not_there_is_absent(fake: FakeNvml, function: str, field: str, error: int) -> None:
    fake.gpus(1, processes="11:1000").fail(function, error)
    fields = ("memory_free_bytes", "utilisation", "temperature_c", "power_w", "process_memory_bytes")
    async with sampling(uuid(0)) as events:
        reading = await events.reading(uuid(0))
    assert [name for name in fields if getattr(reading, name) is None] == [field]


async def test_a_card_that_supports_nothing_still_answers(fake: FakeNvml) -> None:
    fake.gpus(1, **dict.fromkeys(("memory_total", "utilisation", "temperature", "power", "processes", "ecc", "events")))
    async with sampling(uuid(0), wall=lambda: 1.0) as events:
        assert await events.reading(uuid(0)) == Reading(device_id=uuid(0), at=1.0)


async def test_memory_of_processes_is_known_of_all_or_of_none(fake: FakeNvml) -> None:
    fake.gpus(2).set(0, processes="11:1000 22:-").set(1, processes="")
    async with sampling(uuid(0), uuid(1)) as events:
        assert (await events.reading(uuid(0))).process_memory_bytes is None
        assert (await events.reading(uuid(1))).process_memory_bytes == {}


async def test_host_pids_are_not_taken_for_ours(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    # In a container NVML reports the host's PIDs, and one of them may be that of another process here.
    fake.gpus(1, processes=f"{os.getpid()}:1000")
    monkeypatch.setattr(readings, "_INITIAL_PID_NAMESPACE", -1)
    async with sampling(uuid(0), sees_own_pids=None) as events:
        reading = await events.reading(uuid(0))
    assert reading.process_memory_bytes is None
    assert reading.memory_total_bytes == 48 * GIB


def test_knows_the_initial_pid_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "_INITIAL_PID_NAMESPACE", os.stat("/proc/self/ns/pid").st_ino)  # noqa: PTH116
    assert readings.in_initial_pid_namespace()


async def test_reads_mig_instances(fake: FakeNvml) -> None:
    fake.gpus(1).mig(0, 0, 1).set("0/1", memory_free=GIB, processes="7:5")
    async with sampling(mig_uuid(0, 0), mig_uuid(0, 1)) as events:
        reading = await events.reading(mig_uuid(0, 1))
    assert (reading.memory_total_bytes, reading.memory_free_bytes) == (12 * GIB, GIB)
    assert reading.utilisation is None
    assert reading.process_memory_bytes == {7: 5}


async def test_one_devices_errors_do_not_spoil_the_others(fake: FakeNvml) -> None:
    fake.gpus(2)
    for function in ("MemoryInfo", "UtilizationRates", "Temperature", "PowerUsage", "TotalEccErrors"):
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


async def test_a_call_that_blocks_holds_up_nobody_but_the_thread(fake: FakeNvml) -> None:
    fake.gpus(2)
    block = fake.block("nvmlDeviceGetUtilizationRates", 0)
    async with sampling(uuid(0), uuid(1)) as events:
        await asyncio.to_thread(block.entered)
        assert events.empty()  # and the loop turns
        block.release()
        await events.reading(uuid(1))


async def test_a_slow_device_is_asked_less_often(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 1e9)
    fake.gpus(2)
    block = fake.block(READ, 0)
    async with sampling(uuid(0), uuid(1), slow_s=0.05) as events:
        await asyncio.to_thread(block.entered)
        await asyncio.sleep(0.1)  # the slow call
        block.release()
        for _ in range(3):
            event = await events.until(lambda _: True)
            assert event.reading.device_id == uuid(1)


async def test_leaving_does_not_wait_for_a_blocked_call(fake: FakeNvml) -> None:
    fake.gpus(1)
    block = fake.block(READ, 0)
    async with sampling(uuid(0)) as events:
        await asyncio.to_thread(block.entered)
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "nvml"]
    assert thread.is_alive()
    block.release()
    await asyncio.to_thread(thread.join, PATIENCE_S)
    await anyio.lowlevel.checkpoint()
    assert events.empty()  # its answer comes too late to be told


async def test_nvml_is_started_anew_when_nothing_answers(fake: FakeNvml) -> None:
    fake.gpus(2)
    async with sampling(uuid(0), uuid(1), retry_s=0.02) as events:
        await events.reading(uuid(1))
        fake.fail("nvmlInitWithFlags", UNINITIALIZED)
        block = fake.block("nvmlInitWithFlags")
        for function in ("MemoryInfo", "UtilizationRates", "Temperature", "PowerUsage", "TotalEccErrors"):
            fake.fail(f"nvmlDeviceGet{function}", UNINITIALIZED)
        fake.fail("nvmlDeviceGetComputeRunningProcesses_v3", UNINITIALIZED)
        fake.fail("nvmlDeviceGetComputeRunningProcesses_v2", UNINITIALIZED)
        await asyncio.to_thread(block.entered)  # it is being started anew
        for function in ("MemoryInfo", "UtilizationRates", "Temperature", "PowerUsage"):
            fake.fail(f"nvmlDeviceGet{function}", None)
        events.clear()
        block.release()
        # the first time it fails, and it is tried again
        fake.fail("nvmlInitWithFlags", None)
        assert (await events.reading(uuid(0))).memory_total_bytes == 48 * GIB


async def test_without_gpus_there_is_nothing_to_do() -> None:
    async with sampling():
        pass
    with anyio.fail_after(PATIENCE_S):
        await Sampler([]).run(lambda _: None)
