"""GPUs that come, go and come back: the fake NVML library, the real sampler, fleet, warm-up and scheduler."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import patch

import anyio
import anyio.to_thread
import pytest

from gpusched.config import Cache, Config, Run
from gpusched.core.events import DeviceChanged, DeviceRead, Event
from gpusched.core.ledger import DeviceState
from gpusched.devices.kind import Discovery, Note
from gpusched.devices.nvidia.cards import discover
from gpusched.devices.nvidia.gpus import Gpus
from gpusched.devices.nvidia.inventory import Inventory
from gpusched.devices.nvidia.sampler import Sampler
from gpusched.devices.slots import NoDevice, PoolRules
from gpusched.engines.local.engine import LocalEngine
from gpusched.supervisor import fleet as module
from gpusched.supervisor.fleet import Fleet
from tests.core.support import Driver
from tests.devices.fake_nvml import (
    DRIVER_NOT_LOADED,
    EXCLUSIVE_PROCESS,
    GPU_IS_LOST,
    PROHIBITED,
    UNKNOWN,
    XID,
    FakeNvml,
    mig_uuid,
    uuid,
)
from tests.waiting import PATIENCE_S

FULL = "[CUDA] out of memory"


class Machine(Driver):
    """A scheduler that hears of the GPUs of a machine from a fleet and a sampler."""

    def __init__(self, directory: Path, fake: FakeNvml) -> None:
        super().__init__()
        self.directory = directory
        self.fake = fake
        self.notes: list[str] = []
        self.changes: list[tuple[str, str]] = []
        self._more = anyio.Event()
        #: released after each look for GPUs
        self.looked = threading.Semaphore(0)
        self.fleet: Fleet

    def post(self, event: Event) -> None:
        self.send(event)
        self.changes += [(r.device_id, r.health) for r in self.records if isinstance(r, DeviceChanged)]
        self._more.set()

    def hear(self, note: Note) -> None:
        self.notes.append(str(note))

    def look(self) -> Discovery:
        found = discover(None)
        self.looked.release()
        return found

    def deliver(self, event: Event) -> None:
        self.post(event)
        if isinstance(event, DeviceRead):
            self.fleet.follow(event)

    @property
    def health(self) -> dict[str, str]:
        return {id_: state.health for id_, state in self.pool.items() if id_ != "cpu"}

    @property
    def pool(self) -> dict[str, DeviceState]:
        return self.scheduler.pool.devices

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(PATIENCE_S):
            while not condition():
                self._more = anyio.Event()
                await self._more.wait()

    async def until_health(self, **health: str) -> None:
        """By the numbers of the GPUs, `g0="open"`; of no others."""
        wanted = {uuid(int(name[1:])): value for name, value in health.items()}
        await self.until(lambda: self.health == wanted)

    def trials(self) -> list[str]:
        log = self.directory / "trials"
        return log.read_text().split("\n")[:-1] if log.exists() else []

    def answer(self, **answers: str | None) -> None:
        """The answers of trials from now on, by device type."""
        (self.directory / "answers").write_text(json.dumps(answers))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed trial is repeated only when something has changed."""
    monkeypatch.setattr(module, "RETRY_S", 1e6)
    monkeypatch.setattr(module, "RARE_RETRY_S", 1e6)
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@asynccontextmanager
async def working(directory: Path, fake: FakeNvml, root: Path | None = None) -> AsyncIterator[Machine]:
    machine = Machine(directory, fake)
    answers = {"TRIALS_LOG": str(directory / "trials"), "TRIALS_FILE": str(directory / "answers")}
    workload = Run(workload="tests.devices.workloads:writes")
    config, found = Config(run=workload, cache=Cache(dir=directory / "cache")), discover(None)
    with patch.dict(os.environ, answers):
        engine = LocalEngine(config, directory, found)
    async with engine:
        looking = Inventory(machine.look, found, look_s=0.02, root=root or directory / "root")
        gpus = engine.kinds["nvidia"]
        assert isinstance(gpus, Gpus)
        gpus.sampler = Sampler(found.devices, interval_s=0.02, retry_s=0.2, inventory=looking)
        machine.fleet = Fleet(PoolRules(config), engine, post=machine.post, on_note=machine.hear)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(machine.fleet.run)
            tasks.start_soon(engine.run, machine.deliver, machine.fleet.notice)
            yield machine
            tasks.cancel_scope.cancel()
    machine.scheduler.validate()


async def test_a_gpu_is_tried_before_windows_get_it(tmp_path: Path, fake: FakeNvml, quick: None) -> None:
    fake.gpus(2)
    async with working(tmp_path, fake) as machine:
        assert machine.health == {uuid(0): "trying", uuid(1): "trying"}
        await machine.until_health(g0="open", g1="open")
        assert machine.trials() == [f"cuda {uuid(0)}"]
        assert machine.fleet.pool.device_types("cuda") == ("cuda",)
        assert machine.notes == []


