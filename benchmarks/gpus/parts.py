"""The parts of the proof. Each measures one thing, and reports whether its claims hold here.

A part fills a dictionary with its results as it gets them, so that a part that is cut short has some.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.gpus.bench import TIMED_OUT, Interval, OutOfTime, last_object
from benchmarks.gpus.proof import Proof
from benchmarks.gpus.watch import Watch
from benchmarks.jobs import window_jobs
from gpusched.core.model import DeviceType
from gpusched.devices.nvidia.gpus import look
from gpusched.devices.nvidia.readings import in_initial_pid_namespace
from gpusched.metadata import read_metadata

#: seconds for the first batch of a device type, which may have to compile kernels
FIRST_S = 200.0
#: how often one and the same window is trained alone, and beside others
TIMES = 20
#: files of a window that two trainings on one device type give byte for byte, whatever the symbol is called
REPRODUCIBLE = ("model.txt", "feature_importance.csv")
#: (workers, windows) of the users' own design
BASELINE = ((16, 32), (4, 16), (1, 4))
#: numbers of slots with OpenCL, where CUDA was measured with all
OPENCL_SLOTS = (1, 4, 16)
#: share of the better time by which `auto`'s choice may be slower: the two are then equally good
CLOSE = 0.2
#: another user of a card: its name, the MiB that it leaves free, and the slots of a batch beside it
BALLAST = (("full before", 40, 4), ("full while", 40, 4), ("tight while", 450, 4), ("crowd while", 900, 16))
#: another user of a card in EXCLUSIVE_PROCESS mode, who takes the card, and none of its memory
HOLDER = (("busy before", 1 << 30, 1),)


def machine(proof: Proof, result: dict[str, Any]) -> None:
    """The card, the driver, the libraries."""
    found = look()
    versions = {}
    for name in ("lightgbm", "numpy", "nvidia-ml-py", "nvidia-nccl-cu13", "nvidia-nccl-cu12"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for device in found.devices:
        memory = f"{(device.memory_total_bytes or 0) / 2**30:.0f} GiB"
        print(
            f"       {device.id}  {device.name}  {memory}  {device.pci_bus_id}  cores {device.cpus or 'any'}",
            flush=True,
        )
    result |= {
        "devices": msgspec.to_builtins(found.devices),
        "driver": found.driver,
        "notes": list(found.notes),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": os.uname().release,
        "versions": versions,
        "sees_own_pids": in_initial_pid_namespace(),
    }


def checks(proof: Proof, result: dict[str, Any]) -> None:
    """Check that windows train on each device, are pinned to it, and stay near it; find the types that train at all."""
    for device_type in tuple(proof.device_types):
        watch = Watch(proof.bench.devices)
        name = f"check-{device_type}"
        run = proof.bench.run(name, proof.work(4), device_type, 4, seconds=FIRST_S, watch=watch)
        result[device_type] = run.object()
        if not run.windows:
            proof.holds(None, f"no window can be trained with device type {device_type} here: {run.error[-300:]}")
            if not run.timed_out:
                proof.device_types = tuple(one for one in proof.device_types if one != device_type)
            continue
        proof.holds(not run.failures, f"{device_type}: {run.windows} windows trained, failed attempts: {run.failures}")
        _check_places(proof, device_type, watch, proof.bench.output(name))
    proof.holds(bool(proof.device_types), f"device types that train: {', '.join(proof.device_types) or 'none'}")


def _check_places(proof: Proof, device_type: DeviceType, watch: Watch, output: Path) -> None:
    paths = sorted(path for path in output.iterdir() if path.is_dir())
    results = [metadata for path in paths if (metadata := read_metadata(path)) is not None]
    proof.holds({result.device_type for result in results} == {device_type}, f"{device_type}: by no other device type")
    used = Counter(result.device for result in results)
    proof.holds(set(used) == {one.id for one in proof.bench.devices}, f"windows of each device: {dict(used)}")
    seen = {result.device_seen for result in results}
    told = None if seen == {None} else all(result.device_seen == result.device for result in results)
    proof.holds(told, "CUDA's own enumeration shows each window the device of its slot, and no other")
    ours = all(watch.processes[device] for device in used) if in_initial_pid_namespace() else None
    proof.holds(ours, f"NVML lists our processes where they were placed: {dict(watch.processes)} at once")
    near = {device.id: {device.cpus} for device in proof.bench.devices if device.cpus}
    kept = {device: watch.cores[device] for device in near}
    proof.holds(kept == near if ours and near else None, "windows keep to the cores near their device")


def contexts(proof: Proof, result: dict[str, Any]) -> None:
    """Seconds and megabytes of a context, alone and n at once."""
    path = proof.bench.directory / "job.json"
    symbols = proof.bench.batch("1d", 1).symbols
    jobs = window_jobs(symbols, proof.bench.directory, proof.bench.directory / "cache", "1d")
    path.write_bytes(msgspec.json.encode(jobs[0]))
    many = ",".join(str(slots) for slots in sorted(proof.slots))
    # contexts are made even where LightGBM cannot train
    device_type: DeviceType = proof.main_type if proof.device_types else "cuda"
    asked = [str(path), "--type", device_type, "--device", proof.device, "--at-once", many]
    command = [sys.executable, "-m", "benchmarks.gpus.contexts", *asked]
    done = proof.bench.call(command, 80, device_type, proof.bench.launcher_environment())
    result |= last_object(done.stdout)
    told = {name: one for name, one in result.items() if isinstance(one, dict)}
    works = any(one["median"] for one in told.values())
    slow = done.returncode == TIMED_OUT
    proof.holds(
        works or (None if slow else False), f"what a context costs {'' if works else done.stderr[-300:]}".strip()
    )
    for name, one in told.items():
        print(f"       {name}: {one['median']} {one.get('errors', '')}", flush=True)


def rates(proof: Proof, result: dict[str, Any], device_type: DeviceType, interval: Interval, slots: Any = None) -> None:
    """Measure windows a second, seconds a window and the refill gap with each number of slots."""
    for count in slots or proof.slots:
        name = f"{device_type}-{interval}-{count}"
        run = proof.bench.run(name, proof.work(count, interval), device_type, count)
        result[name] = proof.measured(run).object()


def opencl(proof: Proof, result: dict[str, Any]) -> None:
    """Measure OpenCL, unless it is the type that all other parts measured."""
    if "gpu" not in proof.device_types or proof.main_type == "gpu":
        proof.holds(None, "OpenCL: measured above, or it does not train here")
        return
    for interval in proof.intervals:
        rates(proof, result, "gpu", interval, [slots for slots in OPENCL_SLOTS if slots in proof.slots])


def processors(proof: Proof, result: dict[str, Any]) -> None:
    """Measure the CPU slots of the same machine."""
    cores = len(os.sched_getaffinity(0))
    for interval in proof.intervals:
        name = f"cpu-{interval}"
        run = proof.bench.run(name, proof.work(cores, interval), "cpu", cores)
        result[name] = proof.measured(run).object()


def determinism(proof: Proof, result: dict[str, Any]) -> None:
    """Check that one window, trained many times alone and beside others, is one model, on each device type."""
    for device_type in proof.device_types:
        for interval in proof.intervals:
            name = f"{device_type}-{interval}"
            work = proof.bench.twins(interval, 4 if proof.quick else TIMES)
            ways: dict[str, Counter[str]] = {}
            for way, slots in (("beside others", max(proof.slots)), ("alone", 1)):
                output = f"same-{name}-{slots}-{way.partition(' ')[0]}"
                proof.bench.run(output, work, device_type, slots)
                ways[way] = _digests(proof.bench.output(output))
                result[name] = {way: dict(digests) for way, digests in ways.items()}
            models = Counter[str]()
            for digests in ways.values():
                models += digests
            counts = ", ".join(f"{digests.total()} times {way}" for way, digests in ways.items())
            proof.holds(
                len(models) == 1 if models.total() > 1 else None,
                f"{name}: one window, trained {counts}: {len(models)} different models",
            )


def _digests(output: Path) -> Counter[str]:
    return Counter(
        hashlib.sha256(b"".join((path.parent / name).read_bytes() for name in REPRODUCIBLE)).hexdigest()
        for path in output.glob("*/metadata.json")
    )


def baseline(proof: Proof, result: dict[str, Any]) -> None:
    """The users' own design: a pool of workers, each of which starts an interpreter for every window, pinned."""
    jobs = window_jobs(proof.work(16).symbols, proof.bench.output("baseline"), Path(), "1d")
    # in a rehearsal the first window of each symbol: all have one length
    tasks = [job.task for job in jobs if job.task.start == jobs[0].task.start or not proof.quick]
    for workers, count in ((2, 2),) if proof.quick else BASELINE:

        def train(task: Any, workers: int = workers) -> int | None:
            output = proof.bench.output(f"baseline-{workers}")
            where = ["-o", str(output), "--data-root", task.data_root, "--device", proof.main_type]
            command = [sys.executable, "-m", "gpusched", "train", task.symbol, str(task.start), str(task.end), *where]
            pinned = {"CUDA_VISIBLE_DEVICES": proof.device, "OMP_NUM_THREADS": "1"}
            try:
                return proof.bench.call([*command, *proof.bench.options("1d")], 60, proof.main_type, pinned).returncode
            except OutOfTime:
                return None

        proof.bench.seconds(60)
        some = [tasks[number % len(tasks)] for number in range(count)]
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            codes = [code for code in pool.map(train, some) if code is not None]
        seconds = time.monotonic() - began
        trained = codes.count(0)
        found = {"windows": trained, "per_s": round(trained / seconds, 3), "failed": len(codes) - trained}
        result[f"{workers} at once"] = found
        proof.holds(
            None if trained else False,
            f"an interpreter for every window, {workers} at once: {found['per_s']}/s, {found['failed']} of them failed",
        )


