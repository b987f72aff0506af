"""GPUs that fail, vanish, are full or refuse a context while windows run on them."""

from __future__ import annotations

import json
import os

import pytest

from tests.devices.fake_cuda import DEVICE_UNAVAILABLE, ECC_UNCORRECTABLE, NO_DEVICE, OUT_OF_MEMORY, UNKNOWN
from tests.devices.fake_nvml import XID, uuid
from tests.end_to_end.machines import WINDOWS, CudaMachine, Machine, details, failures
from tests.end_to_end.support import index
from tests.waiting import PATIENCE_S


@pytest.mark.thorough
def test_a_window_that_gets_another_device_fails_and_closes_the_one_it_was_promised(cuda_machine: CudaMachine) -> None:
    cuda_machine.environment["FAKE_CUDA_MISTAKES"] = uuid(1)  # the warm-up tries GPU 0, which is of the same model
    ended = cuda_machine.json("run", *cuda_machine.asked("until_told", **{"run.max_attempts": 1}))
    assert ended["windows"]["succeeded"] == WINDOWS
    assert {window["device"] for window in details(cuda_machine.directory / "out")} == {uuid(0)}
    # the first one on GPU 1 found out
    assert sorted(line["attempts"] for line in index(cuda_machine.directory / "out")) == [1] * (WINDOWS - 1) + [2]


@pytest.mark.thorough
def test_a_warm_up_that_gets_no_device_rules_out_the_model(cuda_machine: CudaMachine) -> None:
    cuda_machine.environment["FAKE_CUDA_SHOWS"] = ""
    out = cuda_machine("run", *cuda_machine.asked("until_told", **{"run.device": "mixed"}))
    assert "cuda does not work (CudaError: no CUDA-capable device is detected: cuInit returned" in " ".join(out.split())
    assert {window["device"] for window in details(cuda_machine.directory / "out")} == {"cpu"}


@pytest.mark.thorough
def test_a_gpu_whose_memory_is_full_at_the_start_is_told_with_the_drivers_reason(cuda_machine: CudaMachine) -> None:
    cuda_machine.cuda.fail("cuDevicePrimaryCtxRetain", OUT_OF_MEMORY)
    cuda_machine.environment["TRIALS"] = json.dumps({"cuda": "crash", "gpu": "No OpenCL device found"})
    out = " ".join(cuda_machine("run", *cuda_machine.asked("until_told", **{"run.device": "mixed"})).split())
    assert "cuda does not work (CudaError: out of memory: cuDevicePrimaryCtxRetain returned" in out
    assert "signal" not in out
    assert {window["device"] for window in details(cuda_machine.directory / "out")} == {"cpu"}


@pytest.mark.parametrize(
    ("error", "kind", "times", "words"),
    [
        pytest.param(OUT_OF_MEMORY, "device_memory", 3, "out of memory", marks=pytest.mark.thorough),
        (DEVICE_UNAVAILABLE, "device_lost", None, "CUDA-capable device(s) is/are busy or unavailable"),
        pytest.param(
            ECC_UNCORRECTABLE, "device_lost", None, "uncorrectable ECC error encountered", marks=pytest.mark.thorough
        ),
        pytest.param(NO_DEVICE, "device_lost", None, "no CUDA-capable device is detected", marks=pytest.mark.thorough),
        pytest.param(UNKNOWN, "device_lost", None, "unknown error", marks=pytest.mark.thorough),
    ],
)
def test_a_context_that_is_refused_costs_no_attempt(
    cuda_machine: CudaMachine, error: int, kind: str, times: int | None, words: str
) -> None:
    """By the second GPU, whose model works on the first."""
    cuda_machine.cuda.fail("cuDevicePrimaryCtxRetain", error, uuid(1), times=times)
    asked = cuda_machine.asked("until_told", **{"run.max_attempts": 1, "run.breaker_failures": 1, "run.backoff_s": 0})
    assert cuda_machine.json("run", *asked)["windows"]["succeeded"] == WINDOWS
    ended = {(ending, message.partition(": cu")[0]) for ending, message in failures(cuda_machine.directory / "out")}
    assert ended == {(kind, f"CudaError: {words}")}
    if kind == "device_lost":
        assert {window["device"] for window in details(cuda_machine.directory / "out")} == {uuid(0)}


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("out of memory", "device_memory"),
        pytest.param("an illegal memory access was encountered", "crashed", marks=pytest.mark.thorough),
    ],
)
def test_what_lightgbm_said_before_it_died_decides(machine: Machine, words: str, kind: str) -> None:
    machine.environment["FAILURE"] = words
    asked = machine.asked(
        "aborts_first", **{"run.max_attempts": 1 if kind == "device_memory" else 2, "run.backoff_s": 0}
    )
    assert machine.json("run", *asked)["windows"]["succeeded"] == WINDOWS
    assert failures(machine.directory / "out") == {(kind, f"the process crashed (SIGABRT): [CUDA] {words}")}


