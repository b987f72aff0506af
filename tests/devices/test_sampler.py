"""Readings and losses while windows run, through the real pynvml and the real thread."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from gpusched.core.model import ForeignProcess, Reading
from gpusched.devices.nvidia import readings
from gpusched.devices.nvidia import sampler as module
from gpusched.devices.nvidia.sampler import Sampler
from gpusched.devices.nvidia.strangers import COMMAND_CHARS, strangers
from gpusched.users import user_name
from tests.devices.fake_nvml import (
    GIB,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNINITIALIZED,
    UNKNOWN,
    FakeNvml,
    mig_uuid,
    uuid,
)
from tests.devices.sampling import sampling
from tests.waiting import PATIENCE_S

READ = "nvmlDeviceGetMemoryInfo"
#: a PID that no process has
GONE = 1 << 30
#: the command line of this process
COMMAND = Path("/proc/self/cmdline").read_text().rstrip("\0").replace("\0", " ")


async def test_reads_everything(fake: FakeNvml) -> None:
    ours = os.getpid()
    fake.gpus(
        1,
        memory_free=40 * GIB,
        utilisation=73,
        temperature=61,
        power=250_500,
        fan=105,
        processes=f"{GONE}:1000 {ours}:2000 {GONE}:5 7:1",
    )
    async with sampling(uuid(0), wall=lambda: 1234.5, windows={7}) as events:
        assert await events.reading(uuid(0)) == Reading(
            device_id=uuid(0),
            at=1234.5,
            memory_total_bytes=48 * GIB,
            memory_free_bytes=40 * GIB,
            utilisation=0.73,
            temperature_c=61.0,
            power_w=250.5,
            power_limit_w=300.0,
            fan=1.0,
            process_memory_bytes={GONE: 1005, ours: 2000, 7: 1},
            foreign=(
                ForeignProcess(
                    pid=ours,
                    user=pwd.getpwuid(os.getuid()).pw_name,
                    command=COMMAND[:COMMAND_CHARS],
                    memory_bytes=2000,
                ),
                ForeignProcess(pid=GONE, memory_bytes=1005),
            ),
        )


def test_strangers_without_a_name_and_no_more_than_the_largest(tmp_path: Path) -> None:
    for pid in range(20):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(b"python\0t\xffrain.py\0")
    found = strangers({pid: pid for pid in range(20)}, {19}, tmp_path)
    assert [process.pid for process in found] == [18, 17, 16, 15, 14, 13, 12, 11]
    assert found[0].command == "python t\N{REPLACEMENT CHARACTER}rain.py"
    user_name.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pwd, "getpwuid", {}.__getitem__)
        assert strangers({1: 5}, (), tmp_path)[0].user == str(os.getuid())
    user_name.cache_clear()


async def test_what_a_program_uses_that_a_window_started_is_its_windows(fake: FakeNvml) -> None:
    window = await anyio.open_process(["sh", "-c", "sleep 1000 & echo $!; wait"], start_new_session=True)
    assert window.stdout is not None
    try:
        child = int(await window.stdout.receive())
        fake.gpus(1, processes=f"{window.pid}:5 {child}:7 {os.getpid()}:11")
        async with sampling(uuid(0), windows={window.pid}) as events:
            assert (await events.reading(uuid(0))).process_memory_bytes == {window.pid: 12, os.getpid(): 11}
        async with sampling(uuid(0)) as events:
            found = (await events.reading(uuid(0))).process_memory_bytes
            assert found == {window.pid: 5, child: 7, os.getpid(): 11}
    finally:
        os.killpg(window.pid, signal.SIGKILL)
        async for _ in window.stdout:  # before anyio 4.15, `aclose` leaves the pipe to those who hold it
            pass
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
        ("nvmlDeviceGetEnforcedPowerLimit", "power_limit_w"),
        ("nvmlDeviceGetFanSpeed", "fan"),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "process_memory_bytes"),
    ],
)
async def test_a_value_that_is_not_there_is_absent(fake: FakeNvml, function: str, field: str, error: int) -> None:
    fake.gpus(1, processes="11:1000").fail(function, error)
    fields = ("memory_free_bytes", "utilisation", "temperature_c", "power_w", "power_limit_w", "fan",
              "process_memory_bytes")  # fmt: skip
    async with sampling(uuid(0)) as events:
        reading = await events.reading(uuid(0))
    assert [name for name in fields if getattr(reading, name) is None] == [field]


async def test_a_card_that_supports_nothing_still_answers(fake: FakeNvml) -> None:
    values = ("memory_total", "utilisation", "temperature", "power", "power_limit", "fan", "processes", "ecc", "events")
    fake.gpus(1, **dict.fromkeys(values))
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


async def test_a_call_that_blocks_holds_up_nobody_but_the_thread(fake: FakeNvml) -> None:
    fake.gpus(2)
    block = fake.block("nvmlDeviceGetUtilizationRates", 0)
    async with sampling(uuid(0), uuid(1)) as events:
        await asyncio.to_thread(block.entered)
        assert events.empty()  # and the loop turns
        block.release()
        await events.reading(uuid(1))


async def test_a_slow_device_is_asked_less_often(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead_s = 0.0
    for each in (module, readings):
        monkeypatch.setattr(each, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead_s))
    monkeypatch.setattr(module, "_PATIENCE", 1e9)
    fake.gpus(2)
    block = fake.block(READ, 0)
    async with sampling(uuid(0), uuid(1), slow_s=1000.0) as events:
        await asyncio.to_thread(block.entered)
        ahead_s = 2000.0  # a slow call
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
        values = ("MemoryInfo", "UtilizationRates", "Temperature", "PowerUsage", "EnforcedPowerLimit", "FanSpeed")
        for function in (*values, "TotalEccErrors"):
            fake.fail(f"nvmlDeviceGet{function}", UNINITIALIZED)
        fake.fail("nvmlDeviceGetComputeRunningProcesses_v3", UNINITIALIZED)
        fake.fail("nvmlDeviceGetComputeRunningProcesses_v2", UNINITIALIZED)
        await asyncio.to_thread(block.entered)  # it is being started anew
        for function in values:
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
