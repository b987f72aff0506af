"""`doctor`: what works here, what does not, and what to do about it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, get_args

import msgspec

from gpusched import __version__
from gpusched.cli.batches import load_config
from gpusched.config import Config
from gpusched.core.model import DeviceType
from gpusched.core.selection import select
from gpusched.errors import BAD_INPUT, DONE, GpuschedError
from gpusched.teacher import opencl
from gpusched.workload import Trial

Status = Literal["ok", "warning", "problem"]
DEVICE_TYPES: tuple[DeviceType, ...] = get_args(DeviceType)

#: seconds that LightGBM may take to train on a device: OpenCL may have to compile its kernels first
TRIAL_S = 90.0
#: descriptors that the daemon wants for each slot (a pipe and a log), and for everything else
DESCRIPTORS_PER_SLOT, DESCRIPTORS = 2, 128

_OPENMP = "install it: `apt install libgomp1`, `dnf install libgomp`"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. A `problem` makes training impossible, a `warning` does not."""

    name: str
    status: Status
    message: str
    #: what to do, empty if nothing
    remedy: str = ""


def doctor(options: argparse.Namespace) -> int:
    """Look, try and tell. Exit code 4 if nothing can be trained here."""
    config = load_config(options).config
    checks = list(all_checks(config))
    hopeless = any(check.status == "problem" for check in checks)
    if options.json:
        print(json.dumps({"checks": [msgspec.structs.asdict(check) for check in checks], "ok": not hopeless}))  # noqa: T201
    else:
        _print(checks)
    return BAD_INPUT if hopeless else DONE


def all_checks(config: Config, *, trial_s: float = TRIAL_S) -> Iterator[Check]:
    """Every check, in the order in which they are shown."""
    with ThreadPoolExecutor(len(DEVICE_TYPES)) as pool:
        running = {kind: pool.submit(try_device, kind, trial_s) for kind in DEVICE_TYPES}
        yield Check(
            name="gpusched",
            status="ok",
            message=f"{__version__} on Python {platform.python_version()}, {platform.system()} {platform.release()}",
        )
        trials = {kind: trial.result() for kind, trial in running.items()}
    yield from lightgbm_checks(trials)
    yield from _device_checks(config)
    yield _descriptor_check()
    yield data_check(config.data.root)
    yield _writable_check("cache", config.cache.dir, "set cache.dir to a directory that you may write")
    yield _writable_check("output", config.run.output, "set run.output, or give -o")
    yield _daemon_check(config)


# -- LightGBM ----------------------------------------------------------------------------------------------------------


def try_device(device_type: DeviceType, seconds: float) -> Trial:
    """Train a tiny model in a process of its own."""
    command = [sys.executable, "-m", "gpusched.teacher.trial", device_type]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environment, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return Trial(trained=False, why=f"it did not answer within {seconds:g} s")
    try:
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=Trial)
    except (IndexError, msgspec.MsgspecError):
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return Trial(trained=False, why=f"the process ended with {how}: {done.stderr.strip()[-500:]}")


def lightgbm_checks(trials: dict[DeviceType, Trial]) -> Iterator[Check]:
    """What the trials mean. Without the CPU nothing can be trained; the rest is as the machine is."""
    cpu = trials["cpu"]
    if cpu.trained:
        yield Check(name="lightgbm", status="ok", message=f"LightGBM {cpu.version} trains on cpu")
    else:
        why = _first_line(cpu.why)
        remedy = _OPENMP if "libgomp" in why else "reinstall it: `pip install --force-reinstall lightgbm`"
        yield Check(name="lightgbm", status="problem", message=f"LightGBM does not train: {why}", remedy=remedy)
    yield _opencl_check(trials["gpu"])
    yield _cuda_check(trials["cuda"])


def _opencl_check(trial: Trial) -> Check:
    name = "lightgbm gpu"
    if trial.trained and trial.device is not None and opencl.is_processor(trial.device):
        return Check(
            name=name,
            status="warning",
            message=f"--device gpu would train on the host's processors, by OpenCL ({trial.device}): that is no GPU",
            remedy="install the GPU's own OpenCL driver, or use --device cpu, which is faster on processors",
        )
    if trial.trained:
        return Check(name=name, status="ok", message=f"LightGBM trains on {trial.device or 'a GPU'} by OpenCL")
    why = _first_line(trial.why)
    remedy = ""
    if "No OpenCL device" in why or "clGetPlatformIDs" in why or "boost::compute" in why:
        remedy = (
            "install the GPU's OpenCL driver (NVIDIA's comes with its driver; in a container, set"
            " NVIDIA_DRIVER_CAPABILITIES=all)"
        )
    return Check(name=name, status="warning", message=f"--device gpu (OpenCL) does not work: {why}", remedy=remedy)


