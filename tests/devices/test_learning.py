"""The memory that a window used on its GPU is set aside for the next, from the driver to the store and back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import anyio
import msgspec

from gpusched.core.events import DeviceLost, DeviceRead
from gpusched.core.states import Running
from gpusched.devices.nvidia.cards import discover
from gpusched.devices.nvidia.sampler import Sampler
from gpusched.store.store import Store
from tests.devices.fake_nvml import GIB, FakeNvml, uuid
from tests.supervisor.support import make_batch, plan, supervised

WORKLOAD = "tests.devices.workloads:until_told"


async def test_learns_the_memory_of_windows_and_sets_it_aside(fake: FakeNvml, tmp_path: Path) -> None:
    fake.gpus(1)
    (found,) = discover(None, lightgbm_type="cuda").devices
    device = msgspec.structs.replace(found, capacity=2)
    heard: asyncio.Queue[DeviceRead | DeviceLost] = asyncio.Queue()
    held = tmp_path / f"held-{uuid(0)}"
    os.mkfifo(held)
    store = Store.open(tmp_path / "state" / "state.db")
    async with supervised(tmp_path, devices=(device,), store=store) as bench:
        supervisor = bench.supervisor

        def deliver(event: DeviceRead | DeviceLost) -> None:
            supervisor.post(event)
            heard.put_nowait(event)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Sampler([device], interval_s=0.005, sees_own_pids=True).run, deliver)
            await supervisor.submit(make_batch(tmp_path, WORKLOAD), plan(1))
            running = (await bench.moved_to(Running)).new
            assert isinstance(running, Running)
            fake.set(0, processes=f"{running.pid}:{3 * GIB}")
            while True:
                event = await heard.get()
                if isinstance(event, DeviceRead) and event.reading.process_memory_bytes == {running.pid: 3 * GIB}:
                    break
            await supervisor.committed()
            with await asyncio.to_thread(held.open, "w"):
                pass
            await bench.finished()
            await supervisor.committed()
            (learned,) = store.learned()
            assert (learned.device_type, learned.memory_count, learned.memory_max) == ("cuda", 1, 3 * GIB)
            # and before the next one has allocated anything, as much is promised to it
            held.unlink()
            os.mkfifo(held)
            again = msgspec.structs.replace(make_batch(tmp_path, WORKLOAD), id="again")
            await supervisor.submit(again, plan(1))
            await bench.until(lambda update: getattr(getattr(update, "key", None), "batch_id", None) == "again")
            assert supervisor.scheduler.pool.devices[device.id].memory.reserved_bytes == 3 * GIB
            with await asyncio.to_thread(held.open, "w"):
                pass
            await bench.finished("again")
            tasks.cancel_scope.cancel()