def room(proof: Proof, result: dict[str, Any]) -> None:
    """Check that windows are trained in the end when another process takes the card's memory, before or meanwhile.

    In EXCLUSIVE_PROCESS mode, another process takes the card itself.
    """
    if proof.main_type != "cuda":
        proof.holds(None, "memory is taken by CUDA, which does not train here")
        return
    exclusive = "exclusive" in proof.bench.devices[0].modes
    if not exclusive:
        proof.holds(None, "busy: the card's compute mode lets everybody in; `nvidia-smi -c EXCLUSIVE_PROCESS` does not")
    for name, leave_mib, slots in HOLDER if exclusive else BALLAST:
        hold_s = min(12.0, proof.bench.seconds(60) / 3)
        output = f"room-{name.replace(' ', '-')}"
        before = name.endswith("before")
        # it begins when the first window has ended
        begins = [] if before else [str(proof.bench.output(output) / "teacher_runs.json")]
        environment = proof.bench.environment("cuda") | {"CUDA_VISIBLE_DEVICES": proof.device}
        command = [sys.executable, "-m", "benchmarks.gpus.ballast", str(leave_mib), str(hold_s), *begins]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            try:
                said = other.stdout.readline() if before else ""
                run = proof.bench.run(output, proof.work(slots), "cuda", slots)
            finally:
                other.terminate()
            said = (said + other.stdout.read()).strip()
        result[name] = {"ballast": said, **run.object()}
        bad = {kind for kind in run.failures if not kind.startswith(("device_memory", "device_lost", "interrupted"))}
        # a card that is full or busy from the start is not used, and the driver's reason is given
        reason = "busy" if exclusive else "memory"
        good = reason in run.error if before and not run.windows else bool(run.windows) and not bad
        proof.holds(
            good if said.startswith("ready") else None,
            f"{name} ({said}): {run.windows} windows trained{', not all' if run.error else ''},"
            f" failed attempts: {run.failures} {run.error[-200:]}",
        )


