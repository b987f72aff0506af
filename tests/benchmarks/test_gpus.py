"""The command for the owner of a GPU, on GPUs that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from gpusched.daemon.readings import in_initial_pid_namespace
from tests.devices.fake_nvml import GIB, FakeNvml

REPOSITORY = Path(__file__).parents[2]


def test_says_of_each_thing_whether_it_holds_here(tmp_path: Path) -> None:
    """Five windows a run, and a LightGBM without CUDA."""
    fake = FakeNvml(tmp_path).gpus(2, accounting=1, accounted=f"*:{GIB}:500:50")
    environment = {name: text for name, text in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= fake.environment | {"TRIALS": json.dumps({"cuda": "not in this build"}), "TMPDIR": str(tmp_path)}
    settings = ("run.workload=tests.devices.workloads:writes", "windows.days=5000")
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpus", *(text for setting in settings for text in ("--set", setting))],
        cwd=REPOSITORY,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "Traceback" not in ended.stderr
    said: dict[str, list[str]] = {verdict: [] for verdict in ("ok", "FAILS", "?")}
    for line in ended.stdout.splitlines():
        verdict, _, what = line.partition(" ")
        said.get(verdict, []).append(what.strip())
    assert any(what.startswith("NVML shows 2 devices ") for what in said["ok"])
    assert "cuda does not work (not in this build)" in ended.stdout
    assert "no window can be trained with device type cuda here" in said["?"]
    assert "by device type: {'gpu': 5}" in said["ok"]
    assert "two trainings give the same files, byte for byte" in said["ok"]
    for slots in (1, 2, 4, 8):
        assert any(what.startswith(f"{slots} slot(s) a device: ") for what in said["ok"])
    assert any(what.startswith("slots tuned while running: ") for what in said["ok"])
    assert said["ok"][-1] == "device types that train: gpu"
    # the fake does not know who runs on it
    unknown = ["NVML lists our processes on the devices they were placed on: {"] if in_initial_pid_namespace() else []
    assert [what.partition("{")[0] + "{" for what in said["FAILS"]] == unknown
    assert ended.returncode == len(unknown)
