"""A process and the CUDA driver, through a libcuda.so.1 that is compiled from C."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from gpusched.core.model import DeviceType
from gpusched.engines.local.launcher import Confines, Launcher
from gpusched.worker import cuda as module
from gpusched.worker.cuda import CudaError, require_device
from gpusched.worker.messages import Error, PipeMessage, TrialJob
from gpusched.worker.window import error_kind
from gpusched.workload import DeviceMismatch, Trial
from tests.devices.fake_cuda import (
    DEVICE_UNAVAILABLE,
    ECC_UNCORRECTABLE,
    NO_DEVICE,
    OUT_OF_MEMORY,
    UNKNOWN,
    FakeCuda,
)
from tests.devices.fake_nvml import mig_uuid, uuid
from tests.waiting import PATIENCE_S
from tests.worker.support import REPOSITORY


class Driver(FakeCuda):
    """The fake as the CUDA driver of this process."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(directory)
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("FAKE_CUDA_STATE", self.environment["FAKE_CUDA_STATE"])
        monkeypatch.setattr(module, "_library", lambda: ctypes.CDLL(str(self.library)))

    def required(self, device: str, device_type: DeviceType, *, mask: str = "", shows: str | None = None) -> str:
        """The result of `require_device`, or the kind and message of its error; pinned to the device."""
        self._monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask or device)
        if shows is not None:
            self._monkeypatch.setenv("FAKE_CUDA_SHOWS", shows)
        try:
            return str(require_device(device, device_type))
        except (CudaError, DeviceMismatch) as error:
            return f"{error_kind(error, device_type)} {error}"


@pytest.fixture
def cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(tmp_path, monkeypatch)


@pytest.mark.parametrize("device", [uuid(3), uuid(10).upper(), mig_uuid(1, 2)])
def test_the_device_that_was_promised(cuda: Driver, device: str) -> None:
    assert cuda.required(device, "cuda") == device
    # made once, and only where it is used
    assert [call.split()[0] for call in cuda.calls()].count("cuDevicePrimaryCtxRetain") == 1
    assert cuda.required(device, "gpu") == device
    assert [call.split()[0] for call in cuda.calls()].count("cuDevicePrimaryCtxRetain") == 1


@pytest.mark.parametrize("device_type", ["cuda", "gpu"])
@pytest.mark.parametrize("shown", [uuid(0), f"{uuid(1)},{uuid(0)}"])
def test_it_must_be_the_device_of_the_slot_and_no_other(cuda: Driver, device_type: DeviceType, shown: str) -> None:
    said = cuda.required(uuid(1), device_type, shows=shown)
    seen = shown.replace("GPU-", "").replace(",", ", ")
    assert said == f"device_mismatch the slot's device is {uuid(1)}, and CUDA shows {seen}"
    assert not any("Ctx" in call for call in cuda.calls())  # nothing was taken from a device of somebody else's


@pytest.mark.parametrize("device_type", ["cuda", "gpu"])
def test_a_device_that_is_gone(cuda: Driver, device_type: DeviceType) -> None:
    said = cuda.required(uuid(1), device_type, shows="")
    assert said == "device_lost no CUDA-capable device is detected: cuInit returned CUDA_ERROR_NO_DEVICE"


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetUuid"])
def test_a_driver_that_fails_proves_nothing_to_opencl_and_is_an_error_for_cuda(cuda: Driver, function: str) -> None:
    cuda.fail(function, UNKNOWN)
    assert cuda.required(uuid(0), "gpu") == "None"
    said = cuda.required(uuid(0), "cuda")
    assert said == f"device_lost unknown error: {function} returned CUDA_ERROR_UNKNOWN"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (OUT_OF_MEMORY, "device_memory out of memory: {} returned CUDA_ERROR_OUT_OF_MEMORY"),
        (
            DEVICE_UNAVAILABLE,
            "device_lost CUDA-capable device(s) is/are busy or unavailable: {} returned CUDA_ERROR_DEVICE_UNAVAILABLE",
        ),
        (NO_DEVICE, "device_lost no CUDA-capable device is detected: {} returned CUDA_ERROR_NO_DEVICE"),
        (
            ECC_UNCORRECTABLE,
            "device_lost uncorrectable ECC error encountered: {} returned CUDA_ERROR_ECC_UNCORRECTABLE",
        ),
        (UNKNOWN, "device_lost unknown error: {} returned CUDA_ERROR_UNKNOWN"),
        # one that this driver has no name for
        (4711, "device_lost the CUDA driver fails: {} returned 4711"),
    ],
)
def test_what_a_refused_context_means(cuda: Driver, monkeypatch: pytest.MonkeyPatch, code: int, said: str) -> None:
    retain = "cuDevicePrimaryCtxRetain"
    monkeypatch.setattr(module, "BUSY_S", 0.01)
    cuda.fail(retain, code, uuid(0))
    assert cuda.required(uuid(0), "cuda") == said.format(retain)
    assert cuda.required(uuid(1), "cuda") == uuid(1)


