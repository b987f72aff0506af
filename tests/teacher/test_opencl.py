"""LightGBM on OpenCL, where this machine has a driver for its processors (PoCL); the check of the device's name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import pytest

from gpusched.core.model import DeviceType
from gpusched.teacher import booster, opencl, train_window, training, warm_up
from gpusched.teacher.opencl import ALLOW_CPU_OPENCL, require_gpu
from gpusched.teacher.schema import DIFFERS
from gpusched.teacher.training import _Log
from gpusched.workload import BadParameters, DeviceMismatch
from tests.teacher.support import ignore, window_task

WARNING = 'Although "deterministic" is set, the results ran by GPU may be non-deterministic.'
MESSAGE = "[LightGBM] [Info] Using GPU Device: {}, Vendor: {}\n"


@pytest.mark.parametrize(
    ("name", "is_gpu"),
    [
        ("NVIDIA RTX 6000 Ada Generation", True),
        ("Tesla T4", True),
        ("gfx1100", True),
        ("AMD Radeon Pro W7900", True),
        ("AMD Ryzen 7 7840U w/ Radeon 780M Graphics", True),
        ("Intel(R) UHD Graphics 770", True),
        ("Intel(R) Core(TM) Ultra 7 Graphics", True),
        ("cpu-haswell-AMD EPYC 7763 64-Core Processor", False),
        ("cpu-znver4-AMD Ryzen 7 7840U w/ Radeon 780M Graphics", False),
        ("pthread-skylake-avx512-AMD EPYC", False),
        ("Intel(R) Xeon(R) Gold 6338", False),
        ("AMD EPYC 7763 64-Core Processor", False),
        ("AMD Ryzen 9 7950X 16-Core Processor", False),
        ("        Intel(R) Core(TM) i7-6700K", False),
        ("Genuine Intel(R) CPU @ 2.60GHz", False),
        ("This machine's  own ", False),
        (None, False),
    ],
)
def test_the_device_must_be_a_gpu(monkeypatch: pytest.MonkeyPatch, name: str | None, is_gpu: bool) -> None:
    monkeypatch.delenv(ALLOW_CPU_OPENCL, raising=False)
    monkeypatch.setattr(opencl, "processor_name", lambda: "This machine's own")
    log = _Log(-1)
    log.hear("[LightGBM] [Info] This is the GPU trainer!!\n")
    if name is not None:
        log.hear(MESSAGE.format(name, "somebody"))
    assert log.opencl_device == name
    if is_gpu:
        require_gpu(log.opencl_device)
        return
    with pytest.raises(DeviceMismatch):
        require_gpu(log.opencl_device)
    monkeypatch.setenv(ALLOW_CPU_OPENCL, "1")
    require_gpu(log.opencl_device)


@pytest.mark.parametrize(("verbosity", "printed"), [(-1, "F"), (0, "FW"), (1, "FWI")])
def test_only_what_was_asked_for_is_printed(capsys: pytest.CaptureFixture[str], verbosity: int, printed: str) -> None:
    log = _Log(verbosity)
    for level in ("Fatal", "Warning", "Info"):
        log.hear(f"[LightGBM] [{level}] …\n")
    assert capsys.readouterr().out == "".join(
        f"[LightGBM] [{level}] …\n" for level in ("Fatal", "Warning", "Info") if level[0] in printed
    )


@pytest.mark.parametrize(("device_type", "number"), [("cuda", 0), ("gpu", 0), ("cpu", None)])
def test_lightgbm_is_told_the_one_device_that_the_process_sees(
    root: Path, monkeypatch: pytest.MonkeyPatch, device_type: DeviceType, number: int | None
) -> None:
    told: list[dict[str, Any]] = []

    def boost(labels: object, split: object, matrix: object, params: dict[str, Any], *rest: object) -> None:
        told.append(params)
        raise MemoryError

    monkeypatch.setattr(training, "_boost", boost)
    with pytest.raises(MemoryError):
        train_window(msgspec.structs.replace(window_task(root), device_type=device_type), root, ignore)
    (params,) = told
    assert (params["device_type"], params.get("gpu_device_id")) == (device_type, number)
    assert params.get("gpu_use_dp") is (None if device_type == "cpu" else True)


@pytest.mark.parametrize("device_type", ["cuda", "gpu", "cpu"])
def test_the_warm_up_compiles_the_kernels_that_windows_use(
    monkeypatch: pytest.MonkeyPatch, device_type: DeviceType
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(lightgbm, "train", lambda params, *more, **others: told.append(params))
    warm_up(device_type)
    assert [(params["device_type"], params.get("gpu_use_dp")) for params in told] == [
        (device_type, None if device_type == "cpu" else True)
    ] * 2


@pytest.mark.parametrize("given", [False, "false", "-"])
@pytest.mark.parametrize("device_type", ["cuda", "gpu"])
def test_single_precision_has_lightgbms_own_warning_in_the_log(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device_type: DeviceType,
    given: object,
) -> None:
    def boost(labels: object, split: object, matrix: object, params: dict[str, Any], log: _Log, report: object) -> None:
        assert params["verbosity"] >= 0  # or LightGBM would keep it to itself
        log.hear("[LightGBM] [Warning] No further splits with positive gain\n")
        for _ in range(2):
            log.hear(f"[LightGBM] [Warning] {WARNING}\n")
        raise MemoryError

    monkeypatch.setattr(training, "_boost", boost)
    for use, said in ((given, f"[LightGBM] [Warning] {WARNING}\n"), (True, "")):
        task = window_task(root, lightgbm={"gpu_use_dp": use})
        with pytest.raises(MemoryError):
            train_window(msgspec.structs.replace(task, device_type=device_type), root, ignore)
        assert capsys.readouterr().out == said


def test_it_is_the_warning_that_this_lightgbm_has() -> None:
    assert WARNING.encode() in Path(booster._lib._name).read_bytes()
    assert WARNING in DIFFERS


def test_a_model_of_another_device_type_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LightGBM trains linear trees on the processors where it was asked for CUDA, and says so to nobody."""
    monkeypatch.setattr(training, "trained_parameters", lambda text: {"device_type": "cuda"})
    with pytest.raises(BadParameters, match="LightGBM trains with device type cuda, and not cpu"):
        train_window(window_task(root), root, ignore)


def test_opencl_on_the_processors(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first use of the device compiles LightGBM's kernels, which is slow: only on request."""
    if os.environ.get("GPUSCHED_TEST_OPENCL") != "1":
        pytest.skip("GPUSCHED_TEST_OPENCL=1 (with PoCL installed) trains on OpenCL; the first time takes half a minute")
    task = msgspec.structs.replace(window_task(root, lightgbm={"num_iterations": 5}), device_type="gpu")
    monkeypatch.setenv(ALLOW_CPU_OPENCL, "1")
    result = train_window(task, root, ignore)
    assert result.metadata["opencl_device"]
    assert result.metadata["parameters"]["device_type"] == "gpu"
    assert result.metadata["parameters"]["gpu_use_dp"] == 1
    assert result.metadata["requested_parameters"]["verbosity"] == -1
    monkeypatch.delenv(ALLOW_CPU_OPENCL)
    with pytest.raises(DeviceMismatch, match="host's processors"):
        train_window(task, root, ignore)
    assert "[LightGBM]" not in capfd.readouterr().out
