"""The device types that each model of GPU trains with, tried in real processes of a real launcher."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import anyio
import pytest

from gpusched.config import Cache, Config, Devices
from gpusched.core.model import Device, DeviceChoice, DeviceType
from gpusched.devices.kind import Discovery, Note
from gpusched.devices.naming import Selected
from gpusched.devices.nvidia.gpus import Gpus
from gpusched.devices.slots import PoolRules
from gpusched.engines.engine import resolve
from gpusched.engines.local import warm_up as module
from gpusched.engines.local.launcher import Launcher
from gpusched.engines.local.warm_up import WarmUp, launcher_environment
from tests.waiting import PATIENCE_S

REPOSITORY = Path(__file__).parents[2]
NO_CUDA = "CUDA Tree Learner was not enabled in this build.\nPlease recompile with CMake option -DUSE_CUDA=1"


def card(number: int, name: str = "NVIDIA RTX 6000 Ada Generation", cpus: tuple[int, ...] = ()) -> Device:
    return Device(id=f"GPU-{number}", name=name, lightgbm_type="gpu", capacity=0, cpus=cpus)


class Machine:
    """Devices whose drivers answer as they are told to."""

    def __init__(self, directory: Path, *devices: Device) -> None:
        self.directory = directory
        self.devices = devices
        self.answers: dict[str, str] = {}

    async def resolve(
        self,
        wanted: DeviceChoice = "auto",
        workload: str = "tests.devices.workloads:in_pairs",
        requests: Sequence[tuple[Device, ...]] = (),
        afresh: Collection[str] = (),
    ) -> Selected:
        """The answer to the last of `requests`, which come at once; without any, to one for all devices."""
        environment = {**os.environ, "TRIALS": json.dumps(self.answers), "TRIALS_LOG": str(self.directory / "trials")}
        with anyio.fail_after(PATIENCE_S):
            async with Launcher(
                search_path=REPOSITORY, log_path=self.directory / "launcher.log", environment=environment
            ) as launcher:
                log = self.directory / "warm_up.log"
                pinned = Gpus(Discovery(devices=(), notes=()), standing=False).environment
                warm_up = WarmUp(launcher, pinned, workload=workload, log_path=log)
                asked = (
                    resolve(partial(warm_up.judge, afresh=afresh), Selected(devices, (Note("a note"),)), wanted)
                    for devices in requests or [self.devices]
                )
                *_, found = await asyncio.gather(*asked)
        assert found.notes[0] == Note("a note")
        return found

    def trials(self) -> list[str]:
        return sorted((self.directory / "trials").read_text().splitlines())


def types(found: Selected) -> dict[str, DeviceType]:
    return {device.id: device.lightgbm_type for device in found.devices}


async def test_cuda_comes_first(tmp_path: Path) -> None:
    machine = Machine(tmp_path, card(0))
    found = await machine.resolve()
    assert (types(found), found.notes[1:]) == ({"GPU-0": "cuda"}, ())
    assert machine.trials() == ["cuda GPU-0"]


async def test_opencl_where_the_build_has_no_cuda_which_is_no_news(tmp_path: Path) -> None:
    machine = Machine(tmp_path, card(0))
    machine.answers = {"cuda": NO_CUDA}
    found = await machine.resolve()
    assert (types(found), found.notes[1:]) == ({"GPU-0": "gpu"}, ())
    assert machine.trials() == ["cuda GPU-0", "gpu GPU-0"]


async def test_a_cuda_build_that_fails_is_news(tmp_path: Path) -> None:
    machine = Machine(tmp_path, card(0))
    machine.answers = {"cuda": "[CUDA] no kernel image is available for execution on the device\nat line 17"}
    found = await machine.resolve()
    assert types(found) == {"GPU-0": "gpu"}
    assert tuple(map(str, found.notes[1:])) == (
        "NVIDIA RTX 6000 Ada Generation is used with device type gpu: cuda does not work"
        " ([CUDA] no kernel image is available for execution on the device)",
    )


async def test_a_gpu_on_which_nothing_trains_is_not_used(tmp_path: Path) -> None:
    machine = Machine(tmp_path, card(0), card(1, "Tesla K20"))
    machine.answers = {"cuda on GPU-1": "too old", "gpu on GPU-1": "No OpenCL device found"}
    found = await machine.resolve()
    assert types(found) == {"GPU-0": "cuda"}
    assert tuple(map(str, found.notes[1:])) == (
        "Tesla K20 is not used: cuda does not work (too old), gpu does not work (No OpenCL device found);"
        " run `gpusched doctor`",
    )


async def test_without_any_the_processors_are_offered(tmp_path: Path) -> None:
    machine = Machine(tmp_path, card(0))
    machine.answers = {"cuda": "no", "gpu": "no"}
    pool = PoolRules(Config()).pool(await machine.resolve())
    assert pool.device_types("auto") == ("cpu",)
    assert PoolRules(Config(devices=Devices(fallback="none"))).pool(Selected(())).device_types("auto") == ()


async def test_each_model_is_tried_once_in_a_process_pinned_to_its_first_device(tmp_path: Path) -> None:
    machine = Machine(tmp_path, card(3), card(1), card(2, "Tesla T4"), card(0, "Tesla T4"))
    found = await machine.resolve()
    assert list(types(found)) == ["GPU-3", "GPU-1", "GPU-2", "GPU-0"]
    assert machine.trials() == ["cuda GPU-2", "cuda GPU-3"]


async def test_the_first_of_a_model_answers_for_a_twin_and_for_itself_another_time(tmp_path: Path) -> None:
    machine, first, twin = Machine(tmp_path), card(0), card(1)
    await machine.resolve(requests=[(first,), (twin,), (first,), (first, twin)])
    assert machine.trials() == ["cuda GPU-0"]


async def test_no_other_trial_answers_for_one_that_is_tried_afresh(tmp_path: Path) -> None:
    machine, first, twin = Machine(tmp_path), card(0), card(1)
    await machine.resolve(requests=[(first,), (first, twin)], afresh=(twin.id,))
    assert machine.trials() == ["cuda GPU-0", "cuda GPU-1"]


@pytest.mark.parametrize("wanted", ["cuda", "gpu"])
async def test_only_what_was_asked_for_is_tried(tmp_path: Path, wanted: DeviceType) -> None:
    machine = Machine(tmp_path, card(0))
    assert types(await machine.resolve(wanted)) == {"GPU-0": wanted}
    assert machine.trials() == [f"{wanted} GPU-0"]


async def test_a_trial_that_crashes_or_raises_is_an_answer(tmp_path: Path) -> None:
    machine = Machine(tmp_path, card(0))
    machine.answers = {"cuda": "crash", "gpu": "raise"}
    found = await machine.resolve()
    assert types(found) == {}
    assert "ended with signal 11" in str(found.notes[1])
    assert "a bug in the workload" in str(found.notes[1])
    machine.answers = {"cuda": "abort"}
    assert "cuda does not work ([CUDA] unknown error)" in str((await machine.resolve("cuda")).notes[1])


async def test_a_trial_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIAL_S", 0.5)
    machine = Machine(tmp_path, card(0))
    machine.answers = {"cuda": "hang", "gpu": "hang"}
    found = await machine.resolve("cuda")
    assert types(found) == {}
    assert "cuda does not work (it did not train within 0.5 s)" in str(found.notes[1])


@pytest.mark.parametrize(
    ("name", "named", "same"),
    [
        ("NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX 6000 Ada Generation", True),
        ("Tesla T4", "Tesla T4", True),
        ("NVIDIA A100-SXM4-40GB MIG 2g.10gb", "NVIDIA A100-SXM4-40GB", True),
        ("NVIDIA RTX A6000", "Intel(R) UHD Graphics 770", False),
        ("NVIDIA RTX A6000", "gfx1100", False),
        # whether processors may pass for a GPU is the workload's to say
        ("NVIDIA RTX A6000", "cpu-haswell-AMD EPYC 7763", True),
    ],
)
async def test_opencl_must_not_pick_another_gpu(tmp_path: Path, name: str, named: str, same: bool) -> None:
    machine = Machine(tmp_path, card(0, name))
    machine.answers = {"gpu": f"trained on {named}"}
    found = await machine.resolve("gpu")
    assert bool(found.devices) is same
    if not same:
        assert f"it trained on another device, {named}" in str(found.notes[1])


async def test_a_workload_that_cannot_be_tried_is_believed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, card(0))
    assert types(await machine.resolve("gpu", workload="tests.worker.workloads:nothing")) == {"GPU-0": "gpu"}


async def test_a_workload_that_cannot_be_loaded_is_not_the_devices_fault(tmp_path: Path) -> None:
    found = await Machine(tmp_path, card(0)).resolve("gpu", workload="tests.devices.nowhere:window")
    assert types(found) == {"GPU-0": "gpu"}


def test_kernel_caches_of_our_own(tmp_path: Path) -> None:
    config = Config(cache=Cache(dir=tmp_path / "cache"), devices=Devices(allow_cpu_opencl=True))
    environment = launcher_environment(config)
    assert environment["POCL_CACHE_DIR"] == str(tmp_path / "cache" / "kernels" / "pocl")
    assert environment["CUDA_CACHE_PATH"] == str(tmp_path / "cache" / "kernels" / "cuda")
    assert Path(environment["CUDA_CACHE_PATH"]).is_dir()
    assert environment["GPUSCHED_ALLOW_CPU_OPENCL"] == "1"
    assert environment["PATH"] == os.environ["PATH"]
    (tmp_path / "file").touch()
    unwritable = launcher_environment(Config(cache=Cache(dir=tmp_path / "file")))
    assert unwritable["GPUSCHED_ALLOW_CPU_OPENCL"] == "0"