async def test_one_whose_memory_was_full_is_tried_again_when_it_has_some_back(
    tmp_path: Path, fake: FakeNvml, quick: None
) -> None:
    fake.gpus(1, memory_free=30 << 20)
    async with working(tmp_path, fake) as machine:
        machine.answer(cuda=FULL, gpu="No OpenCL device found")
        await machine.until_health(g0="quarantined")
        state = machine.pool[uuid(0)]
        assert state.reason == f"cuda does not work ({FULL}), gpu does not work (No OpenCL device found)"
        with pytest.raises(NoDevice, match="out of memory"):
            await machine.fleet.require("cuda")
        assert machine.notes == [f"NVIDIA RTX 6000 Ada Generation is not used: {state.reason}; run `gpusched doctor`"]
        reading = state.reading
        await machine.until(lambda: state.reading is not reading)
        machine.answer()
        fake.set(0, memory_free=40 << 30)
        await machine.until_health(g0="open")
        await machine.fleet.require("cuda")


async def test_a_request_for_its_device_type_tries_again_and_waits(tmp_path: Path, fake: FakeNvml, quick: None) -> None:
    fake.gpus(1)
    async with working(tmp_path, fake) as machine:
        machine.answer(cuda="no", gpu="no")
        await machine.until_health(g0="quarantined")
        machine.answer()
        told: list[str] = []
        await machine.fleet.require("cuda", told.append)
        assert machine.health == {uuid(0): "open"}
        assert told == [f"{uuid(0)} (0 s)"]


async def test_resume_tries_one_that_did_not_train(tmp_path: Path, fake: FakeNvml, quick: None) -> None:
    fake.gpus(1)
    async with working(tmp_path, fake) as machine:
        machine.answer(cuda="no", gpu="no")
        await machine.until_health(g0="quarantined")
        machine.answer(cuda=None)
        assert machine.fleet.resume(uuid(0))
        assert machine.health == {uuid(0): "trying"}
        await machine.until_health(g0="open")
        assert not machine.fleet.resume(uuid(0))
        assert not machine.fleet.resume("GPU-unknown")


async def test_it_is_tried_again_now_and_then_more_and_more_rarely(
    tmp_path: Path, fake: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "RARE_RETRY_S", 0.04)
    fake.gpus(1)
    async with working(tmp_path, fake) as machine:
        machine.answer(cuda="no", gpu="no")
        await machine.until(lambda: len(machine.trials()) >= 6)
        machine.answer()
        await machine.until_health(g0="open")
        assert len(machine.notes) == 1  # the same again is no news


async def test_twins_are_tried_by_themselves_where_the_first_does_not_train(
    tmp_path: Path, fake: FakeNvml, quick: None
) -> None:
    fake.gpus(2)
    async with working(tmp_path, fake) as machine:
        machine.answer(**{f"cuda on {uuid(0)}": FULL, f"gpu on {uuid(0)}": "no"})
        await machine.until_health(g0="quarantined", g1="open")
        await machine.until(lambda: bool(machine.notes))
        # its twin does not answer for it at the next try
        assert machine.fleet.resume(uuid(0))
        await machine.until(lambda: machine.changes[-1] == (uuid(0), "quarantined"))
        assert machine.health == {uuid(0): "quarantined", uuid(1): "open"}
        assert machine.notes[0].startswith(f"NVIDIA RTX 6000 Ada Generation {uuid(0)} is not used: ")


async def test_a_reset_gpu_is_tried_and_comes_back(tmp_path: Path, fake: FakeNvml, quick: None) -> None:
    """`nvidia-smi -r`: it is lost, and then it answers."""
    fake.gpus(1)
    async with working(tmp_path, fake) as machine:
        await machine.until_health(g0="open")
        fake.fail("nvmlDeviceGetMemoryInfo", GPU_IS_LOST, 0)
        await machine.until_health(g0="quarantined")
        assert len(machine.trials()) == 1
        fake.fail("nvmlDeviceGetMemoryInfo", None, 0)
        await machine.until_health(g0="open")
        assert machine.changes == [(uuid(0), health) for health in ("open", "quarantined", "trying", "open")]
        assert len(machine.trials()) == 2


async def test_one_that_is_closed_for_an_xid_and_answers_waits_for_resume(
    tmp_path: Path, fake: FakeNvml, quick: None
) -> None:
    fake.gpus(1)
    async with working(tmp_path, fake) as machine:
        await machine.until_health(g0="open")
        fake.event(0, XID, 79)
        await machine.until_health(g0="quarantined")
        readings = [machine.pool[uuid(0)].reading]

        def read_again() -> bool:
            if (latest := machine.pool[uuid(0)].reading) is not readings[-1]:
                readings.append(latest)
            return len(readings) > 3

        await machine.until(read_again)
        assert machine.health == {uuid(0): "quarantined"}


async def test_a_card_that_appears_joins_and_one_that_vanishes_leaves(
    tmp_path: Path, fake: FakeNvml, quick: None
) -> None:
    fake.gpus(1)
    async with working(tmp_path, fake) as machine:
        await machine.until_health(g0="open")
        fake.gpus(2)
        await machine.until_health(g0="open", g1="open")
        await machine.until(lambda: machine.pool[uuid(1)].reading is not None)
        slots = {slot.index for state in machine.pool.values() for slot in state.slots}
        fake.set(1, compute_mode=PROHIBITED)
        await machine.until_health(g0="open")
        assert (uuid(1), "gone") in machine.changes
        fake.set(1, compute_mode=0)
        await machine.until_health(g0="open", g1="open")
        assert {slot.index for state in machine.pool.values() for slot in state.slots} == slots


