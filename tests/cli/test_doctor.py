"""The doctor tells what works, and never makes things worse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpusched.cli import doctor
from gpusched.cli.doctor import try_device, try_import
from gpusched.cli.findings import device_check, files_check, gpu_notes, library_checks, lightgbm_checks, space_check
from gpusched.workload import Trial
from tests.end_to_end.support import Command

GOOD = Trial(trained=True, version="4.6.0")
NO_CUDA = Trial(trained=False, why="CUDA Tree Learner was not enabled in this build.\nPlease recompile …")
NO_OPENCL = Trial(trained=False, why="No OpenCL device found")


@pytest.fixture
def gpusched(tmp_path: Path) -> Command:
    """Without OpenCL drivers, whose kernels may take half a minute to compile."""
    command = Command(tmp_path)
    command.environment["OCL_ICD_VENDORS"] = str(tmp_path)
    return command


def test_it_really_trains_and_says_the_rest(gpusched: Command, tmp_path: Path) -> None:
    (tmp_path / "data" / "AAPL").mkdir(parents=True)
    found = gpusched.json("doctor")
    checks = {check["name"]: check for check in found["checks"]}
    assert found["ok"]
    assert checks["lightgbm"]["status"] == "ok"
    assert "trains on cpu" in checks["lightgbm"]["message"]
    assert {"lightgbm gpu", "lightgbm cuda", "cores", "files", "cache", "output", "daemon", "data"} <= set(checks)
    assert "holds 1 symbol" in checks["data"]["message"]
    for check in found["checks"]:
        assert check["status"] in ("ok", "warning", "problem")
        assert check["message"]


def test_in_a_pipe_it_is_tab_separated(gpusched: Command) -> None:
    lines = [line.split("\t") for line in gpusched("doctor").splitlines()]
    assert {len(line) for line in lines} == {4}
    assert ["warning", "data"] in [line[:2] for line in lines]


@pytest.fixture
def fake_lightgbm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module that trials import instead of LightGBM."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    return tmp_path / "lightgbm.py"


def test_a_broken_lightgbm_is_a_problem(fake_lightgbm: Path) -> None:
    fake_lightgbm.write_text("raise OSError('libgomp.so.1: cannot open shared object file')\n")
    trial = try_device("cpu", 30)
    assert (trial.trained, trial.why) == (False, "libgomp.so.1: cannot open shared object file")
    first, *_ = lightgbm_checks({"cpu": trial, "gpu": trial, "cuda": trial})
    assert (first.status, "libgomp" in first.message) == ("problem", True)
    assert "apt install libgomp1" in first.remedy


def test_one_that_crashes_says_how(fake_lightgbm: Path) -> None:
    fake_lightgbm.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    assert "signal 11" in (try_device("gpu", 30).why or "")


def test_one_that_hangs_is_given_up(fake_lightgbm: Path) -> None:
    fake_lightgbm.write_text("import signal\nsignal.pause()\n")
    assert try_device("gpu", 0.5).why == "it did not answer within 0.5 s"


@pytest.mark.parametrize(
    ("gpu", "status", "word"),
    [
        (Trial(trained=True, device="NVIDIA A40"), "ok", "NVIDIA A40"),
        (Trial(trained=True, device="pthread-haswell-AMD EPYC"), "warning", "that is no GPU"),
        (Trial(trained=True, device="cpu-haswell-AMD EPYC"), "warning", "that is no GPU"),
        (NO_OPENCL, "warning", "OpenCL driver"),
    ],
)
def test_what_opencl_found_is_judged(gpu: Trial, status: str, word: str) -> None:
    _, check, cuda = lightgbm_checks({"cpu": GOOD, "gpu": gpu, "cuda": NO_CUDA})
    assert check.status == status
    assert word in check.message + check.remedy
    assert "USE_CUDA=ON" in cuda.remedy


def test_no_gpu_is_a_problem_only_where_the_cpu_is_forbidden(gpusched: Command) -> None:
    gpusched.environment["CUDA_VISIBLE_DEVICES"] = ""
    found = gpusched.json("doctor", "--set", "devices.fallback=none", code=4)
    assert not found["ok"]
    assert "forbids the CPU" in next(c["message"] for c in found["checks"] if c["status"] == "problem")


def test_a_data_root_that_is_missing_or_empty_has_a_remedy(tmp_path: Path) -> None:
    for root in (tmp_path / "none", tmp_path):
        check = doctor._data_check(root)
        assert check.status == "warning"
        assert "--data-root" in check.remedy
    (tmp_path / "AAPL.csv").touch()
    assert doctor._data_check(tmp_path).status == "ok"


def test_every_mark_has_a_plain_form() -> None:
    assert all(plain.isascii() for _, plain, _ in doctor._MARKS.values())
