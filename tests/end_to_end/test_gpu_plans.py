"""Plans and choices where there are GPUs: which type, how long, and why."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter

import msgspec
import pytest

from gpusched.config import STATE_DIR
from gpusched.core.model import DeviceType
from gpusched.store.store import Store
from tests.devices.fake_nvml import VERSION_MISMATCH, uuid
from tests.end_to_end.machines import WINDOWS, Machine, details
from tests.end_to_end.support import index
from tests.waiting import PATIENCE_S


def test_the_mask_and_the_configuration_say_which(machine: Machine) -> None:
    machine.nvml.gpus(4)
    machine.environment["CUDA_VISIBLE_DEVICES"] = "1,2,3"
    machine("run", *machine.asked("until_told", **{"devices.exclude": '["03:00.0"]'}))
    # nothing keeps the one device from all the work while the other starts
    assert {window["device"] for window in details(machine.directory / "out")} <= {uuid(1), uuid(3)}


@pytest.mark.thorough
def test_a_gpu_on_which_nothing_trains_is_told_and_the_processors_work(machine: Machine) -> None:
    machine.environment["TRIALS"] = json.dumps({"cuda": "too old", "gpu": "No OpenCL device found"})
    out = machine("run", *machine.asked("until_told", **{"run.device": "mixed"}))
    assert "is not used: cuda does not work (too old), gpu does not work (No OpenCL device found)" in " ".join(
        out.split()
    )
    assert {window["device"] for window in details(machine.directory / "out")} == {"cpu"}
    for command in ("plan", "run"):
        for device in ("gpu", "cuda"):
            _, err = machine.said(command, *machine.asked("until_told"), "--device", device, code=4)
            assert f"no {device} device can be used here" in err


@pytest.mark.parametrize("device_type", ["cuda", pytest.param("gpu", marks=pytest.mark.thorough)])
def test_a_device_type_that_trains_can_be_asked_for(machine: Machine, device_type: str) -> None:
    asked = (*machine.asked("until_told"), "--device", device_type)
    assert machine.json("plan", *asked)["totals"]["train"] == WINDOWS
    assert machine.json("run", *asked)["windows"]["succeeded"] == WINDOWS
    assert {window["device_type"] for window in details(machine.directory / "out")} == {device_type}


@pytest.mark.parametrize("command", ["plan", pytest.param("run", marks=pytest.mark.thorough)])
def test_without_a_gpu_and_without_a_fallback_the_reason_is_the_error(machine: Machine, command: str) -> None:
    machine.nvml.fail("nvmlInitWithFlags", VERSION_MISMATCH)
    asked = (command, *machine.asked("until_told", **{"run.device": "auto"}))
    out, err = machine.said(*asked, "--set", "devices.fallback=none", code=4)
    assert "no GPU device can be used here: the NVIDIA driver's library and kernel module are of different" in err
    assert "succeeded" not in out
    assert not (machine.directory / "out" / "teacher_runs.json").exists()
    # and with the fallback it is a note
    out, err = machine.said(*asked)
    assert "library and kernel module are of different versions" in " ".join((out + err).split())


def test_processors_and_gpus_work_together_in_a_mixed_batch(machine: Machine) -> None:
    machine.nvml.gpus(1)
    held = machine.directory / "data" / f"held-{uuid(0)}"
    os.mkfifo(held)
    with machine.start(
        "run", *machine.asked("until_told", **{"devices.cpu_slots": 1, "run.device": "mixed"})
    ) as process:
        assert process.stdout is not None
        # the FIFO opens when the GPU is at work, and its window ends when the processors have done all the others
        with held.open("w"):
            for line in process.stdout:
                if line.startswith(f"[{WINDOWS - 1}/{WINDOWS}]"):
                    break
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, (out, err)
    used = Counter((window["device"], window["device_type"]) for window in details(machine.directory / "out"))
    assert used == {(uuid(0), "cuda"): 1, ("cpu", "cpu"): WINDOWS - 1}


@pytest.mark.thorough
def test_a_plan_for_both_expects_what_windows_took_on_the_gpus(machine: Machine) -> None:
    asked = machine.asked("until_told", **{"devices.cpu_slots": 1, "run.device": "mixed"})
    machine("run", *asked)
    with Store.open(machine.directory / "out" / STATE_DIR / "state.db") as store:
        row = store.learned()[0]
        seen: dict[DeviceType, float] = {"cpu": 100.0, "cuda": 1.0}
        store.record(
            (),
            [
                msgspec.structs.replace(row, device_type=device_type, seconds_mean=seconds)
                for device_type, seconds in seen.items()
            ],
        )
    # three slots, four windows each
    for line in index(machine.directory / "out"):
        shutil.rmtree(line["artifacts_path"])
    assert machine.json("plan", *asked)["estimated_seconds"] == 4.0
