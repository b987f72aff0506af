"""A sampler at work, and the events that it delivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from gpusched.core.events import DeviceLost, DeviceRead
from gpusched.core.model import Device, Reading
from gpusched.devices.nvidia.sampler import Sampler
from tests.waiting import PATIENCE_S


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