@pytest.mark.thorough
def test_windows_of_a_lost_device_go_elsewhere_and_lose_no_attempt(machine: Machine) -> None:
    held = machine.directory / "data" / f"held-{uuid(1)}"
    os.mkfifo(held)
    asked = machine.asked("until_told", **{"run.max_attempts": 1})
    # the FIFO opens when a window on GPU 1 has opened its other end
    with machine.start("run", *asked, "--json") as process, held.open("w"):
        machine.nvml.event(1, XID, 79)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert json.loads(out)["windows"]["succeeded"] == WINDOWS
    assert {window["device"] for window in details(machine.directory / "out")} == {uuid(0)}
    assert sorted(line["attempts"] for line in index(machine.directory / "out")) == [1] * (WINDOWS - 1) + [2]


def test_windows_of_a_vanished_device_go_elsewhere_and_lose_no_attempt(machine: Machine) -> None:
    held = machine.directory / "data" / f"held-{uuid(1)}"
    os.mkfifo(held)
    asked = machine.asked("until_told", **{"run.max_attempts": 1})
    with machine.start("run", *asked) as process, held.open("w"):
        machine.nvml.write(count=1)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "Device GPU-00000001 is gone: it is not there any more" in " ".join(out.split())
    assert {window["device"] for window in details(machine.directory / "out")} == {uuid(0)}
    assert sorted(line["attempts"] for line in index(machine.directory / "out")) == [1] * (WINDOWS - 1) + [2]


def test_out_of_memory_is_tried_again_at_no_cost(machine: Machine) -> None:
    machine.environment["FAILURE"] = "Memory Object Allocation Failure"
    ended = machine.json("run", *machine.asked("fails_first", **{"run.max_attempts": 1}))
    assert ended["windows"]["succeeded"] == WINDOWS
    assert {line["attempts"] for line in index(machine.directory / "out")} == {2}
    assert {window["device"] for window in details(machine.directory / "out")} <= {uuid(0), uuid(1)}


def test_a_run_whose_last_gpu_is_lost_ends_and_says_so(machine: Machine) -> None:
    machine.nvml.gpus(1)
    held = machine.directory / "data" / f"held-{uuid(0)}"
    os.mkfifo(held)
    with machine.start("run", *machine.asked("until_told")) as process, held.open("w"):
        machine.nvml.event(0, XID, 79)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, err
    assert "no device is left that could run it" in out
    assert "the GPU has fallen off the bus" in " ".join(out.split())
    # once it is there again, the same command does the rest
    machine.nvml.write(**{"event 1": None})
    held.unlink()
    assert machine.json("run", *machine.asked("until_told"))["windows"]["succeeded"] == WINDOWS


@pytest.mark.thorough
def test_a_run_waits_for_the_memory_of_others_and_says_so(machine: Machine) -> None:
    for gpu in (0, 1):
        machine.nvml.set(gpu, memory_free=100 << 20)
    with machine.start("run", *machine.asked("until_told"), "--json") as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        machine.nvml.set(1, memory_free=40 << 30)
        out, _ = process.communicate(timeout=PATIENCE_S)
    full = f"{uuid(0)} has 100 MiB free, {uuid(1)} has 100 MiB free"
    assert told == f"Waiting for memory that other processes use: {full}\n"
    assert json.loads(out)["windows"]["succeeded"] == WINDOWS
    assert {window["device"] for window in details(machine.directory / "out")} == {uuid(1)}
