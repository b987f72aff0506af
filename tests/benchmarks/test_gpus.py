"""The proof for the owner of a GPU, rehearsed on GPUs that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpusched.devices.nvidia.readings import in_initial_pid_namespace
from tests.devices.fake_nvml import FakeNvml

REPOSITORY = Path(__file__).parents[2]


def proof(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Without `CUDA_VISIBLE_DEVICES`, on two GPUs of the fake."""
    fake = FakeNvml(directory).gpus(2)
    inherited = {name: text for name, text in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpus", "--quick", *arguments],
        cwd=REPOSITORY,
        env=inherited | fake.environment | {"TMPDIR": str(directory)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def verdicts(out: str) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {verdict: [] for verdict in ("ok", "FAILS", "?")}
    for line in out.splitlines():
        verdict, _, what = line.partition(" ")
        said.get(verdict, []).append(what.strip())
    return said


def test_says_of_each_thing_whether_it_holds_here(tmp_path: Path) -> None:
    """A workload that trains nothing, and a LightGBM without CUDA."""
    parts = ("machine", "checks", "daily", "same", "baseline", "room", "opencl")
    workload = ("--set", "run.workload=tests.devices.workloads:writes", "--set", "devices.allow_cpu_opencl=true")
    path = tmp_path / "proof.json"
    trials = json.dumps({"cuda": "not in this build"})
    ended = proof(tmp_path, *parts, *workload, "--json", str(path), "--deadline", "280", TRIALS=trials)
    assert "Traceback" not in ended.stderr
    said = verdicts(ended.stdout)
    assert any(what.startswith("NVML shows 2 devices ") for what in said["ok"])
    assert any("no window can be trained with device type cuda here" in what for what in said["?"])
    assert any("cuda does not work (not in this build)" in what for what in said["?"])
    assert "device types that train: gpu" in said["ok"]
    assert any("windows are the same, byte for byte, alone, beside others, and again" in what for what in said["ok"])
    assert any(what.startswith("gpu-1d-1: 7 windows, ") for what in said["?"])
    assert any(what.startswith("an interpreter for every window, 2 workers: ") for what in said["?"])
    # the fake does not know who runs on it
    unknown = ["NVML lists our processes where they were placed: {"] if in_initial_pid_namespace() else []
    assert [what.partition("{")[0] + "{" for what in said["FAILS"]] == unknown
    assert ended.returncode == len(unknown)
    assert "| gpu-1d-1 | 1 | 7 | " in ended.stdout
    written = json.loads(path.read_text())
    assert list(written["parts"]) == list(parts)
    (measured,) = written["parts"]["daily"]["result"]
    assert measured["windows"] == 7
    assert measured["refill_ms"] > 0


def test_what_there_is_no_time_for_is_said(tmp_path: Path) -> None:
    ended = proof(tmp_path, "machine", "daily", "--deadline", "1")
    assert ended.returncode == 0
    assert verdicts(ended.stdout)["?"] == ["machine: no time is left", "daily: no time is left"]


@pytest.mark.slow
def test_the_whole_of_it_on_pocl(tmp_path: Path) -> None:
    if os.environ.get("GPUSCHED_TEST_OPENCL") != "1":
        pytest.skip("GPUSCHED_TEST_OPENCL=1 (with PoCL installed) trains on OpenCL; the first time takes half a minute")
    allowed = ("--set", "devices.allow_cpu_opencl=true", "--deadline", "280")
    said = verdicts(proof(tmp_path, "checks", "contexts", "auto", "--device", "gpu", *allowed).stdout)
    assert "what a context costs" in said["ok"]
    assert any(what.startswith("1d: auto came to cpu") for what in said["ok"])
    assert [what for what in said["FAILS"] if not what.startswith("NVML lists our processes")] == []
