"""The parts of the proof. Each measures one thing, and reports whether its claims hold here."""

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.gpus.bench import Bench, Interval, OutOfTime, Run, last_object
from benchmarks.gpus.watch import Watch
from benchmarks.jobs import window_jobs
from gpusched import artifacts
from gpusched.core.model import DeviceType
from gpusched.devices.nvidia.gpus import look
from gpusched.devices.nvidia.readings import in_initial_pid_namespace

#: in this order: if time is short, the ends of the range tell more than its middle
SLOTS = (1, 4, 16, 2, 8)
#: slots → symbols, so that each measurement takes about as long
SYMBOLS = {1: 4, 2: 8, 4: 16}
#: files of a window that two trainings on one device type give byte for byte
REPRODUCIBLE = ("model.txt", "labels.csv.gz", "predictions.csv.gz", "feature_importance.csv")
#: (workers, windows) of the users' own design
BASELINE = ((16, 32), (4, 16), (1, 4))
#: share of the better time by which `auto`'s choice may be slower: the two are then equally good
CLOSE = 0.2


@dataclass
class Proof:
    """The results so far, part by part; `device_types` are those that have trained so far."""

    bench: Bench
    device_types: Sequence[DeviceType]
    slots: Sequence[int] = SLOTS
    quick: bool = False
    found: dict[str, Any] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    failed: int = 0

    def holds(self, holds: bool | None, what: str) -> None:
        """Print whether a claim holds; None: this machine cannot tell."""
        self.failed += holds is False
        print(f"{'?' if holds is None else 'ok' if holds else 'FAILS':<5}  {what}", flush=True)

    def measured(self, run: Run) -> Run:
        self.runs.append(run)
        rate = f"{run.per_s}/s, steady {run.steady_per_s}/s, a window {run.window_s} s, refill {run.refill_ms} ms"
        self.holds(
            None if run.windows else False, f"{run.name}: {run.windows} windows, {rate} {run.error[-200:]}".strip()
        )
        return run

    @property
    def main_type(self) -> DeviceType:
        return self.device_types[0]

    @property
    def device(self) -> str:
        return self.bench.devices[0].id

    def symbols(self, slots: int, interval: Interval = "1d") -> int:
        most = 36 if interval == "1d" else 12
        return 1 if self.quick else min(most, SYMBOLS.get(slots, most))

    @property
    def intervals(self) -> tuple[Interval, ...]:
        return ("1d",) if self.quick else ("1d", "5m")


def machine(proof: Proof) -> dict[str, Any]:
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
    return {
        "devices": msgspec.to_builtins(found.devices),
        "driver": found.driver,
        "notes": list(found.notes),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": os.uname().release,
        "versions": versions,
        "sees_own_pids": in_initial_pid_namespace(),
    }


def checks(proof: Proof) -> dict[str, Any]:
    """Check that windows train on each device, are pinned to it, and stay near it; find the types that train at all."""
    trained: list[DeviceType] = []
    told: dict[str, Any] = {}
    for device_type in proof.device_types:
        watch = Watch(proof.bench.devices)
        name = f"check-{device_type}"
        run = proof.bench.run(name, device_type, 4, symbols=proof.symbols(4), watch=watch)
        told[device_type] = run.object()
        if not run.windows:
            proof.holds(None, f"no window can be trained with device type {device_type} here: {run.error[-300:]}")
            continue
        trained.append(device_type)
        proof.holds(not run.failures, f"{device_type}: {run.windows} windows trained, failed attempts: {run.failures}")
        _check_places(proof, device_type, watch, proof.bench.output(name))
    proof.device_types = trained
    proof.holds(bool(trained), f"device types that train: {', '.join(trained) or 'none'}")
    return told


def _check_places(proof: Proof, device_type: DeviceType, watch: Watch, output: Path) -> None:
    paths = sorted(path for path in output.iterdir() if path.is_dir())
    results = [metadata for path in paths if (metadata := artifacts.read_metadata(path)) is not None]
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


