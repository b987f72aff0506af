"""What only a machine with a GPU can prove: `python -m benchmarks.gpus [--device auto|cuda|gpu] [--set key=value]`.

Trains the sample's windows on every GPU that gpusched finds, twice, and with 1, 2, 4 and 8 slots a device, and says of
each thing that cannot be shown without a GPU whether it holds here. Exit code 1 if one does not. A few minutes.
"""

from __future__ import annotations

import argparse
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
from gpusched.core.model import Device
from gpusched.daemon.devices import discover
from gpusched.daemon.run import STATE_DIR
from gpusched.daemon.sampler import Gone, Reader, Unreadable, in_initial_pid_namespace
from gpusched.daemon.store import Store
from gpusched.sample import write_sample

SLOTS = (1, 2, 4, 8)
#: what tuned slots must reach of the best fixed number
TUNED_SHARE = 0.8
DATES = ("--start", "2001-01-01", "--end", "2012-12-31", "--window-days", "180")
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
                    ours = [memory for one, memory in found.items() if pid in _ancestors(one)]
                    self.processes[device_id] = max(self.processes[device_id], len(ours))
                    self.peak_bytes[device_id] = max([self.peak_bytes[device_id], *ours])


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


def prove(directory: Path, device_type: str, settings: list[str]) -> int:
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

    def run(output: str, *more: str) -> tuple[Watch, float, dict[str, Any]]:
        asked = ["run", "symbols.txt", "-o", output, "--json", "--device", device_type, "--data-root", "data", *DATES]
        watch = Watch(found.devices)
        seconds, done = watch.run([sys.executable, "-m", "gpusched", *asked, *settings, *more], directory)
        if done.stderr:
            print(done.stderr.rstrip())
        ended = json.loads(done.stdout) if done.stdout else {"windows": {"succeeded": 0, "total": 0, "skipped": 0}}
        return watch, seconds, ended

    watch, cold_s, first = run("first")
    windows = first["windows"]
    trained = windows["succeeded"] > 0 and windows["succeeded"] + windows["skipped"] == windows["total"]
    proof(trained, f"{windows['succeeded']} windows trained, none failed, in {cold_s:.1f} s with an empty kernel cache")
    if not trained:
        return 1
    results = [m for path in sorted((directory / "first").iterdir()) if (m := artifacts.read_metadata(path))]
    types = Counter(result.device_type for result in results)
    proof("cpu" not in types, f"by device type: {dict(types)}")
    used = Counter(result.device for result in results)
    proof(set(used) == {device.id for device in found.devices}, f"windows of each device: {dict(used)}")
    seen = {result.device_seen for result in results}
    told = None if seen == {None} else all(result.device_seen == result.device for result in results)
    proof(told, "CUDA's own enumeration shows each window the device of its slot, and no other")
    pids = None if not in_initial_pid_namespace() else all(watch.processes[device] for device in used)
    proof(pids, f"NVML lists our processes on the devices they were placed on: {dict(watch.processes)} at once")
    peak = {device: f"{size / 2**20:.0f} MiB" for device, size in watch.peak_bytes.items()}
    proof(None if not pids else True, f"most memory of one window: {peak}; highest utilisation: {watch.utilisation}")

    counts = any(device.accounting for device in found.devices)
    with Store.open(directory / "first" / STATE_DIR / "state.db") as store:
        last = [row.last_attempt for row in store.windows(first["batch_id"], status="succeeded")]
    busy = [one.usage.device_seconds for one in last if one is not None and one.usage is not None]
    counted_s = sum(seconds or 0.0 for seconds in busy)
    if counts and in_initial_pid_namespace():
        proof(counted_s > 0, f"the driver's accounting counts {counted_s:.1f} s of GPU")
    else:
        proof(None, "accounting mode is off, or its PIDs are not ours: `nvidia-smi -am 1` turns it on")

    _, warm_s, second = run("second")
    proof(warm_s <= cold_s * 1.5, f"with warm kernel caches the same takes {warm_s:.1f} s")
    same = second["windows"]["succeeded"] == windows["succeeded"] and all(
        (directory / "first" / result.label / name).read_bytes()
        == (directory / "second" / result.label / name).read_bytes()
        for result in results
        for name in REPRODUCIBLE
    )
    proof(same, "two trainings give the same files, byte for byte")

    rates = {}
    for slots in SLOTS:
        _, _, ended = run(f"slots-{slots}", "--set", f"devices.slots={slots}")
        rates[slots] = ended.get("windows_per_second", 0.0)
        proof(
            ended["windows"]["succeeded"] == windows["succeeded"],
            f"{slots} slot(s) a device: {rates[slots]:.2f} windows/s",
        )
    _, _, tuned = run("tuned", "--set", "devices.slots=auto")
    rate = tuned.get("windows_per_second", 0.0)
    proof(rate >= TUNED_SHARE * max(rates.values()), f"slots tuned while running: {rate:.2f} windows/s")
    print(f"       most windows/s with devices.slots = {max(rates, key=lambda slots: rates[slots])}")
    return 1 if proof.failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cuda", "gpu"), default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for gpusched")
    options = parser.parse_args()
    settings = [text for value in options.set for text in ("--set", value)]
    with tempfile.TemporaryDirectory(prefix="gpusched-gpus-") as name:
        cache = ["--set", f"cache.dir={name}/cache"]
        return prove(Path(name), options.device, cache + settings)


if __name__ == "__main__":
    sys.exit(main())
