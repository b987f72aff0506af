"""`gpusched run` on a machine with GPUs: those of the fake NVML library, which the real pynvml loads."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpusched import artifacts
from gpusched.client.connection import connect
from gpusched.config import STATE_DIR
from gpusched.core.estimates import Estimate
from gpusched.core.model import DeviceType
from gpusched.devices.nvidia.readings import in_initial_pid_namespace
from gpusched.protocol import Delta, DeviceReported, Snapshot
from gpusched.store.store import Store
from tests.devices.fake_cuda import DEVICE_UNAVAILABLE, ECC_UNCORRECTABLE, OUT_OF_MEMORY, FakeCuda
from tests.devices.fake_nvml import GIB, VERSION_MISMATCH, XID, FakeNvml, uuid
from tests.end_to_end.support import Command, check_sound, hashes, index
from tests.server.support import Daemon, until

#: 6 symbols × 2 windows
ASKED = ("symbols.txt", "-o", "out", "--data-root", "data", "--start", "2022-01-01", "--end", "2022-01-20")
DAYS = ("--window-days", "10")
WINDOWS = 12


class Machine(Command):
    """The command where there are two GPUs, for windows of 6 symbols."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.nvml = FakeNvml(directory).gpus(2)
        # by the environment, since a batch cannot ask a daemon for other slots
        self.environment |= self.nvml.environment | {"GPUSCHED_DEVICES_SLOTS": "1"}
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)
        (directory / "data").mkdir()
        (directory / "symbols.txt").write_text("".join(f"S{number}\n" for number in range(6)))

    def asked(self, workload: str, **settings: object) -> list[str]:
        settings = {
            "run.workload": f"tests.devices.workloads:{workload}",
            "run.device": "cuda",
        } | settings
        return [*ASKED, *DAYS, *(text for key, value in settings.items() for text in ("--set", f"{key}={value}"))]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def details(output: Path) -> list[dict[str, Any]]:
    """The view of each window, with the device that it was given."""
    found = []
    for line in index(output):
        metadata = artifacts.read_metadata(Path(line["artifacts_path"]))
        assert metadata is not None
        found.append(
            metadata.details
            | {"device": metadata.device, "device_type": metadata.device_type, "device_seen": metadata.device_seen}
        )
    return found


def failures(output: Path) -> set[tuple[str, str]]:
    """The kinds and messages of failure of all attempts."""
    with Store.open(output / STATE_DIR / "state.db") as store:
        keys = [row.key for batch in store.batches() for row in store.windows(batch.id)]
        ended = (attempt for key in keys for attempt in store.attempts(key))
        return {(attempt.ending, attempt.message) for attempt in ended if attempt.ending and attempt.message}


