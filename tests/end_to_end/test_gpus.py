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
from pathlib import Path

import msgspec
import pytest

from gpusched.client.connection import connect
from gpusched.core.estimates import Estimate
from gpusched.core.model import DeviceType
from gpusched.devices.nvidia.readings import in_initial_pid_namespace
from gpusched.protocol import Delta, DeviceReported, Snapshot
from gpusched.store.store import Store
from tests.devices.fake_nvml import GIB, XID, FakeNvml, uuid
from tests.end_to_end.machines import WINDOWS, CudaMachine, Machine, details, service
from tests.end_to_end.support import Command, check_sound, hashes, index
from tests.server.support import Daemon, until
from tests.waiting import PATIENCE_S


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


def test_the_service_sees_its_devices_and_takes_a_mended_one_back(machine: Machine) -> None:
    asked = machine.asked("until_told", **{"run.max_attempts": 1})
    held = machine.directory / "data" / f"held-{uuid(1)}"
    os.mkfifo(held)
    with service(machine, *asked[asked.index("--set") :]):
        with machine.start("submit", *asked, "--wait") as submit, held.open("w"):
            machine.nvml.event(1, XID, 79)
            out, err = submit.communicate(timeout=PATIENCE_S)
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


#: its line of `devices` in a pipe; the processes of others are known outside of containers only
AT_WORK = {
    "device": uuid(1),
    "name": "NVIDIA RTX 6000 Ada Generation",
    "health": "open",
    "slots": "1/1",
    "use": "57%",
    "used": "28672M",
    "free": "20480M",
    "reserved": "3072M",
    "memory": "49152M",
    "temp": "61",
    "watt": "212",
    "reason": "",
}
LEARNED = Estimate(
    workload="tests.devices.workloads:until_told",
    device_type="cuda",
    bucket=0,
    count=1,
    memory_count=1,
    memory_max=3 * GIB,
)


def test_what_the_service_tells_of_a_device_at_work(machine: Machine) -> None:
    asked = machine.asked("until_told")
    with Store.open(machine.directory / "state" / "state.db") as store:
        store.record((), [LEARNED])
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
        submit.communicate(timeout=PATIENCE_S)
    assert (told["id"], told["slots"], told["slots_used"], told["health"]) == (uuid(1), 1, 1, "open")
    assert (told["memory_used_bytes"], told["reserved_bytes"], told["foreign_bytes"]) == (28 * GIB, 3 * GIB, foreign)
    reading = told["reading"]
    assert (reading["memory_free_bytes"], reading["memory_total_bytes"]) == (20 * GIB, 48 * GIB)
    assert (reading["utilisation"], reading["temperature_c"], reading["power_w"]) == (0.57, 61, 212)
    (running,) = told["running"]
    assert running["window"] == "mine/S0_2022-01-11_to_2022-01-20"
    assert row == AT_WORK | {"foreign": "" if foreign is None else "2048M", "running": running["window"]}
    # and it is kept for the batch's report
    with Store.open(machine.directory / "state" / "state.db") as store:
        # a mean with readings before the change
        assert any(one.utilisation for one in store.history("mine") if one.device_id == uuid(1))


@pytest.mark.thorough
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
            _, err = submit.communicate(timeout=PATIENCE_S)
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
            out, err = submit.communicate(timeout=PATIENCE_S)
        assert submit.returncode == 0, (out, err)
        assert told.startswith(f"Waiting: trying {uuid(0)} (")
    assert {window["device_type"] for window in details(machine.directory / "out")} == {"cuda"}


@pytest.mark.thorough
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
