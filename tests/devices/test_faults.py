"""Faults of GPUs, from the driver to the queue: the fake library, the real sampler, the real scheduler."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from gpusched.core.events import DeviceLost, DeviceRead
from gpusched.core.ledger import DeviceState
from gpusched.core.model import Limits, Reading, WindowKey
from gpusched.core.states import Queued, Running, Starting
from gpusched.devices.nvidia.cards import discover
from gpusched.devices.nvidia.sampler import Sampler
from tests.core.support import Driver, batch, failure, key
from tests.devices.fake_nvml import (
    DOUBLE_BIT_ECC,
    EXCLUSIVE_PROCESS,
    GIB,
    GPU_IS_LOST,
    NOT_SUPPORTED,
    UNINITIALIZED,
    UNKNOWN,
    XID,
    FakeNvml,
    uuid,
)
from tests.waiting import PATIENCE_S

RESET_REQUIRED = 16
ONCE = Limits(max_attempts=1, breaker_failures=0)
A, B, C = (key(symbol) for symbol in "ABC")
EVERYTHING = (
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetFanSpeed",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetHandleByUUID",
    "nvmlEventSetWait_v2",
    "nvmlEventSetCreate",
)


class Bench(Driver):
    """A scheduler that hears of the devices from a sampler."""

    def __init__(self, fake: FakeNvml, slots: int) -> None:
        self.fake = fake
        self.found = discover(None)
        devices = (msgspec.structs.replace(d, capacity=d.capacity or slots) for d in self.found.devices)
        super().__init__(*devices)
        self.stopped: list[tuple[WindowKey, int]] = []
        self._heard = anyio.Event()
        self.readings = 0

    def deliver(self, event: DeviceRead | DeviceLost) -> None:
        self.send(event)
        # the next event may come before the test looks
        self.stopped += self.terminated
        self.readings += isinstance(event, DeviceRead)
        self._heard.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(PATIENCE_S):
            while not condition():
                self._heard = anyio.Event()
                await self._heard.wait()

    async def read_anew(self) -> None:
        """Until every device has been read by questions that were all asked after this call."""
        for _ in range(2):
            before = {id_: state.reading for id_, state in self.pool.items()}
            await self.until(functools.partial(self._all_read_since, before))

    def _all_read_since(self, before: dict[str, Reading | None]) -> bool:
        return all(state.reading is not before[id_] for id_, state in self.pool.items())

    @property
    def pool(self) -> dict[str, DeviceState]:
        return self.scheduler.pool.devices

    def gpu(self, number: int) -> DeviceState:
        return self.pool[uuid(number)]

    def places(self) -> dict[str, str | None]:
        """By symbol, the device that its window holds."""
        return {
            planned.window.symbol: getattr(getattr(state, "slot", None), "device_id", None)
            for planned, state in self.scheduler.states("b")
        }


@asynccontextmanager
async def watching(fake: FakeNvml, slots: int = 1, **options: Any) -> AsyncIterator[Bench]:
    """Windows may be submitted when the devices have been read once."""
    bench = Bench(fake, slots)
    options = {"interval_s": 0.005, "sees_own_pids": True} | options
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Sampler(bench.found.devices, **options).run, bench.deliver)
        await bench.until(lambda: all(state.reading for state in bench.pool.values()))
        yield bench
        tasks.cancel_scope.cancel()


def lose(fake: FakeNvml, how: str) -> None:
    """GPU 0."""
    match how:
        case "lost":
            fake.fail("nvmlDeviceGetMemoryInfo", GPU_IS_LOST, 0)
        case "reset":
            fake.fail("nvmlDeviceGetTemperature", RESET_REQUIRED, 0)
        case "xid":
            fake.event(0, XID, 79)
        case "ecc event":
            fake.event(0, DOUBLE_BIT_ECC)
        case "ecc count":
            fake.set(0, ecc=1)


@pytest.mark.parametrize("how", ["lost", "reset", "xid", "ecc event", "ecc count"])
async def test_a_lost_device_costs_its_windows_no_attempt(fake: FakeNvml, how: str) -> None:
    fake.gpus(2)
    async with watching(fake) as bench:
        bench.submit(batch(limits=ONCE), ["A", "B", "C"]).start(A).start(B)
        assert bench.places() == {"A": uuid(0), "B": uuid(1), "C": None}
        lose(fake, how)
        await bench.until(lambda: bench.gpu(0).health == "quarantined")
        assert bench.stopped == [(A, 1)]
        # as a process that was signalled ends
        bench.end(A, ending=failure("killed"))
        assert bench.state(A) == Queued(attempt=2)
        bench.end(B)
        # A was there first, and may fail by its own doing as often as before: once
        assert bench.places() == {"A": uuid(1), "B": None, "C": None}
        bench.start(A, 2).end(A, 2).end(C)
        assert bench.scheduler.unfinished == 0
        assert bench.gpu(1).health == "open"


async def test_a_window_that_is_seen_on_another_device_closes_its_own(fake: FakeNvml) -> None:
    fake.gpus(2)
    async with watching(fake) as bench:
        bench.submit(batch(limits=ONCE), ["A", "B"]).start(A, pid=11).start(B, pid=22)
        fake.set(0, processes="11:1000 33:1000").set(1, processes="22:1000")
        await bench.read_anew()
        assert [state.health for state in bench.pool.values()] == ["open", "open"]
        fake.set(0, processes="11:1000 22:1000")
        await bench.until(lambda: bench.gpu(1).health == "quarantined")
        assert bench.gpu(1).reason == f"process 22 was placed here, but runs on {uuid(0)}"
        assert bench.stopped == [(B, 1)]
        bench.end(A).end(B, ending=failure("killed")).start(B, 2).end(B, 2)
        assert bench.scheduler.unfinished == 0


async def test_faults_of_the_application_stop_nobody(fake: FakeNvml) -> None:
    fake.gpus(1)
    async with watching(fake) as bench:
        bench.submit(batch(limits=ONCE), ["A"]).start(A)
        fake.event(0, XID, 31)
        await bench.read_anew()
        assert isinstance(bench.state(A), Running)
        assert bench.gpu(0).health == "open"


async def test_when_nvml_fails_for_a_minute_the_windows_go_on(fake: FakeNvml) -> None:
    """The minute is 20 ms here: NVML is started anew after each."""
    fake.gpus(2)
    async with watching(fake, retry_s=0.02) as bench:
        bench.submit(batch(limits=ONCE), ["A", "B", "C"]).start(A).start(B)
        for function in EVERYTHING:
            fake.fail(function, UNINITIALIZED)
        restart = fake.block("nvmlInitWithFlags")
        await asyncio.to_thread(restart.entered)
        last = {id_: state.reading for id_, state in bench.pool.items()}
        # nothing is known of the devices, and nothing is wrong with them: a window ends, the next one takes its place
        bench.end(A)
        assert bench.places() == {"A": None, "B": uuid(1), "C": uuid(0)}
        assert [state.health for state in bench.pool.values()] == ["open", "open"]
        assert {id_: state.reading for id_, state in bench.pool.items()} == last
        for function in EVERYTHING:
            fake.fail(function, None)
        fake.set(0, memory_free=GIB)
        restart.release()
        await bench.until(lambda: bench.gpu(0).reading != last[uuid(0)])
        await bench.read_anew()
        assert bench.gpu(0).memory.free_bytes() == GIB


async def test_a_call_that_blocks_keeps_no_window_waiting(fake: FakeNvml) -> None:
    """It blocks for as long as the test takes, which is for ever: 30 s are no different."""
    fake.gpus(2)
    async with watching(fake) as bench:
        bench.submit(batch(limits=ONCE), ["A", "B", "C"]).start(A).start(B)
        block = fake.block("nvmlDeviceGetUtilizationRates", 0)
        await asyncio.to_thread(block.entered)
        await anyio.lowlevel.checkpoint()
        before = bench.readings
        bench.end(A).start(C).end(C).end(B)
        assert bench.scheduler.unfinished == 0
        assert bench.readings == before
        block.release()
        await bench.read_anew()


async def test_exclusive_process_mode_never_has_two(fake: FakeNvml) -> None:
    fake.gpus(2).set(0, compute_mode=EXCLUSIVE_PROCESS)
    async with watching(fake, slots=3) as bench:
        bench.submit(batch(limits=ONCE), list("ABCDEF"))
        assert list(bench.places().values()).count(uuid(0)) == 1
        assert list(bench.places().values()).count(uuid(1)) == 3


async def test_a_card_that_somebody_else_holds_is_asked_again_later(fake: FakeNvml) -> None:
    """In exclusive mode, CUDA says that it is busy; that is read as having no room there."""
    fake.gpus(1).set(0, compute_mode=EXCLUSIVE_PROCESS)
    async with watching(fake) as bench:
        bench.submit(batch(limits=ONCE), ["A"]).start(A)
        bench.end(A, ending=failure("device_memory", "[CUDA] all CUDA-capable devices are busy or unavailable"))
        assert bench.state(A) == Starting(attempt=2, slot=bench.gpu(0).slots[0])
        bench.start(A, 2).end(A, 2, failure("device_memory"))
        assert isinstance(bench.state(A), Queued)
        bench.wait_for_deadline()
        bench.start(A, 3).end(A, 3)
        assert bench.scheduler.unfinished == 0


async def test_ghost_utilisation_keeps_nobody_away(fake: FakeNvml) -> None:
    """A card may report 100 % for ever after a kill, with no process on it."""
    fake.gpus(1, utilisation=100, processes="")
    async with watching(fake) as bench:
        await bench.read_anew()
        assert bench.gpu(0).utilisation > 0
        bench.submit(batch(limits=ONCE), ["A"])
        assert bench.places() == {"A": uuid(0)}
    fake.gpus(2).set(0, utilisation=100)
    async with watching(fake) as bench:
        await bench.read_anew()
        bench.submit(batch(limits=ONCE), ["A", "B"])
        # a tie-break: it comes second, and it comes
        assert bench.places() == {"A": uuid(1), "B": uuid(0)}


@pytest.mark.parametrize("sees_own_pids", [True, False])
async def test_memory_that_appears_late_is_not_given_away(fake: FakeNvml, sees_own_pids: bool) -> None:
    """In a container NVML reports host PIDs: then the whole promise stands until the window ends."""
    fake.gpus(1, memory_free=3 * GIB, memory_total=4 * GIB)
    async with watching(fake, slots=2, sees_own_pids=sees_own_pids) as bench:
        bench.submit(batch(limits=ONCE), ["A", "B"])
        for window in (A, B):
            bench.end(window, 1, failure("device_memory"))
        # 1 GiB each is set aside now, before anything of it is used
        bench.start(A, 2, pid=11).start(B, 2, pid=22)
        await bench.read_anew()
        assert bench.gpu(0).memory.free_bytes() == GIB
        fake.set(0, memory_free=2 * GIB, processes=f"11:{GIB}")
        await bench.read_anew()
        # seen, or not: a byte that is used is not promised again, and one that is promised twice is never given away
        assert bench.gpu(0).memory.free_bytes() == (GIB if sees_own_pids else 0)
        reading = bench.gpu(0).reading
        assert reading is not None
        assert (reading.process_memory_bytes is not None) is sees_own_pids


async def test_out_of_memory_waits_for_the_memory_of_others(fake: FakeNvml) -> None:
    fake.gpus(1, memory_free=47 * GIB)
    async with watching(fake, slots=2) as bench:
        bench.submit(batch(limits=ONCE), ["A"]).start(A)
        fake.set(0, memory_free=GIB // 2)  # somebody else's process has taken the rest
        await bench.read_anew()
        bench.end(A, ending=failure("device_memory", "[LightGBM] [Fatal] [CUDA] out of memory"))
        await bench.read_anew()
        assert bench.state(A) == Queued(attempt=2)
        assert bench.gpu(0).health == "open"
        fake.set(0, memory_free=2 * GIB)
        await bench.until(lambda: isinstance(bench.state(A), Starting))
        bench.start(A, 2).end(A, 2)
        assert bench.scheduler.unfinished == 0


async def test_a_card_that_tells_nothing_is_used(fake: FakeNvml) -> None:
    fake.gpus(1)
    for function in EVERYTHING[:7]:
        fake.fail(function, NOT_SUPPORTED)
    async with watching(fake) as bench:
        bench.submit(batch(limits=ONCE), ["A"])
        assert bench.places() == {"A": uuid(0)}


async def test_one_card_that_fails_altogether_leaves_the_others_alone(fake: FakeNvml) -> None:
    fake.gpus(2)
    async with watching(fake) as bench:
        for function in EVERYTHING[:7]:
            fake.fail(function, UNKNOWN, 0)
        old = bench.gpu(0).reading
        readings = bench.readings
        await bench.until(lambda: bench.readings >= readings + 4)
        assert bench.gpu(0).reading is not None
        assert bench.gpu(1).reading is not old
        assert [state.health for state in bench.pool.values()] == ["open", "open"]