def _cuda_check(trial: Trial) -> Check:
    name = "lightgbm cuda"
    if trial.trained:
        return Check(name=name, status="ok", message="LightGBM trains by CUDA")
    why = _first_line(trial.why)
    remedy = ""
    if "not enabled in this build" in why:
        remedy = (
            "to have it, with CUDA's toolkit installed: `pip install --no-binary lightgbm"
            " --config-settings=cmake.define.USE_CUDA=ON lightgbm`"
        )
    return Check(name=name, status="warning", message=f"--device cuda does not work: {why}", remedy=remedy)


def _first_line(why: str | None) -> str:
    return (why or "no reason was given").strip().splitlines()[0]


# -- the machine -------------------------------------------------------------------------------------------------------


def _device_checks(config: Config) -> Iterator[Check]:
    from gpusched.daemon import devices

    found = devices.discover(os.environ.get("CUDA_VISIBLE_DEVICES"))
    for device in found.devices:
        memory = f", {device.memory_total_bytes / 2**30:.0f} GiB" if device.memory_total_bytes else ""
        yield Check(name="gpu", status="ok", message=f"{device.name}{memory}, {device.id}, driver {found.driver}")
    selected = select(found.devices, config.devices.include, config.devices.exclude)
    for device in found.devices:
        if device not in selected.devices:
            yield Check(name="gpu", status="ok", message=f"{device.id} is not used: devices.include, devices.exclude")
    for note in found.notes + (selected.notes if found.devices else ()):
        message, _, remedy = note.partition("; ")
        yield Check(name="gpu", status="warning", message=message, remedy=remedy)
    if not selected.devices and config.devices.fallback != "cpu":
        yield Check(
            name="gpu",
            status="problem",
            message='there is no GPU, and devices.fallback = "none" forbids the CPU',
            remedy='set devices.fallback = "cpu", or give --device cpu',
        )
    if (mask := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        yield Check(name="gpu", status="ok", message=f"CUDA_VISIBLE_DEVICES={mask} is the mask of what may be used")
    cores, present = devices.usable_cores(), os.cpu_count()
    yield Check(name="cores", status="ok", message=f"{cores} of {present} cores may be used")


def _descriptor_check() -> Check:
    from gpusched.daemon import devices

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS + DESCRIPTORS_PER_SLOT * devices.usable_cores()
    limit = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    message = f"{soft} files may be open, {limit} at most"
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return Check(
            name="files",
            status="warning",
            message=message,
            remedy=f"raise the limit to {wanted}: `ulimit -Hn {wanted}`",
        )
    return Check(name="files", status="ok", message=message)


def data_check(root: Path) -> Check:
    """Whether there is anything to train on."""
    remedy = "give --data-root, or set data.root in config.toml; `gpusched demo` brings data of its own"
    try:
        with os.scandir(root) as entries:
            symbols = sum(entry.is_dir() or entry.name.endswith((".csv", ".parquet")) for entry in entries)
    except OSError as error:
        why = error.strerror or error
        return Check(
            name="data", status="warning", message=f"the data root {root} cannot be read: {why}", remedy=remedy
        )
    if not symbols:
        return Check(name="data", status="warning", message=f"the data root {root} holds no symbols", remedy=remedy)
    noun = "symbol" if symbols == 1 else "symbols"
    return Check(name="data", status="ok", message=f"the data root {root} holds {symbols} {noun}")


def _writable_check(name: str, path: Path, remedy: str) -> Check:
    """By what there is of the path; nothing is created."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Check(name=name, status="ok", message=f"{path} can be written")
    return Check(name=name, status="warning", message=f"{path} cannot be written", remedy=remedy)


def _daemon_check(config: Config) -> Check:
    from gpusched.client.connection import connect

    try:
        with connect(config.daemon.socket) as daemon:
            about = daemon.daemon
            return Check(name="daemon", status="ok", message=f"gpusched {about.version} answers at {daemon.path}")
    except GpuschedError as error:
        message, _, remedy = str(error).partition("\n")
        return Check(name="daemon", status="ok", message=message, remedy=remedy.strip())


# -- shown -------------------------------------------------------------------------------------------------------------

_MARKS: dict[Status, tuple[str, str, str]] = {
    "ok": ("✓", "+", "green"),
    "warning": ("!", "!", "yellow"),
    "problem": ("✗", "x", "bold red"),
}


def _print(checks: list[Check]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from gpusched.client.cells import clean
    from gpusched.client.render import open_console

    console = open_console()
    if not console.is_terminal:
        for check in checks:
            print("\t".join(clean(text) for text in (check.status, check.name, check.message, check.remedy)))  # noqa: T201
        return
    ascii_only = console.options.ascii_only
    for check in checks:
        fancy, plain, style = _MARKS[check.status]
        line = Text(f"{plain if ascii_only else fancy} ", style)
        line.append(f"{check.name}: ", "bold default")
        line.append(clean(check.message, ascii_only=ascii_only), "default not bold")
        console.print(line)
        if check.remedy:
            console.print(Padding(Text(clean(check.remedy, ascii_only=ascii_only), "dim"), (0, 0, 0, 4)))