def contexts(proof: Proof) -> dict[str, Any]:
    """Seconds and megabytes of a context, alone and n at once."""
    path = proof.bench.directory / "job.json"
    symbols = proof.bench.symbols_file("1d", 1)
    jobs = window_jobs(symbols, proof.bench.directory, proof.bench.directory / "cache", "1d")
    path.write_bytes(msgspec.json.encode(jobs[0]))
    many = ",".join(str(slots) for slots in sorted(proof.slots))
    asked = [str(path), "--type", proof.main_type, "--device", proof.device, "--at-once", many]
    command = [sys.executable, "-m", "benchmarks.gpus.contexts", *asked]
    done = proof.bench.call(command, 80, proof.bench.launcher_environment())
    found = last_object(done.stdout)
    works = any(told["median"] for told in found.values() if isinstance(told, dict))
    proof.holds(works, f"what a context costs {'' if found else done.stderr[-300:]}".strip())
    for name, told in found.items():
        if isinstance(told, dict):
            print(f"       {name}: {told['median']} {told.get('errors', '')}", flush=True)
    return found


def rates(proof: Proof, device_type: DeviceType, interval: Interval = "1d") -> list[dict[str, Any]]:
    """Measure windows a second, seconds a window and the refill gap with each number of slots."""
    found = []
    try:
        for slots in proof.slots:
            name = f"{device_type}-{interval}-{slots}"
            symbols = proof.symbols(slots, interval)
            run = proof.bench.run(name, device_type, slots, interval=interval, symbols=symbols)
            found.append(proof.measured(run).object())
    except OutOfTime:
        proof.holds(None, "no time is left for the other numbers of slots")
    return found


def processors(proof: Proof) -> list[dict[str, Any]]:
    """Measure the CPU slots of the same machine."""
    cores = len(os.sched_getaffinity(0))
    return [
        proof.measured(
            proof.bench.run(f"cpu-{interval}", "cpu", cores, interval=interval, symbols=proof.symbols(cores, interval))
        ).object()
        for interval in proof.intervals
    ]


def determinism(proof: Proof) -> dict[str, Any]:
    """Check that a window gives the same model alone on a device, beside others, and again."""
    found: dict[str, Any] = {}
    many = max(proof.slots)
    for interval in proof.intervals:
        ways: dict[str, dict[str, str]] = {}
        for name, slots in (("alone", 1), ("beside", many), ("again", many)):
            output = f"same-{interval}-{name}"
            symbols = 1 if interval == "5m" or proof.quick else 3
            proof.bench.run(output, proof.main_type, slots, interval=interval, symbols=symbols)
            ways[name] = _digests(proof.bench.output(output))
        labels = set.intersection(*(set(way) for way in ways.values()))
        same = sum(len({way[label] for way in ways.values()}) == 1 for label in labels)
        found[interval] = {"windows": len(labels), "same": same}
        proof.holds(
            same == len(labels) if labels else None,
            f"{interval}: {same} of {len(labels)} windows are the same, byte for byte, alone, beside others, and again",
        )
    return found


def _digests(output: Path) -> dict[str, str]:
    return {
        path.parent.name: hashlib.sha256(
            b"".join((path.parent / name).read_bytes() for name in REPRODUCIBLE)
        ).hexdigest()
        for path in output.glob("*/metadata.json")
    }


def baseline(proof: Proof) -> list[dict[str, Any]]:
    """The users' own design: a pool of workers, each of which starts an interpreter for every window, pinned."""
    jobs = window_jobs(proof.bench.symbols_file("1d", proof.symbols(16)), proof.bench.output("baseline"), Path(), "1d")
    # in a rehearsal the first window of each symbol: all have one length
    tasks = [job.task for job in jobs if job.task.start == jobs[0].task.start or not proof.quick]
    found = []
    for workers, count in ((2, 2),) if proof.quick else BASELINE:

        def train(task: Any, workers: int = workers) -> int:
            output = proof.bench.output(f"baseline-{workers}")
            where = ["-o", str(output), "--data-root", task.data_root, "--device", proof.main_type]
            command = [sys.executable, "-m", "gpusched", "train", task.symbol, str(task.start), str(task.end), *where]
            pinned = {"CUDA_VISIBLE_DEVICES": proof.device, "OMP_NUM_THREADS": "1"}
            return proof.bench.call([*command, *proof.bench.options("1d")], 60, pinned).returncode

        proof.bench.seconds(60)
        some = [tasks[number % len(tasks)] for number in range(count)]
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            codes = list(pool.map(train, some))
        seconds = time.monotonic() - began
        failed = sum(code != 0 for code in codes)
        found.append({"workers": workers, "windows": count, "per_s": round(count / seconds, 3), "failed": failed})
        proof.holds(
            None if failed < count else False,
            f"an interpreter for every window, {workers} workers: {count / seconds:.2f}/s, {failed} failed",
        )
    return found


