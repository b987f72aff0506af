"""`--device auto`: the device type that has the batch done first, found out by training a window on each."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from gpusched.config import STATE_DIR
from gpusched.store.store import Store
from tests.devices.fake_nvml import FakeNvml
from tests.end_to_end.machines import WINDOWS, Machine, details, service
from tests.end_to_end.support import Command

#: long enough that the trial of a GPU, on a busy machine, is over before its chance is
SLOW_S = 3.0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.environment["TRIALS"] = json.dumps({"gpu": "No OpenCL device found"})
    return made


def paced(machine: Machine, *, cpu: float, cuda: float) -> list[str]:
    machine.environment["PACE"] = json.dumps({"cpu": cpu, "cuda": cuda})
    return machine.asked("paced", **{"run.device": "auto"})


def ran(machine: Machine) -> Counter[tuple[str, bool]]:
    """How often a window of each device type was trained, and whether into the output directory."""
    log = machine.directory / "data" / "paced"
    lines = (line.partition(" ") for line in log.read_text().splitlines()) if log.exists() else ()
    log.unlink(missing_ok=True)
    return Counter((kind, "/gpusched-timing-" not in where) for kind, _, where in lines)


@pytest.mark.parametrize(
    ("faster", "slower", "where"),
    [pytest.param("cpu", "cuda", "the CPU", marks=pytest.mark.thorough), ("cuda", "cpu", "the GPUs")],
)
def test_a_run_takes_the_faster_type_for_all_windows_and_says_so(
    machine: Machine, faster: str, slower: str, where: str
) -> None:
    asked = paced(machine, **{faster: 0.0, slower: SLOW_S})
    out = " ".join(machine("run", *asked).split())
    assert f". Training on {where}" in out
    assert f"--device {slower} to insist" in out
    trained = ran(machine)
    assert trained[faster, True] == WINDOWS
    assert trained[slower, True] == 0
    assert trained[faster, False] > 0
    assert {window["device_type"] for window in details(machine.directory / "out")} == {faster}
    assert not list((machine.directory / "out" / STATE_DIR).glob("gpusched-timing-*/"))
    # the timings are kept: nothing is timed again, here for a plan
    foreseen = machine.json("plan", *asked)
    assert foreseen["device"] == faster
    assert f"Training on {where}" in foreseen["device_choice"]["reason"]
    # GPUs whose trial takes longer than they could gain are not waited for.
    expected = {one["device_type"] for one in foreseen["device_choice"]["expected"]}
    assert {faster} <= expected <= {"cpu", "cuda"}
    assert not ran(machine)


@pytest.mark.thorough
def test_a_daemon_stores_the_choice_with_the_batch(machine: Machine) -> None:
    asked = paced(machine, cpu=0.0, cuda=SLOW_S)
    with service(machine, *asked[asked.index("--set") :]):
        _, err = machine.said("submit", *asked, "--name", "mine", "--wait")
        assert "Training on the CPU" in " ".join(err.split())
        status = machine.json("status", "mine")
        assert status["device"] == "cpu"
        assert status["device_choice"]["reason"].endswith("Training on the CPU; --device cuda to insist")
        label = "S0_2022-01-01_to_2022-01-10"
        assert machine.json("show", f"mine/{label}")["batch"]["device"] == "cpu"
        assert "Device   cpu: CPU: " in machine("show", f"mine/{label}")
        ran(machine)
        other = ["other" if text == "out" else text for text in asked]
        machine("submit", *other, "--name", "again", "--wait")
        assert {kind for (kind, _), _ in ran(machine).items()} == {"cpu"}
    with Store.open(machine.directory / "state" / "state.db") as store:
        batch = store.accepted("again")
        assert batch is not None
        assert batch.choice is not None
        assert (batch.spec.device, batch.choice.device) == ("auto", "cpu")


@pytest.mark.thorough
def test_a_batch_keeps_the_type_of_the_results_that_are_there(machine: Machine) -> None:
    asked = machine.asked("-", **{"run.device": "auto", "run.workload": "tests.devices.reusable:window"})
    machine("run", *asked, "--device", "cuda", "--end", "2022-01-10")
    out = " ".join(machine("run", *asked).split())
    assert "6 windows were trained with CUDA before: so are the others" in out
    assert {window["device_type"] for window in details(machine.directory / "out")} == {"cuda"}


@pytest.mark.thorough
def test_where_there_is_nothing_to_choose_nothing_is_timed_and_nothing_is_said(machine: Machine) -> None:
    machine.nvml.gpus(0)
    out = machine("run", *paced(machine, cpu=0.0, cuda=0.0))
    assert "Training on" not in out
    assert ran(machine) == {("cpu", True): WINDOWS}
    assert machine.json("plan", *paced(machine, cpu=0.0, cuda=0.0))["device_choice"]["reason"] == ""


def test_a_timing_that_fails_decides_against_its_type(machine: Machine) -> None:
    machine.environment["PACE"] = json.dumps({"cpu": 0.0})  # a KeyError with CUDA
    out = machine("run", *machine.asked("paced", **{"run.device": "auto"}))
    assert "Training on the CPU" in out
    assert ran(machine)["cpu", True] == WINDOWS


@pytest.mark.slow
def test_auto_is_right_on_pocl_against_the_processors(gpusched: Command) -> None:
    if os.environ.get("GPUSCHED_TEST_OPENCL") != "1":
        pytest.skip("GPUSCHED_TEST_OPENCL=1 (with PoCL installed) trains on OpenCL; the first time takes half a minute")
    gpusched.environment |= FakeNvml(gpusched.directory).gpus(2).environment
    allowed = ("--set", "devices.allow_cpu_opencl=true")
    seconds = {
        device: gpusched.json("run", "symbols.txt", "-o", device, "--device", device, *allowed)["seconds"]
        for device in ("gpu", "cpu")
    }
    with gpusched.start("run", "symbols.txt", "-o", "out", "--device", "auto", *allowed, "--json") as process:
        out, err = process.communicate(timeout=240)
    ended = json.loads(out)
    assert ended["windows"]["succeeded"] == ended["windows"]["total"]
    fastest = min(seconds, key=lambda device: seconds[device])
    assert {window["device_type"] for window in details(gpusched.directory / "out")} == {fastest}, (seconds, err)
    # their trial takes longer than the batch, or a window does
    assert "OpenCL: " in err or "still being tried" in err
    assert ended["seconds"] < min(seconds.values()) + 6.0