async def test_a_card_whose_compute_mode_is_changed_gets_its_slots_anew(
    tmp_path: Path, fake: FakeNvml, quick: None
) -> None:
    """Only one process may use a card in exclusive mode: the others' windows failed again and again."""
    fake.gpus(1)
    async with working(tmp_path, fake) as machine:
        await machine.until_health(g0="open")
        before = machine.pool[uuid(0)].device.capacity
        fake.set(0, compute_mode=EXCLUSIVE_PROCESS)
        await machine.until(lambda: uuid(0) in machine.pool and machine.pool[uuid(0)].device.capacity == 1)
        await machine.until_health(g0="open")
        fake.set(0, compute_mode=0)
        await machine.until(lambda: uuid(0) in machine.pool and machine.pool[uuid(0)].device.capacity == before)
    assert before > 1


async def test_a_mig_repartition_takes_the_card_and_brings_its_instances(
    tmp_path: Path, fake: FakeNvml, quick: None
) -> None:
    fake.gpus(1)
    async with working(tmp_path, fake) as machine:
        await machine.until_health(g0="open")
        fake.mig(0, 0, 2)
        instances = {mig_uuid(0, 0): "open", mig_uuid(0, 2): "open"}
        await machine.until(lambda: machine.health == instances)
        fake.write(**{"0/2 uuid": None})
        await machine.until(lambda: machine.health == {mig_uuid(0, 0): "open"})


async def test_a_driver_that_comes_up_later_brings_its_gpus(tmp_path: Path, fake: FakeNvml, quick: None) -> None:
    fake.gpus(1).fail("nvmlInitWithFlags", DRIVER_NOT_LOADED)
    async with working(tmp_path, fake) as machine:
        assert machine.health == {}
        with pytest.raises(NoDevice, match="modprobe"):
            await machine.fleet.require("cuda")
        fake.fail("nvmlInitWithFlags", None)
        await machine.until_health(g0="open")


async def test_a_driver_that_does_not_answer_takes_nothing_away(tmp_path: Path, fake: FakeNvml, quick: None) -> None:
    """A reload: NVML fails altogether, and is started anew when the driver is back. Windows that can run go on."""
    fake.gpus(2)
    async with working(tmp_path, fake) as machine:
        await machine.until_health(g0="open", g1="open")
        fake.fail("nvmlDeviceGetCount_v2", UNKNOWN).fail("nvmlDeviceGetHandleByUUID", UNKNOWN)
        fake.fail("nvmlDeviceGetMemoryInfo", UNKNOWN)
        for _ in range(3):
            await anyio.to_thread.run_sync(machine.looked.acquire)
        assert set(machine.health.values()) == {"open"}
        fake.fail("nvmlDeviceGetCount_v2", None).fail("nvmlDeviceGetHandleByUUID", None)
        fake.fail("nvmlDeviceGetMemoryInfo", None)
        reading = machine.pool[uuid(0)].reading
        await machine.until(lambda: machine.pool[uuid(0)].reading is not reading)
        assert set(machine.health.values()) == {"open"}


async def test_a_lost_card_hides_no_change_of_another(tmp_path: Path, fake: FakeNvml, quick: None) -> None:
    """The card in MIG mode stayed open beside its instances, and one that nobody may use stayed, too."""
    fake.gpus(3)
    async with working(tmp_path, fake) as machine:
        await machine.until_health(g0="open", g1="open", g2="open")
        with fake.at_once():
            fake.fail("nvmlDeviceGetHandleByIndex_v2", UNKNOWN, 0)
            fake.mig(1, 0)
            fake.set(2, compute_mode=PROHIBITED)
        await machine.until(lambda: machine.health == {uuid(0): "open", mig_uuid(1, 0): "open"})


async def test_one_that_vanishes_while_it_is_tried_is_forgotten(tmp_path: Path, fake: FakeNvml, quick: None) -> None:
    fake.gpus(1)
    async with working(tmp_path, fake) as machine:
        machine.answer(cuda="hang")
        await machine.until(lambda: len(machine.trials()) == 1)
        assert machine.fleet.trying().startswith(f"{uuid(0)} (")
        fake.write(count=0)
        await machine.until(lambda: machine.health == {})
        assert machine.fleet.untried == ()
        await machine.fleet.settled()


async def test_one_model_that_hangs_keeps_no_other_waiting(tmp_path: Path, fake: FakeNvml, quick: None) -> None:
    fake.gpus(1)
    async with working(tmp_path, fake) as machine:
        machine.answer(**{f"cuda on {uuid(0)}": "hang"})
        await machine.until(lambda: len(machine.trials()) == 1)
        with fake.at_once():
            fake.gpus(2).set(1, name="Tesla T4")
        await machine.until_health(g0="trying", g1="open")
