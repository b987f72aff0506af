"""The proof for the owner of a GPU, rehearsed on GPUs that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpus.bench import Bench, OutOfTime
from benchmarks.gpus.proof import Proof
from benchmarks.gpus.tables import write
from gpusched.devices.nvidia.readings import in_initial_pid_namespace
from tests.devices.fake_cuda import FakeCuda
from tests.devices.fake_nvml import FakeNvml

REPOSITORY = Path(__file__).parents[2]


def proof(
    directory: Path, *arguments: str, gpus: int = 2, exclusive: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Without `CUDA_VISIBLE_DEVICES`, on GPUs of the fake, each of 1000 MiB of which a CUDA context takes 100."""
    nvml = FakeNvml(directory).gpus(gpus)
    cuda = FakeCuda(directory).memory(1000, 100, nvml)
    if exclusive:
        cuda.exclusive(nvml)
    libraries = ":".join(fake.environment["LD_LIBRARY_PATH"] for fake in (nvml, cuda))
    fakes = nvml.environment | cuda.environment | {"LD_LIBRARY_PATH": libraries, "TMPDIR": str(directory)}
    inherited = {name: text for name, text in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpus", "--quick", *arguments],
        cwd=REPOSITORY,
        env=inherited | fakes | environment,
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


WRITES = ("--set", "run.workload=tests.devices.workloads:takes_a_while")


@pytest.mark.thorough
def test_says_of_each_thing_whether_it_holds_here(tmp_path: Path) -> None:
    """A workload that trains nothing, and a LightGBM without CUDA."""
    parts = ("machine", "checks", "daily", "same", "baseline", "room", "opencl")
    asked = (*parts, *WRITES, "--set", "devices.allow_cpu_opencl=true", "--opencl", str(tmp_path))
    path = tmp_path / "proof.json"
    trials = json.dumps({"cuda": "not in this build"})
    ended = proof(tmp_path, *asked, "--json", str(path), "--deadline", "280", TRIALS=trials)
    assert "Traceback" not in ended.stderr
    said = verdicts(ended.stdout)
    assert any(what.startswith("NVML shows 2 devices ") for what in said["ok"])
    assert any("no window can be trained with device type cuda here" in what for what in said["?"])
    assert any("cuda does not work (not in this build)" in what for what in said["?"])
    assert "device types that train: gpu" in said["ok"]
    assert "gpu-1d: one window, trained 4 times beside others, 4 times alone: 1 different models" in said["ok"]
    assert any(what.startswith("gpu-1d-1: 7 windows, ") for what in said["?"])
    assert any(what.startswith("an interpreter for every window, 2 at once: ") for what in said["?"])
    # windows of OpenCL hold no memory of the fake's
    unknown = ["NVML lists our processes where they were placed: {"] if in_initial_pid_namespace() else []
    assert [what.partition("{")[0] + "{" for what in said["FAILS"]] == unknown
    assert ended.returncode == len(unknown)
    assert "| gpu-1d-1 | 1 | 7 | " in ended.stdout
    written = json.loads(path.read_text())
    assert list(written["parts"]) == list(parts)
    measured = written["parts"]["daily"]["result"]["gpu-1d-1"]
    assert measured["windows"] == 7
    assert measured["refill_ms"] > 0
    claims = [(one["verdict"], one["claim"]) for one in written["claims"]]
    assert claims.count(("ok", "device types that train: gpu")) == 1


@pytest.mark.thorough
def test_contexts_and_a_card_that_others_fill(tmp_path: Path) -> None:
    """By the fake CUDA driver, whose memory runs out; this LightGBM has no CUDA, which costs the contexts nothing."""
    path = tmp_path / "proof.json"
    asked = ("checks", "contexts", "room", "--device", "cuda", *WRITES, "--deadline", "280", "--json", str(path))
    ended = proof(tmp_path, *asked, gpus=1)
    said = verdicts(ended.stdout)
    assert (said["FAILS"], ended.returncode) == ([], 0)
    assert "what a context costs" in said["ok"]
    assert "CUDA's own enumeration shows each window the device of its slot, and no other" in said["ok"]
    assert any(what.startswith("full before (ready: 40 MiB are left): 0 windows trained") for what in said["ok"])
    parts = json.loads(path.read_text())["parts"]
    assert "out of memory" in parts["room"]["result"]["full before"]["error"]
    (alone,) = (one for name, one in parts["contexts"]["result"].items() if name == "1 at once")
    assert alone["median"]["context"] > 0
    if in_initial_pid_namespace():
        assert alone["median"]["context_mb"] == 101.0  # with the first allocation
    assert "| 1 at once | 0 | " in ended.stdout


@pytest.mark.thorough
def test_a_card_that_another_process_holds(tmp_path: Path) -> None:
    asked = ("room", "--device", "cuda", *WRITES, "--deadline", "280", "--json", str(tmp_path / "proof.json"))
    ended = proof(tmp_path, *asked, gpus=1, exclusive=True)
    said = verdicts(ended.stdout)
    assert (said["FAILS"], ended.returncode) == ([], 0)
    assert any(what.startswith("busy before (ready: ") for what in said["ok"])
    (held,) = json.loads((tmp_path / "proof.json").read_text())["parts"]["room"]["result"].values()
    assert "CUDA-capable device(s) is/are busy or unavailable" in held["error"]


def test_a_part_that_fails_or_is_interrupted_leaves_the_others_and_the_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (), 100.0)
    told = Proof(bench, ("cuda",))

    def breaks(proof: Proof, result: dict[str, Any]) -> None:
        result["before"] = 1
        raise KeyError("a bug")

    def late(proof: Proof, result: dict[str, Any]) -> None:
        result["before"] = 2
        assert 25 < bench.left() <= 50
        raise OutOfTime

    def stopped(proof: Proof, result: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    told.prove("breaks", breaks, 0.5)
    told.prove("late", late, 0.5)
    with pytest.raises(KeyboardInterrupt):
        told.prove("stopped", stopped, 1.0)
    write(told, tmp_path / "proof.json")
    written = json.loads((tmp_path / "proof.json").read_text())
    assert [(name, part["result"], part["error"]) for name, part in written["parts"].items()] == [
        ("breaks", {"before": 1}, "KeyError: 'a bug'"),
        ("late", {"before": 2}, "no time is left"),
        ("stopped", {}, "interrupted (KeyboardInterrupt)"),
    ]
    assert [claim["verdict"] for claim in written["claims"]] == ["FAILS", "?"]
    assert written["table"][1].startswith("no GPU; ")


def test_what_it_has_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def interrupted(*_: object, **__: object) -> None:
        fifo.read_text()  # the command has begun
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    waits = "import os, signal, sys; os.close(os.open(sys.argv[1], os.O_WRONLY)); signal.pause()"
    with pytest.raises(KeyboardInterrupt):
        Bench(tmp_path, (), 100.0).call([sys.executable, "-c", waits, str(fifo)], 60, "cpu")


def test_without_a_gpu_it_says_so_and_leaves_a_file(tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    ended = proof(tmp_path, "--json", str(path), gpus=0)
    assert ended.returncode == 1
    assert json.loads(path.read_text())["parts"]["machine"]["result"]["devices"] == []


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