def choice(proof: Proof, result: dict[str, Any]) -> None:
    """Compare the choice of `auto` with the time that each type really takes for the same batch."""
    cores = len(os.sched_getaffinity(0))
    for interval in proof.intervals:
        work = proof.work(16, interval)
        truth: dict[str, float] = {}
        for device_type in ("cpu", proof.main_type):
            slots: int | str = cores if device_type == "cpu" else "auto"
            run = proof.bench.run(f"truth-{interval}-{device_type}", work, device_type, slots)
            if run.per_s and not run.timed_out:
                truth[device_type] = run.windows / run.per_s
        result[interval] = {"truth_s": truth}
        done = proof.bench.gpusched("plan", *proof.bench.asked(work, "auto"), "--json", device=proof.main_type)
        plan = last_object(done.stdout)
        chosen, about = plan.get("device"), plan.get("device_choice") or {}
        result[interval] |= {"device": chosen, "choice": about}
        best = min(truth.values(), default=0.0)
        known = chosen is not None and len(truth) > 1
        right = truth.get(str(chosen), float("inf")) <= (1 + CLOSE) * best if known else None
        took = ", ".join(f"{device_type} {seconds:.1f} s" for device_type, seconds in truth.items())
        proof.holds(
            right, f"{interval}: auto came to {chosen} ({about.get('reason') or done.stderr[-200:]}); it takes {took}"
        )


class Part(NamedTuple):
    """A measurement, with its weight among those that share the time that is left."""

    measure: Callable[[Proof, dict[str, Any]], None]
    weight: int
    #: it tells something even where no window trains on a GPU
    anywhere: bool = False


#: in the order in which they run: the most important come first
PARTS: dict[str, Part] = {
    "machine": Part(machine, 1, anywhere=True),
    "checks": Part(checks, 10, anywhere=True),
    "contexts": Part(contexts, 5, anywhere=True),
    "daily": Part(lambda proof, result: rates(proof, result, proof.main_type, "1d"), 6),
    "cpu": Part(processors, 3, anywhere=True),
    "auto": Part(choice, 6),
    "same": Part(determinism, 4),
    "baseline": Part(baseline, 3),
    "5m": Part(lambda proof, result: rates(proof, result, proof.main_type, "5m"), 5),
    "room": Part(room, 6),
    "opencl": Part(opencl, 4),
}
