"""The devices of a machine, through the real pynvml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpusched.core.model import Device
from gpusched.devices.host import Processors
from gpusched.devices.kind import Discovery, Note
from gpusched.devices.memory import HostMemory
from gpusched.devices.nvidia.cards import discover
from gpusched.devices.nvidia.gpus import Gpus
from tests.devices.fake_nvml import (
    DRIVER_NOT_LOADED,
    EXCLUSIVE_PROCESS,
    GIB,
    GPU_IS_LOST,
    NO_PERMISSION,
    PROHIBITED,
    UNKNOWN,
    VERSION_MISMATCH,
    FakeNvml,
    mig_uuid,
    uuid,
)
from tests.waiting import PATIENCE_S

RTX = "NVIDIA RTX 6000 Ada Generation"


def told(found: Discovery) -> tuple[str, ...]:
    """The notes as people read them."""
    return tuple(map(str, found.notes))


def ids(found: Discovery) -> list[str]:
    return [device.id for device in found.devices]


def test_describes_each_gpu(fake: FakeNvml) -> None:
    fake.gpus(2)
    found = discover(None, lightgbm_type="cuda")
    assert found == Discovery(
        devices=tuple(
            Device(
                id=uuid(index),
                name=RTX,
                lightgbm_type="cuda",
                capacity=0,
                memory_total_bytes=48 * GIB,
                pci_bus_id=f"0000:{index + 1:02x}:00.0",
                driver="580.95.05",
                modes="persistence on, compute mode default",
            )
            for index in range(2)
        ),
        notes=(),
        driver="580.95.05",
        complete=True,
    )


def test_tells_how_the_driver_runs_a_card(fake: FakeNvml) -> None:
    fake.gpus(2).set(0, persistence=0, compute_mode=EXCLUSIVE_PROCESS).set(1, persistence=None, compute_mode=None)
    assert [device.modes for device in discover(None).devices] == [
        "persistence off, compute mode exclusive process",
        "",
    ]


@pytest.mark.parametrize("count", [1, 16])
def test_finds_any_number_of_gpus(fake: FakeNvml, count: int) -> None:
    assert ids(discover(None)) == []
    fake.gpus(count)
    assert ids(discover(None)) == [uuid(index) for index in range(count)]


def test_counts_ordinals_in_pci_order(fake: FakeNvml) -> None:
    fake.gpus(3).set(0, bus=9).set(1, bus=3).set(2, bus=5)
    assert ids(discover("0,1")) == [uuid(1), uuid(2)]


def test_the_mask_selects_and_orders(fake: FakeNvml) -> None:
    fake.gpus(3)
    assert ids(discover(f"{uuid(2)},GPU-00000000")) == [uuid(2), uuid(0)]


@pytest.mark.parametrize(
    ("lost", "mask", "left"),
    [
        (0, "1,2", [1, 2]),
        (1, "1,2", [2]),
        (2, "0,3", [0, 3]),
        (1, f"{uuid(1)},{uuid(3)}", [3]),
        (3, "GPU-00000003", []),
    ],
)
def test_a_lost_gpu_moves_no_ordinal_and_ends_no_list(fake: FakeNvml, lost: int, mask: str, left: list[int]) -> None:
    fake.gpus(4).fail("nvmlDeviceGetHandleByIndex_v2", GPU_IS_LOST, lost)
    found = discover(mask)
    assert ids(found) == [uuid(gpu) for gpu in left]
    assert not any("names no device" in note for note in told(found))


def test_says_what_is_wrong_with_the_mask(fake: FakeNvml) -> None:
    fake.gpus(2)
    found = discover("1,5")
    assert ids(found) == [uuid(1)]
    assert told(found) == (
        "CUDA_VISIBLE_DEVICES=1,5: '5' names no device here, so the list ends before it;"
        " `nvidia-smi -L` lists what there is",
    )


@pytest.mark.parametrize("mask", ["", "-1", "NoDevFiles"])
def test_a_mask_can_hide_everything(fake: FakeNvml, mask: str) -> None:
    fake.gpus(2)
    assert discover(mask) == Discovery(
        devices=(),
        notes=(Note(f"CUDA_VISIBLE_DEVICES={mask} hides every GPU from the pool"),),
        driver="580.95.05",
        complete=True,
    )


def test_each_mig_instance_is_a_device(fake: FakeNvml) -> None:
    fake.gpus(2).mig(1, 0, 2)
    found = discover(None)
    assert ids(found) == [uuid(0), mig_uuid(1, 0), mig_uuid(1, 2)]
    assert found.devices[2].name == "NVIDIA A100 MIG 2g.12gb"
    assert found.devices[2].memory_total_bytes == 12 * GIB
    assert ids(discover(mig_uuid(1, 2))) == [mig_uuid(1, 2)]


def test_mig_mode_without_instances(fake: FakeNvml) -> None:
    fake.gpus(1).mig(0)
    found = discover(None)
    assert found.devices == ()
    assert told(found) == (
        f"GPU 0 ({RTX}) is in MIG mode and has no instances: it is not used; `nvidia-smi mig -cgi … -C` makes them",
    )


def test_exclusive_process_mode_means_one_slot(fake: FakeNvml) -> None:
    fake.gpus(2).set(1, compute_mode=EXCLUSIVE_PROCESS)
    found = discover(None)
    assert [device.capacity for device in found.devices] == [0, 1]
    assert told(found) == (
        f"GPU 1 ({RTX}) is in EXCLUSIVE_PROCESS compute mode: it gets one slot; `nvidia-smi -c DEFAULT` allows more",
    )


def test_prohibited_mode_means_not_used(fake: FakeNvml) -> None:
    fake.gpus(2).set(0, compute_mode=PROHIBITED)
    found = discover(None)
    assert ids(found) == [uuid(1)]
    assert "PROHIBITED" in told(found)[0]
    # it still counts
    assert ids(discover("1")) == [uuid(1)]


def test_persistence_mode_off(fake: FakeNvml) -> None:
    fake.gpus(3).set(0, persistence=0).set(2, persistence=0)
    found = discover(None)
    assert len(found.devices) == 3
    assert told(found) == (
        "persistence mode is off on GPU 0, 2: windows may wait seconds for the driver;"
        " `nvidia-smi -pm 1` or nvidia-persistenced turns it on",
    )


def test_values_that_the_card_does_not_report_are_absent(fake: FakeNvml) -> None:
    fake.gpus(1, memory_total=None, compute_mode=None, persistence=None, bus=None)
    found = discover(None)
    assert told(found) == ()
    assert found.devices[0].memory_total_bytes is None


def test_a_lost_gpu_does_not_hide_the_others(fake: FakeNvml) -> None:
    fake.gpus(3).fail("nvmlDeviceGetHandleByIndex_v2", GPU_IS_LOST, 1)
    found = discover(None)
    assert ids(found) == [uuid(0), uuid(2)]
    assert told(found) == ("GPU 1 does not answer (GPU is lost): it is not used; look at `nvidia-smi` and `dmesg`",)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DRIVER_NOT_LOADED, "modprobe nvidia"),
        (VERSION_MISMATCH, "restart the machine, then restart the daemon"),
        (NO_PERMISSION, "/dev/nvidiactl"),
        (UNKNOWN, "Unknown Error"),
        (4711, "a made-up error"),
    ],
)
def test_says_why_nvml_does_not_start(fake: FakeNvml, error: int, words: str) -> None:
    fake.gpus(2).fail("nvmlInitWithFlags", error)
    found = discover(None)
    assert found.devices == ()
    (note,) = told(found)
    assert words in note
    assert "GPUs cannot be used" in note


@pytest.mark.parametrize("error", [DRIVER_NOT_LOADED, UNKNOWN])
def test_a_container_without_the_device_nodes(fake: FakeNvml, tmp_path: Path, error: int) -> None:
    fake.gpus(2).fail("nvmlInitWithFlags", error)
    version, node = tmp_path / "proc" / "driver" / "nvidia" / "version", tmp_path / "dev" / "nvidiactl"
    words = "/dev/nvidiactl is not there, as in a container that was started without its device nodes"

    def note() -> str:
        (only,) = told(discover(None, root=tmp_path))
        return only

    assert words not in note()
    for path in (version, node):
        path.parent.mkdir(parents=True)
    version.touch()
    assert words in note()
    assert "--gpus all" in note()
    node.touch()
    assert words not in note()


def test_a_driver_that_fails_later(fake: FakeNvml) -> None:
    fake.gpus(2).fail("nvmlDeviceGetCount_v2", UNKNOWN)
    assert discover(None).devices == ()


def test_no_gpu(fake: FakeNvml) -> None:
    fake.gpus(0)
    assert discover(None) == Discovery(
        devices=(), notes=(Note("the NVIDIA driver reports no GPU that can be used"),), complete=True
    )


def test_cores_near_each_gpu(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 64, 65})
    fake.gpus(3).set(0, cpus="5 1").set(1, cpus="ffffffffffffffff ffffffffffffffff").set(2, cpus="f0 0")
    assert [device.cpus for device in discover(None).devices] == [(0, 2, 64), (), ()]


def in_subprocess(environment: dict[str, str]) -> tuple[list[str], list[str]]:
    """The inventory of a fresh process: (ids, notes)."""
    program = (
        "import json, sys; from gpusched.devices.nvidia.cards import discover; assert 'pynvml' not in sys.modules;"
        "found = discover(None);"
        "print(json.dumps([[d.id for d in found.devices], [str(note) for note in found.notes]]))"
    )
    clean = {key: value for key, value in os.environ.items() if key not in {"LD_LIBRARY_PATH", "FAKE_NVML_STATE"}}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=clean | environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    found, notes = json.loads(done.stdout)
    return found, notes


def test_other_processes_can_be_shown_the_same_machine(fake: FakeNvml) -> None:
    fake.gpus(2)
    assert in_subprocess(fake.environment) == ([uuid(0), uuid(1)], [])


def test_no_library(tmp_path: Path) -> None:
    # a library that cannot be loaded hides a real one
    (tmp_path / "libnvidia-ml.so.1").write_text("")
    found, notes = in_subprocess({"LD_LIBRARY_PATH": str(tmp_path)})
    assert found == []
    assert "no NVIDIA driver is installed here" in notes[0]


def test_no_binding(fake: FakeNvml, tmp_path: Path) -> None:
    (tmp_path / "pynvml.py").write_text("raise ImportError")
    found, notes = in_subprocess(fake.environment | {"PYTHONPATH": str(tmp_path)})
    assert (found, notes) == ([], ["the nvidia-ml-py package is not installed: GPUs cannot be used"])


def test_without_a_driver_the_binding_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("")
    (tmp_path / "pynvml.py").write_text("raise AssertionError")
    _, notes = in_subprocess({"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(tmp_path)})
    assert "no NVIDIA driver is installed here" in notes[0]


def test_pins_a_process_to_its_device() -> None:
    gpu = Device(id=uuid(1), name=RTX, lightgbm_type="cuda", capacity=1)
    gpus = Gpus(Discovery(devices=(gpu,), notes=()))
    assert gpus.environment(gpu) == {"CUDA_VISIBLE_DEVICES": uuid(1), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    cpu = Device(id="cpu", name="CPU", kind="host", lightgbm_type="cpu", capacity=1)
    assert Processors(HostMemory()).environment(cpu) == {"CUDA_VISIBLE_DEVICES": ""}