def room(proof: Proof) -> dict[str, Any]:
    """Check that all windows end trained after the card was full, or taken exclusively, once there is room."""
    if proof.main_type != "cuda":
        proof.holds(None, "memory is taken by CUDA, which does not train here")
        return {}
    found = {}
    for name, leave_mib, delay_s in (("full before", 40, 0.0), ("full while", 40, 4.0), ("tight while", 450, 4.0)):
        seconds = proof.bench.seconds(60)
        environment = {**os.environ, **proof.bench.environment, "CUDA_VISIBLE_DEVICES": proof.device}
        numbers = (leave_mib, min(12.0, seconds / 3), delay_s)
        command = [sys.executable, "-m", "benchmarks.gpus.ballast", *map(str, numbers)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            said = "" if delay_s else other.stdout.readline()
            run = proof.bench.run(f"room-{name.replace(' ', '-')}", proof.main_type, 4, symbols=proof.symbols(4))
            other.terminate()
            said = (said + other.stdout.read()).strip()
        found[name] = {"ballast": said, **run.object()}
        bad = {kind for kind in run.failures if not kind.startswith(("device_memory", "device_lost", "interrupted"))}
        # a card that is full from the start is not used, and the driver's reason is given
        good = (bool(run.windows) and not bad) or (not delay_s and "memory" in run.error)
        proof.holds(
            good if said.startswith("ready") else None,
            f"{name} ({said}): {run.windows} windows trained, failed attempts: {run.failures} {run.error[-99:]}",
        )
    return found


def choice(proof: Proof) -> dict[str, Any]:
    """Compare the choice of `auto` with the time that each type really takes for the same batch."""
    cores = len(os.sched_getaffinity(0))
    found: dict[str, Any] = {}
    for interval in proof.intervals:
        symbols = proof.symbols(16, interval)
        truth: dict[str, float] = {}
        for device_type in ("cpu", proof.main_type):
            slots: int | str = cores if device_type == "cpu" else "auto"
            run = proof.bench.run(
                f"truth-{interval}-{device_type}", device_type, slots, interval=interval, symbols=symbols
            )
            if run.per_s:
                truth[device_type] = run.windows / run.per_s
        done = proof.bench.gpusched("plan", *proof.bench.asked(interval, symbols, "auto"), "--json")
        plan = last_object(done.stdout)
        chosen, about = plan.get("device"), plan.get("device_choice") or {}
        found[interval] = {"truth_s": truth, "device": chosen, "choice": about}
        best = min(truth.values(), default=0.0)
        known = chosen is not None and len(truth) > 1
        right = truth.get(str(chosen), float("inf")) <= (1 + CLOSE) * best if known else None
        took = ", ".join(f"{device_type} {seconds:.1f} s" for device_type, seconds in truth.items())
        proof.holds(
            right, f"{interval}: auto came to {chosen} ({about.get('reason') or done.stderr[-200:]}); it takes {took}"
        )
    return found


#: in the order in which they run: the most important come first
PARTS: dict[str, Callable[[Proof], Any]] = {
    "machine": machine,
    "checks": checks,
    "contexts": contexts,
    "daily": lambda proof: rates(proof, proof.main_type),
    "cpu": processors,
    "auto": choice,
    "same": determinism,
    "baseline": baseline,
    "5m": lambda proof: rates(proof, proof.main_type, "5m"),
    "room": room,
    "opencl": lambda proof: rates(proof, "gpu") if "gpu" in proof.device_types and proof.main_type != "gpu" else [],
}
