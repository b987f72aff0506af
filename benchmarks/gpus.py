"""What only a machine with a GPU can prove: `python -m benchmarks.gpus [--device auto|cuda|gpu] [--set key=value]`.

Trains the sample's windows on every GPU that gpusched finds, with each device type that trains there: twice, and with
1, 2, 4 and 8 slots a device. Says of each thing that cannot be shown without a GPU whether it holds here; the exit code
is 1 if one does not. A few minutes for each device type.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpusched import artifacts
from gpusched.config import STATE_DIR
from gpusched.core.model import Device, DeviceType
from gpusched.devices.discovery import discover
from gpusched.devices.nvidia.readings import Gone, Reader, Unreadable, in_initial_pid_namespace
from gpusched.sample import write_sample
from gpusched.store.store import Store

SLOTS = (1, 2, 4, 8)
#: seconds that two runs of the same may differ by, whatever their kernels do
NOISE_S = 5.0
#: settings that `--set` may replace
WINDOWS = ("windows.start=2001-01-01", "windows.end=2012-12-31", "windows.days=180")
#: files of a window that two trainings on one device type give byte for byte
REPRODUCIBLE = ("model.txt", "labels.csv.gz", "feature_importance.csv")


class Watch:
    """What NVML says while a process and its descendants work."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._ids = [device.id for device in devices]
        self._stop = threading.Event()
        #: by device: most memory of one of our processes, most processes of ours at once, highest utilisation
        self.peak_bytes: Counter[str] = Counter()
        self.processes: Counter[str] = Counter()
        self.utilisation: dict[str, float] = {}
        #: by device: the cores that our processes on it might run on
        self.cores: dict[str, set[tuple[int, ...]]] = {device.id: set() for device in devices}

    def run(self, command: list[str], directory: Path) -> tuple[float, subprocess.CompletedProcess[str]]:
        """Seconds that the command took, and how it ended."""
        began = time.monotonic()
        with subprocess.Popen(
            command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            watcher = threading.Thread(target=self._watch, args=(process.pid,), daemon=True)
            watcher.start()
            out, err = process.communicate()
            self._stop.set()
            watcher.join(10)
        return time.monotonic() - began, subprocess.CompletedProcess(command, process.returncode, out, err)

    def _watch(self, pid: int) -> None:
        with Reader(self._ids, slow_s=1.0, sees_own_pids=in_initial_pid_namespace()) as reader:
            while not self._stop.wait(0.05):
                for device_id in self._ids:
                    try:
                        reading = reader.read(device_id, time.time())
                    except (Gone, Unreadable):
                        continue
                    used = self.utilisation.get(device_id, 0.0)
                    self.utilisation[device_id] = max(used, reading.utilisation or 0.0)
                    found = reading.process_memory_bytes or {}
                    ours = {one: memory for one, memory in found.items() if pid in _ancestors(one)}
                    self.processes[device_id] = max(self.processes[device_id], len(ours))
                    self.peak_bytes[device_id] = max([self.peak_bytes[device_id], *ours.values()])
                    for one in ours:
                        with contextlib.suppress(ProcessLookupError):
                            self.cores[device_id].add(tuple(sorted(os.sched_getaffinity(one))))


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return
        yield pid


class Proof:
    """Prints one line for each thing that was looked at."""

    def __init__(self) -> None:
        self.failed = 0

    def __call__(self, holds: bool | None, what: str) -> None:
        """`holds` None: it cannot be told here."""
        self.failed += holds is False
        print(f"{'?' if holds is None else 'ok' if holds else 'FAILS':<5}  {what}", flush=True)


def prove(directory: Path, device_types: Sequence[DeviceType], settings: list[str]) -> int:
    """The exit code."""
    proof = Proof()
    found = discover(os.environ.get("CUDA_VISIBLE_DEVICES"))
    for note in found.notes:
        print(f"note   {note}")
    for device in found.devices:
        memory = f"{(device.memory_total_bytes or 0) / 2**30:.0f} GiB"
        print(f"       {device.id}  {device.name}  {memory}  {device.pci_bus_id}  cores {device.cpus or 'any'}")
    proof(bool(found.devices), f"NVML shows {len(found.devices)} devices (driver {found.driver})")
    if not found.devices:
        return 1
    (directory / "symbols.txt").write_text("".join(f"{symbol}\n" for symbol in write_sample(directory)))
    trained = []
    for device_type in device_types:
        print(f"       -- device type {device_type}")
        if _prove_type(proof, directory, found.devices, device_type, settings):
            trained.append(device_type)
    proof(bool(trained), f"device types that train: {', '.join(trained) or 'none'}")
    return 1 if proof.failed else 0


def _prove_type(
    proof: Proof, directory: Path, devices: Sequence[Device], device_type: DeviceType, settings: list[str]
) -> bool:
    """Whether windows can be trained with it; if not, the warm-up of the first run has said why."""
    output = directory / device_type
    # Kernels that another device type has left behind would not be compiled here.
    settings = ["--set", f"cache.dir={output / 'cache'}", *settings]

    def run(name: str, *more: str) -> tuple[Watch, float, dict[str, Any] | None]:
        asked = ["run", "symbols.txt", "-o", str(output / name), "--json", "--device", device_type]
        watch = Watch(devices)
        command = [sys.executable, "-m", "gpusched", *asked, "--data-root", "data", *settings, *more]
        seconds, done = watch.run(command, directory)
        if done.stderr:
            print(done.stderr.rstrip())
        return watch, seconds, json.loads(done.stdout) if done.stdout else None

    watch, cold_s, first = run("first")
    if first is None:
        proof(None, f"no window can be trained with device type {device_type} here")
        return False
    windows = first["windows"]
    trained = windows["succeeded"] > 0 and windows["succeeded"] + windows["skipped"] == windows["total"]
    proof(trained, f"{windows['succeeded']} windows trained, none failed, in {cold_s:.1f} s with an empty kernel cache")
    if not trained:
        return False
    results = [m for path in sorted((output / "first").iterdir()) if (m := artifacts.read_metadata(path))]
    types = Counter(result.device_type for result in results)
    proof(set(types) == {device_type}, f"by device type: {dict(types)}")
    used = Counter(result.device for result in results)
    proof(set(used) == {device.id for device in devices}, f"windows of each device: {dict(used)}")
    seen = {result.device_seen for result in results}
    told = None if seen == {None} else all(result.device_seen == result.device for result in results)
    proof(told, "CUDA's own enumeration shows each window the device of its slot, and no other")
    pids = None if not in_initial_pid_namespace() else all(watch.processes[device] for device in used)
    proof(pids, f"NVML lists our processes on the devices they were placed on: {dict(watch.processes)} at once")
    peak = {device: f"{size / 2**20:.0f} MiB" for device, size in watch.peak_bytes.items()}
    proof(None if not pids else True, f"most memory of one window: {peak}; highest utilisation: {watch.utilisation}")
    near = {device.id: {device.cpus} for device in devices if device.cpus}
    kept = {device: watch.cores[device] for device in near}
    proof(kept == near if pids and near else None, f"windows keep to the cores near their device: {kept or 'any'}")

    counts = any(device.accounting for device in devices)
    with Store.open(output / "first" / STATE_DIR / "state.db") as store:
        last = [row.last_attempt for row in store.windows(first["batch_id"], status="succeeded")]
    busy = [one.usage.device_seconds for one in last if one is not None and one.usage is not None]
    counted_s = sum(seconds or 0.0 for seconds in busy)
    if counts and in_initial_pid_namespace():
        proof(counted_s > 0, f"the driver's accounting counts {counted_s:.1f} s of GPU")
    else:
        proof(None, "accounting mode is off, or its PIDs are not ours: `nvidia-smi -am 1` turns it on")

    def all_trained(ended: dict[str, Any] | None) -> bool:
        return ended is not None and ended["windows"]["succeeded"] == windows["succeeded"]

    _, warm_s, second = run("second")
    proof(warm_s <= cold_s * 1.5 + NOISE_S, f"with warm kernel caches the same takes {warm_s:.1f} s")
    same = all_trained(second) and all(
        (output / "first" / result.label / name).read_bytes() == (output / "second" / result.label / name).read_bytes()
        for result in results
        for name in REPRODUCIBLE
    )
    proof(same, "two trainings give the same files, byte for byte")

    def measure(name: str, slots: int | str, what: str) -> float:
        _, _, ended = run(name, "--set", f"devices.slots={slots}")
        rate = float(ended["windows_per_second"]) if ended is not None else 0.0
        proof(all_trained(ended), f"{what}: {rate:.2f} windows/s")
        return rate

    rates = {slots: measure(f"slots-{slots}", slots, f"{slots} slot(s) a device") for slots in SLOTS}
    best = max(rates, key=lambda slots: rates[slots])
    tuned = measure("tuned", "auto", "slots tuned while running")
    # No verdict: so few windows may be over before the tuner has found out.
    proof(None, f"that is {tuned / max(rates[best], 1e-9):.0%} of the most, with devices.slots = {best}")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cuda", "gpu"), default="auto", help="auto: both")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for gpusched")
    options = parser.parse_args()
    device_types: Sequence[DeviceType] = ("cuda", "gpu") if options.device == "auto" else (options.device,)
    settings = [text for value in (*WINDOWS, *options.set) for text in ("--set", value)]
    with tempfile.TemporaryDirectory(prefix="gpusched-gpus-") as name:
        return prove(Path(name), device_types, settings)


if __name__ == "__main__":
    sys.exit(main())