def test_a_card_that_takes_one_process_may_be_late_to_let_the_last_one_go(cuda: Driver) -> None:
    cuda.fail("cuDevicePrimaryCtxRetain", DEVICE_UNAVAILABLE, times=2)
    assert cuda.required(uuid(0), "cuda") == uuid(0)
    assert [call.split()[0] for call in cuda.calls()].count("cuDevicePrimaryCtxRetain") == 3


def test_where_there_is_no_driver_to_ask_nothing_is_proven(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("")  # a library that cannot be loaded hides a real one
    ask = (
        "from gpusched.worker.cuda import CudaError, require_device\n"
        f"print(require_device({uuid(0)!r}, 'cuda'))\n"
        "try: require_device('cpu', 'cuda')\n"
        "except CudaError as error: print(error)"
    )
    environment = {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", ask], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "None\nthere is no CUDA driver here (libcuda.so.1)\n"


def test_without_a_promised_device_cuda_has_to_work_all_the_same(cuda: Driver) -> None:
    """`gpusched train --device cuda`, in the shell's own process."""
    assert cuda.required("cpu", "cpu") == "None"
    assert cuda.calls() == []
    assert cuda.required("cpu", "cuda", mask=uuid(0)) == "None"
    assert any("Ctx" in call for call in cuda.calls())
    cuda.fail("cuDevicePrimaryCtxRetain", OUT_OF_MEMORY)
    assert "out of memory" in cuda.required("cpu", "cuda", mask=uuid(0))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        # the workload's own answer is the better one
        ("CUDA Tree Learner was not enabled in this build", "CUDA Tree Learner was not enabled in this build"),
        # it dies of CUDA's answer, or thinks that it trains: windows would not
        ("crash", "CudaError: out of memory: cuDevicePrimaryCtxRetain returned CUDA_ERROR_OUT_OF_MEMORY"),
        (None, "CudaError: out of memory: cuDevicePrimaryCtxRetain returned CUDA_ERROR_OUT_OF_MEMORY"),
    ],
)
async def test_a_trial_without_a_context(cuda: Driver, tmp_path: Path, answer: str | None, said: str) -> None:
    cuda.fail("cuDevicePrimaryCtxRetain", OUT_OF_MEMORY)
    trials = {"TRIALS": json.dumps({"cuda": answer})}
    heard: list[PipeMessage] = []
    with anyio.fail_after(PATIENCE_S):
        async with Launcher(search_path=REPOSITORY, environment=os.environ | cuda.environment | trials) as launcher:
            job = TrialJob(workload="tests.devices.workloads:in_pairs", device_type="cuda", device=uuid(0))
            process = await launcher.fork(
                job, Confines(log_path=tmp_path / "log", env={"CUDA_VISIBLE_DEVICES": uuid(0)})
            )
            await process.wait(heard.append)
    last = heard[-1]
    assert isinstance(last, Trial | Error)
    assert (last.why if isinstance(last, Trial) else last.message) == said


def test_its_kinds_are_those_that_lead_elsewhere() -> None:
    assert CudaError("out of memory", 2).kind == "device_memory"
    assert CudaError("system not yet initialized", 802).kind == "device_lost"