def test_every_window_sees_its_device_and_no_other(cuda_machine: CudaMachine) -> None:
    machine = cuda_machine
    cores = sorted(os.sched_getaffinity(0))
    near = [cores[0], cores[-1]]
    for gpu, core in enumerate(near):
        machine.nvml.set(gpu, cpus=" ".join(f"{1 << core >> 64 * word & (1 << 64) - 1:x}" for word in range(16)))
        os.mkfifo(machine.directory / "data" / f"pair-{uuid(gpu)}")
    ended = machine.json("run", *machine.asked("in_pairs"))
    assert ended["windows"]["succeeded"] == WINDOWS
    seen = details(machine.directory / "out")
    for window in seen:
        kernels = machine.directory / "cache" / "gpusched" / "kernels"
        threads = str(window["threads"])
        assert window["environment"] == {
            "CUDA_VISIBLE_DEVICES": window["device"],
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",
            "POCL_CACHE_DIR": str(kernels / "pocl"),
            "CUDA_CACHE_PATH": str(kernels / "cuda"),
        }
        assert window["device_type"] == "cuda"
        assert window["device_seen"] == window["device"]
        if len(cores) > 1:
            assert window["affinity"] == [near[0] if window["device"] == uuid(0) else near[1]]
    # each window waited for one on the other device: both work at the same time, and neither more than the other
    assert Counter(window["device"] for window in seen) == {uuid(0): WINDOWS // 2, uuid(1): WINDOWS // 2}


@contextlib.contextmanager
def service(machine: Machine, *settings: str) -> Iterator[Path]:
    """A daemon on the machine, for its commands; the socket."""
    socket, state = machine.directory / "s", machine.directory / "state"
    daemon = Daemon(machine.directory / "notices")
    machine.environment |= {"GPUSCHED_SOCKET": str(socket), "STATE_DIRECTORY": str(state)}
    machine.environment["NOTIFY_SOCKET"] = daemon.listen()
    with daemon.notices, machine.start("daemon", *settings) as process, contextlib.ExitStack() as stack:
        stack.callback(process.terminate)
        daemon.wait_for_notice("READY=1")
        yield socket


def test_the_service_sees_its_devices_and_takes_a_mended_one_back(machine: Machine) -> None:
    asked = machine.asked("until_told", **{"run.max_attempts": 1})
    held = machine.directory / "data" / f"held-{uuid(1)}"
    os.mkfifo(held)
    with service(machine, *asked[asked.index("--set") :]):
        with machine.start("submit", *asked, "--wait") as submit, held.open("w"):
            machine.nvml.event(1, XID, 79)
            out, err = submit.communicate(timeout=60)
        assert submit.returncode == 0, (out, err)
        first, lost, cpu = machine.json("devices")["devices"]
        assert (first["id"], first["health"], first["pci_bus_id"]) == (uuid(0), "open", "0000:01:00.0")
        assert (lost["health"], lost["reason"]) == ("quarantined", "XID 79: the GPU has fallen off the bus")
        assert (cpu["id"], cpu["auto"]) == ("cpu", True)
        assert {line["attempts"] for line in index(machine.directory / "out")} == {1, 2}
        machine.nvml.write(**{"event 1": None})
        held.unlink()
        (opened,) = machine.json("resume", "02:00.0")["devices"]
        assert (opened["id"], opened["health"]) == (uuid(1), "open")
        (drained,) = machine.json("drain", "GPU-00000000")["devices"]
        assert (drained["id"], drained["health"]) == (uuid(0), "draining")
        again = ["again" if text == "out" else text for text in asked]
        machine("submit", *again, "--name", "again", "--wait")
        assert {window["device"] for window in details(machine.directory / "again")} == {uuid(1)}


def test_what_the_service_tells_of_a_device_at_work(machine: Machine) -> None:
    asked = machine.asked("until_told")
    learned = Estimate(
        workload="tests.devices.workloads:until_told",
        device_type="cuda",
        bucket=0,
        count=1,
        memory_count=1,
        memory_max=3 * GIB,
    )
    with Store.open(machine.directory / "state" / "state.db") as store:
        store.learn([learned])
    held = machine.directory / "data" / f"held-{uuid(1)}"
    os.mkfifo(held)
    foreign = 2 * GIB if in_initial_pid_namespace() else None
    with service(machine, *asked[asked.index("--set") :]) as socket:
        with machine.start("submit", *asked, "--name", "mine", "--wait") as submit, held.open("w"):
            machine.nvml.set(
                1, processes=f"1:{2 * GIB}", memory_free=20 * GIB, utilisation=57, temperature=61, power=212_000
            )

            def read(delta: Delta | Snapshot) -> bool:
                """All of it, not half before the change."""
                return isinstance(delta, DeviceReported) and delta.reading == msgspec.structs.replace(
                    delta.reading,
                    process_memory_bytes=None if foreign is None else {1: foreign},
                    memory_free_bytes=20 * GIB,
                    utilisation=0.57,
                    temperature_c=61,
                    power_w=212,
                    device_id=uuid(1),
                )

            with connect(socket) as connection:
                until(connection.subscribe(), read)
            told = machine.json("devices")["devices"][1]
            row = list(csv.DictReader(machine("devices").splitlines(), delimiter="\t"))[1]
        submit.communicate(timeout=60)
    assert (told["id"], told["slots"], told["slots_used"], told["health"]) == (uuid(1), 1, 1, "open")
    assert (told["memory_used_bytes"], told["reserved_bytes"], told["foreign_bytes"]) == (28 * GIB, 3 * GIB, foreign)
    reading = told["reading"]
    assert (reading["memory_free_bytes"], reading["memory_total_bytes"]) == (20 * GIB, 48 * GIB)
    assert (reading["utilisation"], reading["temperature_c"], reading["power_w"]) == (0.57, 61, 212)
    (running,) = told["running"]
    assert running["window"] == "mine/S0_2022-01-11_to_2022-01-20"
    assert row == {
        "device": uuid(1),
        "name": "NVIDIA RTX 6000 Ada Generation",
        "health": "open",
        "slots": "1/1",
        "use": "57%",
        "used": "28672M",
        "free": "20480M",
        "reserved": "3072M",
        "foreign": "" if foreign is None else "2048M",
        "memory": "49152M",
        "temp": "61",
        "watt": "212",
        "reason": "",
        "running": running["window"],
    }
    # and it is kept for the batch's report
    with Store.open(machine.directory / "state" / "state.db") as store:
        # a mean with readings before the change
        assert any(one.utilisation for one in store.history("mine") if one.device_id == uuid(1))


def test_the_service_refuses_a_device_type_that_its_gpus_do_not_have(machine: Machine, tmp_path: Path) -> None:
    asked = machine.asked("until_told")
    machine.environment |= {"GPUSCHED_SOCKET": str(tmp_path / "s"), "STATE_DIRECTORY": str(tmp_path / "state")}
    machine.environment["TRIALS"] = json.dumps({"gpu": "No OpenCL device found"})
    daemon = Daemon(tmp_path / "notices")
    machine.environment["NOTIFY_SOCKET"] = daemon.listen()
    with (
        daemon.notices,
        machine.start("daemon", *asked[asked.index("--set") :]) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(process.terminate)
        daemon.wait_for_notice("READY=1")
        with machine.start("submit", *asked, "--device", "gpu") as submit:
            _, err = submit.communicate(timeout=60)
        assert submit.returncode == 4, err
        assert "no gpu device can be used here" in err
        assert "gpu does not work (No OpenCL device found)" in " ".join(err.split())
        assert {device["health"] for device in machine.json("devices")["devices"]} == {"open"}
        machine("submit", *asked, "--device", "cuda", "--wait")
        assert {window["device_type"] for window in details(machine.directory / "out")} == {"cuda"}


def test_the_service_is_ready_while_it_tries_and_a_batch_waits_for_that(machine: Machine, tmp_path: Path) -> None:
    fifo = tmp_path / "trial"
    os.mkfifo(fifo)
    machine.environment["TRIALS"] = json.dumps({"cuda": f"wait for {fifo}"})
    asked = machine.asked("until_told")
    # the FIFO opens when the trial has opened its other end
    with service(machine, *asked[asked.index("--set") :]), fifo.open("w") as trial:
        found = {device["id"]: device["health"] for device in machine.json("devices")["devices"]}
        assert found == {uuid(0): "trying", uuid(1): "trying", "cpu": "open"}
        assert machine.json("status")["daemon"]["trying"].startswith(f"{uuid(0)} (")
        assert f"trying {uuid(0)} (" in machine.said("status")[1]
        assert "trying (" in machine("top", "--once")
        machine("submit", *asked, "--device", "cpu", "--name", "meanwhile", "--wait", "-o", "meanwhile")
        with machine.start("submit", *asked, "--device", "cuda", "--wait") as submit:
            assert submit.stderr is not None
            told = submit.stderr.readline()
            trial.close()
            out, err = submit.communicate(timeout=60)
        assert submit.returncode == 0, (out, err)
        assert told.startswith(f"Waiting: trying {uuid(0)} (")
    assert {window["device_type"] for window in details(machine.directory / "out")} == {"cuda"}


def test_a_window_that_gets_another_device_fails_and_closes_the_one_it_was_promised(cuda_machine: CudaMachine) -> None:
    cuda_machine.environment["FAKE_CUDA_MISTAKES"] = uuid(1)  # the warm-up tries GPU 0, which is of the same model
    ended = cuda_machine.json("run", *cuda_machine.asked("until_told", **{"run.max_attempts": 1}))
    assert ended["windows"]["succeeded"] == WINDOWS
    assert {window["device"] for window in details(cuda_machine.directory / "out")} == {uuid(0)}
    # the first one on GPU 1 found out
    assert sorted(line["attempts"] for line in index(cuda_machine.directory / "out")) == [1] * (WINDOWS - 1) + [2]


def test_a_warm_up_that_gets_no_device_rules_out_the_model(cuda_machine: CudaMachine) -> None:
    cuda_machine.environment["FAKE_CUDA_SHOWS"] = ""
    out = cuda_machine("run", *cuda_machine.asked("until_told", **{"run.device": "mixed"}))
    assert "cuda does not work (CudaError: no CUDA-capable device is detected: cuInit returned" in " ".join(out.split())
    assert {window["device"] for window in details(cuda_machine.directory / "out")} == {"cpu"}


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
        (OUT_OF_MEMORY, "device_memory", 3, "out of memory"),
        (DEVICE_UNAVAILABLE, "device_lost", None, "CUDA-capable device(s) is/are busy or unavailable"),
        (ECC_UNCORRECTABLE, "device_lost", None, "uncorrectable ECC error encountered"),
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
    [("out of memory", "device_memory"), ("an illegal memory access was encountered", "crashed")],
)
def test_what_lightgbm_said_before_it_died_decides(machine: Machine, words: str, kind: str) -> None:
    machine.environment["FAILURE"] = words
    asked = machine.asked(
        "aborts_first", **{"run.max_attempts": 1 if kind == "device_memory" else 2, "run.backoff_s": 0}
    )
    assert machine.json("run", *asked)["windows"]["succeeded"] == WINDOWS
    assert failures(machine.directory / "out") == {(kind, f"the process crashed (SIGABRT): [CUDA] {words}")}


class CudaMachine(Machine):
    """With a CUDA driver."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.cuda = FakeCuda(directory)
        libraries = [self.environment["LD_LIBRARY_PATH"], self.cuda.environment["LD_LIBRARY_PATH"]]
        self.environment |= self.cuda.environment | {"LD_LIBRARY_PATH": ":".join(libraries)}


@pytest.fixture
def cuda_machine(tmp_path: Path) -> CudaMachine:
    return CudaMachine(tmp_path)


def test_windows_of_a_lost_device_go_elsewhere_and_lose_no_attempt(machine: Machine) -> None:
    held = machine.directory / "data" / f"held-{uuid(1)}"
    os.mkfifo(held)
    asked = machine.asked("until_told", **{"run.max_attempts": 1})
    # the FIFO opens when a window on GPU 1 has opened its other end
    with machine.start("run", *asked, "--json") as process, held.open("w"):
        machine.nvml.event(1, XID, 79)
        out, err = process.communicate(timeout=60)
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
        out, err = process.communicate(timeout=60)
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
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "no device is left that could run it" in out
    assert "the GPU has fallen off the bus" in " ".join(out.split())
    # once it is there again, the same command does the rest
    machine.nvml.write(**{"event 1": None})
    held.unlink()
    assert machine.json("run", *machine.asked("until_told"))["windows"]["succeeded"] == WINDOWS


def test_a_run_waits_for_the_memory_of_others_and_says_so(machine: Machine) -> None:
    for gpu in (0, 1):
        machine.nvml.set(gpu, memory_free=100 << 20)
    with machine.start("run", *machine.asked("until_told"), "--json") as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        machine.nvml.set(1, memory_free=40 << 30)
        out, _ = process.communicate(timeout=60)
    full = f"{uuid(0)} has 100 MiB free, {uuid(1)} has 100 MiB free"
    assert told == f"Waiting for memory that other processes use: {full}\n"
    assert json.loads(out)["windows"]["succeeded"] == WINDOWS
    assert {window["device"] for window in details(machine.directory / "out")} == {uuid(1)}


def test_the_mask_and_the_configuration_say_which(machine: Machine) -> None:
    machine.nvml.gpus(4)
    machine.environment["CUDA_VISIBLE_DEVICES"] = "1,2,3"
    machine("run", *machine.asked("until_told", **{"devices.exclude": '["03:00.0"]'}))
    # nothing keeps the one device from all the work while the other starts
    assert {window["device"] for window in details(machine.directory / "out")} <= {uuid(1), uuid(3)}


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


@pytest.mark.parametrize("device_type", ["cuda", "gpu"])
def test_a_device_type_that_trains_can_be_asked_for(machine: Machine, device_type: str) -> None:
    asked = (*machine.asked("until_told"), "--device", device_type)
    assert machine.json("plan", *asked)["totals"]["train"] == WINDOWS
    assert machine.json("run", *asked)["windows"]["succeeded"] == WINDOWS
    assert {window["device_type"] for window in details(machine.directory / "out")} == {device_type}


@pytest.mark.parametrize("command", ["plan", "run"])
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
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    used = Counter((window["device"], window["device_type"]) for window in details(machine.directory / "out"))
    assert used == {(uuid(0), "cuda"): 1, ("cpu", "cpu"): WINDOWS - 1}


def test_a_plan_for_both_expects_what_windows_took_on_the_gpus(machine: Machine) -> None:
    asked = machine.asked("until_told", **{"devices.cpu_slots": 1, "run.device": "mixed"})
    machine("run", *asked)
    with Store.open(machine.directory / "out" / STATE_DIR / "state.db") as store:
        row = store.learned()[0]
        seen: dict[DeviceType, float] = {"cpu": 100.0, "cuda": 1.0}
        store.learn(
            msgspec.structs.replace(row, device_type=device_type, seconds_mean=seconds)
            for device_type, seconds in seen.items()
        )
    # three slots, four windows each
    for line in index(machine.directory / "out"):
        shutil.rmtree(line["artifacts_path"])
    assert machine.json("plan", *asked)["estimated_seconds"] == 4.0


def test_the_daemon_says_which_gpus_it_does_not_use(machine: Machine) -> None:
    """Its LightGBM has no CUDA, and there is no OpenCL driver here."""
    daemon = Daemon(machine.directory / "daemon")
    no_drivers = {"OCL_ICD_VENDORS": str(machine.directory / "data")}
    daemon.start(environment=machine.nvml.environment | no_drivers)
    with connect(daemon.socket) as connection:
        until(connection.subscribe(), lambda _: all(healthy(daemon, number) == "quarantined" for number in range(2)))
    assert daemon.stop() == 0
    log = daemon.log.read_text()
    assert "NVIDIA RTX 6000 Ada Generation is not used: cuda does not work" in log


def healthy(daemon: Daemon, number: int) -> str:
    """The health of a GPU."""
    with connect(daemon.socket) as connection:
        return next(one.health for one in connection.devices() if one.device.id == uuid(number))


@pytest.mark.slow
def test_trains_on_two_gpus_by_opencl(sample_on_gpus: Command) -> None:
    """PoCL plays both GPUs: this proves the way of a window to OpenCL and back, not a GPU."""
    if os.environ.get("GPUSCHED_TEST_OPENCL") != "1":
        pytest.skip("GPUSCHED_TEST_OPENCL=1 (with PoCL installed) trains on OpenCL; the first time takes half a minute")
    asked = ("run", "symbols.txt", "-o", "out", "--device", "gpu", "--json")
    with sample_on_gpus.start(*asked) as process:
        _, err = process.communicate(timeout=240)
    assert process.returncode == 4, err
    assert "host's processors" in err
    with sample_on_gpus.start(*asked, "--set", "devices.allow_cpu_opencl=true") as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    windows = json.loads(out)["windows"]
    assert windows["succeeded"] == windows["total"] > 0
    assert any((sample_on_gpus.directory / "cache" / "gpusched" / "kernels" / "pocl").iterdir())
    output = sample_on_gpus.directory / "out"
    check_sound(output, windows["total"])
    seen = details(output)
    assert {window["device"] for window in seen} == {uuid(0), uuid(1)}
    for window in seen:
        assert window["device_type"] == window["parameters"]["device_type"] == "gpu"
        assert window["parameters"]["gpu_device_id"] == 0
        assert window["opencl_device"]
    allowed = ("--device", "gpu", "--set", "devices.allow_cpu_opencl=true")
    assert sample_on_gpus.json("plan", "symbols.txt", "-o", "out", *allowed)["totals"]["reuse"] == windows["total"]
    one = ("train", "IBM", "2006-01-01", "2006-05-02", "-o", "one")
    sample_on_gpus(*one, "--device", "gpu", code=4)
    sample_on_gpus(*one, *allowed)
    label = "IBM_2006-01-01_to_2006-05-02"
    assert hashes(sample_on_gpus.directory / "one") == {
        path: digest for path, digest in hashes(output).items() if path.startswith(label)
    }


@pytest.mark.slow
@pytest.mark.parametrize("device_type", ["gpu", "cuda", "cpu"])
def test_the_same_window_20_times_alone_and_beside_others(gpusched: Command, device_type: DeviceType) -> None:
    """On OpenCL by PoCL, or, with GPUSCHED_TEST_GPU=1, on the GPUs of this machine."""
    real = os.environ.get("GPUSCHED_TEST_GPU") == "1"
    if device_type == "cuda" and not real:
        pytest.skip("GPUSCHED_TEST_GPU=1 trains on this machine's GPUs")
    if device_type == "gpu" and not real and os.environ.get("GPUSCHED_TEST_OPENCL") != "1":
        pytest.skip("GPUSCHED_TEST_OPENCL=1 (with PoCL installed) trains on OpenCL; the first time takes half a minute")
    if not real:
        gpusched.environment |= FakeNvml(gpusched.directory).gpus(1).environment
    data = gpusched.directory / "data"
    names = [f"S{number}" for number in range(20)]
    for name in names:
        shutil.copy(data / "IBM.csv", data / f"{name}.csv")
    (gpusched.directory / "symbols.txt").write_text("\n".join(names))
    models: list[str] = []
    for slots in (1, 4):
        window = ("--start", "2004-01-01", "--end", "2005-12-31", "--window-days", 2000)
        asked = (
            "--device",
            device_type,
            "--set",
            "devices.allow_cpu_opencl=true",
            "--set",
            "lightgbm.num_iterations=60",
        )
        share = ("--workers", slots) if device_type == "cpu" else ("--set", f"devices.slots={slots}")
        where = ("symbols.txt", "-o", f"out{slots}", "--data-root", "data")
        with gpusched.start("run", *where, *window, *asked, *share, "--json") as process:
            out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert json.loads(out)["windows"]["succeeded"] == 20
        models += [path.read_text() for path in gpusched.directory.glob(f"out{slots}/*/model.txt")]
    assert (len(models), len(set(models))) == (40, 1)


def test_a_cuda_build_makes_pypis_models_on_the_processors(gpusched: Command) -> None:
    """Byte for byte, so that an exchange of LightGBM by `doctor --build-cuda` makes no result another one."""
    built = os.environ.get("GPUSCHED_TEST_CUDA_BUILD")
    if built is None:
        pytest.skip("GPUSCHED_TEST_CUDA_BUILD=DIR names the wheels of a LightGBM with CUDA and of its NCCL")
    site = gpusched.directory / "site"
    for wheel in Path(built).glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    asked = (
        "run",
        "symbols.txt",
        "--device",
        "cpu",
        "--start",
        "2000-01-01",
        "--end",
        "2013-12-31",
        "--window-days",
        90,
    )
    ended = gpusched.json(*asked, "-o", "pypi")
    gpusched.environment["PYTHONPATH"] = f"{site}:{gpusched.environment['PYTHONPATH']}"
    lightgbm = "import lightgbm; print(lightgbm.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", lightgbm], env=gpusched.environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith(str(site))
    assert gpusched.json(*asked, "-o", "cuda")["windows"] == ended["windows"]
    models = hashes(gpusched.directory / "pypi")
    assert len(models) == 4 * ended["windows"]["succeeded"] > 700
    assert hashes(gpusched.directory / "cuda") == models


@pytest.fixture
def sample_on_gpus(gpusched: Command) -> Command:
    """The sample where there are two GPUs."""
    gpusched.environment |= FakeNvml(gpusched.directory).gpus(2).environment
    return gpusched
