"""Which devices a person means, and the pool that comes of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gpusched.config import Config, Devices, load
from gpusched.core.estimates import Estimate
from gpusched.core.model import Device, DeviceType
from gpusched.devices.kind import Note
from gpusched.devices.naming import named, select, slots_by_device
from gpusched.devices.slots import PoolPlan, PoolRules
from tests.devices.fake_nvml import EXCLUSIVE_PROCESS, FakeNvml, mig_uuid, uuid

RTX = "NVIDIA RTX 6000 Ada Generation"


def config(**devices: object) -> Config:
    return Config(devices=msgspec.convert(devices, Devices))


def pool(**devices: object) -> PoolPlan:
    wanted = config(**devices)
    rules = PoolRules(wanted)
    return rules.pool(rules.find())


def gpus(plan: PoolPlan) -> list[str]:
    return [device.id for device in plan.devices if device.id != "cpu"]


@pytest.fixture
def machine(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """Three cards of two models on buses 01 to 03; the second one is cut into two MIG instances."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("gpusched.devices.processors.usable_cores", lambda: 16)
    return fake.gpus(3).set(2, name="Tesla T4").mig(1, 0, 1)


def test_a_slot_more_than_there_are_cores_keeps_them_busy(machine: FakeNvml) -> None:
    def slots_and_threads(**settings: object) -> tuple[int, int]:
        (cpu,) = (device for device in pool(**settings).devices if device.id == "cpu")
        return cpu.capacity, cpu.threads

    assert slots_and_threads() == (17, 1)
    assert slots_and_threads(cpu_slots=4) == (4, 4)


DEVICE = Device(id="GPU-0", name="Card", lightgbm_type="gpu", capacity=0)
ALL = [uuid(0), mig_uuid(1, 0), mig_uuid(1, 1), uuid(2)]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (uuid(2), [uuid(2)]),
        ("GPU-00000002", [uuid(2)]),
        (mig_uuid(1, 1), [mig_uuid(1, 1)]),
        ("MIG-00010000", [mig_uuid(1, 0)]),
        ("GPU-0000000", []),
        ("MIG-", []),
        ("01:00.0", [uuid(0)]),
        ("0000:03:00.0", [uuid(2)]),
        ("00000000:03:00.0", [uuid(2)]),
        ("03:00", [uuid(2)]),
        ("0001:03:00.0", []),
        ("02:00.0", [mig_uuid(1, 0), mig_uuid(1, 1)]),
        (RTX, [uuid(0)]),
        ("tesla t4", [uuid(2)]),
        ("T4", []),
        ("0", []),
        ("", []),
    ],
)
def test_names(machine: FakeNvml, name: str, meant: list[str]) -> None:
    found = PoolRules(Config()).find().devices
    assert [device.id for device in found] == ALL
    assert [device.id for device in named(name, found)] == meant


def test_include_and_exclude(machine: FakeNvml) -> None:
    assert gpus(pool()) == ALL
    assert gpus(pool(include=["Tesla T4", "01:00.0"])) == [uuid(0), uuid(2)]
    assert gpus(pool(exclude=["02:00.0"])) == [uuid(0), uuid(2)]
    assert gpus(pool(include=["02:00.0"], exclude=[mig_uuid(1, 0)])) == [mig_uuid(1, 1)]


def test_a_name_that_means_nothing_is_told_with_those_that_do(machine: FakeNvml) -> None:
    machine.gpus(2).set(0, mig=None).set(1, mig=None)
    plan = pool(include=[uuid(0), "GPU-x"], exclude=["GPU-0"], slots_by_device={"9f:00.0": 2})
    assert gpus(plan) == [uuid(0)]
    here = f"{uuid(0)} ({RTX}, 0000:01:00.0), {uuid(1)} ({RTX}, 0000:02:00.0)"
    assert tuple(map(str, plan.notes)) == (
        f"devices.include: 'GPU-x' is no GPU here; there are {here}",
        f"devices.exclude: 'GPU-0' is the beginning of several UUIDs; there are {here}",
        f"devices.slots_by_device: '9f:00.0' is no GPU here; there is {here.partition(', GPU')[0]}",
    )


def test_nothing_left_falls_back_to_the_processors(machine: FakeNvml) -> None:
    plan = pool(include=["H100"])
    assert gpus(plan) == []
    assert str(plan.notes[-1]) == "devices.include and devices.exclude leave no GPU"
    assert plan.device_types("auto") == ("cpu",)


def test_the_mask_comes_first(machine: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    plan = pool(include=["01:00.0", "03:00.0"])
    assert gpus(plan) == [uuid(2)]
    assert "'01:00.0' is no GPU here" in str(plan.notes[0])


def test_slots_of_single_devices(machine: FakeNvml) -> None:
    machine.set(2, compute_mode=EXCLUSIVE_PROCESS)
    plan = pool(slots=3, slots_by_device={"Tesla T4": 8, "02:00.0": 2, mig_uuid(1, 1): "auto"})
    # auto: 16 cores for 4 devices; exclusive mode allows one process
    found = [(device.tuned_from, device.capacity) for device in plan.devices if device.id != "cpu"]
    assert found == [(0, 3), (0, 2), (4, 8), (0, 1)]
    assert {device.threads for device in plan.devices if device.id != "cpu"} == {1}
    assert {device.threads for device in pool(slots=2).devices if device.id != "cpu"} == {2}


def test_a_uuid_wins_over_a_name_whatever_the_order() -> None:
    devices = (
        msgspec.structs.replace(DEVICE, id="GPU-1"),
        msgspec.structs.replace(DEVICE, id="GPU-2"),
    )
    for table in ({"card": 1, "GPU-2": 5}, {"GPU-2": 5, "card": 1}):
        assert slots_by_device(table, devices) == ({"GPU-1": 1, "GPU-2": 5}, ())
    assert select((), ["GPU-1"], []).notes == (Note("devices.include: 'GPU-1' is no GPU here", "there are none"),)


# -- the configuration -------------------------------------------------------------------------------------------------


def test_tables_and_lists_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[devices]\ninclude = ["GPU-1"]\nslots = 4\nallow_cpu_opencl = true\n\n'
        '[devices.slots_by_device]\n"41:00.0" = 2\nGPU-5 = "auto"\n'
    )
    loaded = load(path=path, environ={})
    assert loaded.config.devices == Devices(
        include=("GPU-1",), slots=4, allow_cpu_opencl=True, slots_by_device={"41:00.0": 2, "GPU-5": "auto"}
    )
    assert loaded.origins["devices.slots_by_device"] == f"{path}:6"


def test_slots_follow_the_memory_that_windows_were_seen_to_use(machine: FakeNvml) -> None:
    wanted = config(slots="auto", include=[RTX])

    def slots(memory_max: int, device_type: DeviceType = "cuda") -> tuple[int, int]:
        seen = Estimate(
            workload=wanted.run.workload,
            device_type=device_type,
            bucket=7,
            count=9,
            memory_count=9,
            memory_max=memory_max,
        )
        rules = PoolRules(wanted, learned=(seen,))
        device, _ = rules.pool(rules.find()).devices
        assert device.memory_total_bytes is not None
        return device.tuned_from or device.capacity, device.capacity

    total = PoolRules(wanted).find().devices[0].memory_total_bytes
    assert total is not None
    assert slots(1 << 20) == (16, 32), "cores are the limit, and twice as many slots for tuning"
    assert slots(total // 4) == (3, 3)
    assert slots(total // 20) == (16, 18)
    assert slots(2 * total) == (1, 1)
    assert slots(total // 4, "cpu") != (3, 3), "what windows take on the CPU says nothing"
