"""The doctor's diagnoses: from an observation to a sentence, a severity and a remedy.

Pure: nothing here looks at the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from gpusched.core.model import DeviceChoice, DeviceType
from gpusched.core.wording import counted
from gpusched.devices.kind import Note
from gpusched.teacher.installed import NCCL, remedy_for
from gpusched.teacher.opencl import is_processor
from gpusched.workload import Trial

Status = Literal["ok", "warning", "problem"]

#: descriptors that a slot needs (a pipe and a pidfd), and that everything else needs
DESCRIPTORS_PER_SLOT, DESCRIPTORS = 2, 128
#: less free space than this on a file system is a warning
LITTLE_SPACE_BYTES = 1 << 30

_REINSTALL = "reinstall it: `pip install --force-reinstall lightgbm`"
_OPENCL = (
    "install the GPU's OpenCL driver (NVIDIA's comes with its driver; in a container, set"
    " NVIDIA_DRIVER_CAPABILITIES=all)"
)
_NO_OPENCL = ("No OpenCL device", "clGetPlatformIDs", "boost::compute", "libOpenCL")
#: LightGBM's error for a device type that it was built without
NO_CUDA_BUILD = "not enabled in this build"
_CUDA_BUILD = "to have it, with NVIDIA's CUDA toolkit installed: `gpusched doctor --build-cuda`"
#: part of a CUDA error for a build that does not fit this machine → remedy
_OTHER_BUILD = {
    NO_CUDA_BUILD: _CUDA_BUILD,
    "libnccl": NCCL,
    "no kernel image": "this LightGBM is built for other GPUs: `gpusched doctor --build-cuda` builds it for those here",
    "driver version is insufficient": (
        "update the NVIDIA driver; or set CUDA_HOME to a toolkit that is no newer than the driver, and build LightGBM"
        " with that: `gpusched doctor --build-cuda`"
    ),
}
_ONLY_GPUS = "nothing, if windows are to train on the CPU"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check. A `problem` makes training impossible, a `warning` does not."""

    name: str
    status: Status
    message: str
    #: the next step, empty if none is needed
    remedy: str = ""


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """The result of importing a library: its version, or why it failed."""

    version: str | None = None
    why: str | None = None


# -- LightGBM ----------------------------------------------------------------------------------------------------------


def lightgbm_checks(trials: Mapping[DeviceType, Trial]) -> Iterator[Check]:
    """The checks of the trials. Only a CPU that does not train is a problem: GPUs are optional."""
    cpu = trials["cpu"]
    if cpu.trained:
        yield Check(name="lightgbm", status="ok", message=f"LightGBM {cpu.version} trains on cpu")
    else:
        why = first_line(cpu.why)
        remedy = remedy_for(why) or _REINSTALL
        yield Check(name="lightgbm", status="problem", message=f"LightGBM does not train: {why}", remedy=remedy)
    yield _opencl_check(trials["gpu"])
    yield _cuda_check(trials["cuda"])


def _opencl_check(trial: Trial) -> Check:
    name = "lightgbm gpu"
    if trial.trained and _on_processor(trial):
        return Check(
            name=name,
            status="warning",
            message=f"--device gpu would train on the host's processors, by OpenCL ({trial.device}): that is no GPU",
            remedy="install the GPU's own OpenCL driver, or use --device cpu, which is faster on processors",
        )
    if trial.trained:
        return Check(name=name, status="ok", message=f"LightGBM trains on {trial.device or 'a GPU'} by OpenCL")
    why = first_line(trial.why)
    remedy = _OPENCL if any(sign in why for sign in _NO_OPENCL) else _ONLY_GPUS
    return Check(name=name, status="warning", message=f"--device gpu (OpenCL) does not work: {why}", remedy=remedy)


def _on_processor(trial: Trial) -> bool:
    return trial.device is not None and is_processor(trial.device)


def _cuda_check(trial: Trial) -> Check:
    name = "lightgbm cuda"
    if trial.trained:
        return Check(name=name, status="ok", message="LightGBM trains by CUDA")
    why = first_line(trial.why)
    remedy = next((text for sign, text in _OTHER_BUILD.items() if sign in why), _ONLY_GPUS)
    return Check(name=name, status="warning", message=f"--device cuda does not work: {why}", remedy=remedy)


def exchange_check(put_back: str | None) -> Iterator[Check]:
    """The check for an interrupted exchange of LightGBM; `put_back` is the command that undoes it, or None."""
    if put_back is not None:
        yield Check(
            name="lightgbm",
            status="warning",
            message="LightGBM was being replaced by one with CUDA, and that was interrupted",
            remedy=f"`gpusched doctor --build-cuda` finishes it, `{put_back}` undoes it",
        )


def first_line(why: str | None) -> str:
    return (why or "no reason was given").strip().splitlines()[0]


def library_checks(imported: Mapping[str, Imported]) -> Iterator[Check]:
    """The checks of the libraries. Every window needs TA-Lib for its features, only some data need pandas."""
    for name, library in imported.items():
        if library.why is None:
            yield Check(name=name, status="ok", message=f"{name} {library.version}")
            continue
        needed = name != "pandas"
        use = "no window can be trained" if needed else "Parquet files and load_results need it"
        yield Check(
            name=name,
            status="problem" if needed else "warning",
            message=f"{name} cannot be imported, {use}: {first_line(library.why)}",
            remedy=f"reinstall it: `pip install --force-reinstall {name}`",
        )


# -- the machine -------------------------------------------------------------------------------------------------------


def gpu_notes(notes: tuple[Note, ...]) -> Iterator[Check]:
    """The notes of the search for GPUs."""
    for note in notes:
        yield Check(name="gpu", status="warning", message=note.message, remedy=note.remedy or _ONLY_GPUS)


def device_check(
    wanted: DeviceChoice, *, gpus: int, fallback: bool, trials: Mapping[DeviceType, Trial], cpu_opencl: bool = False
) -> Check:
    """The device that windows with `run.device` = `wanted` train on. `fallback`: `auto` may choose the CPU.

    `cpu_opencl`: processors count as a GPU if OpenCL offers them.
    """
    name = "device"
    kinds: tuple[DeviceType, ...] = ("cuda", "gpu")
    works = [kind for kind in kinds if trials[kind].trained and (cpu_opencl or not _on_processor(trials[kind]))]
    usable = works if gpus else []
    if wanted == "cpu":
        return Check(name=name, status="ok", message='windows train on the CPU (run.device = "cpu")')
    any_type = wanted in ("auto", "mixed")
    if wanted in usable or (any_type and usable):
        where = f"{counted(gpus, 'GPU')}, device type {usable[0] if any_type else wanted}"
        if wanted == "mixed":
            where = f"the CPU and {where}, at once"
        elif wanted == "auto" and fallback:
            where = f"the CPU or on {where}, whichever finishes a batch first"
        return Check(name=name, status="ok", message=f"windows train on {where}")
    why = "there is no GPU" if not gpus else "LightGBM trains on no GPU here"
    if not any_type:
        why = why if not gpus else f"LightGBM does not train with device type {wanted} on a GPU"
        return Check(
            name=name,
            status="problem",
            message=f'windows cannot be trained with run.device = "{wanted}": {why}',
            remedy='give --device auto or --device cpu, or set run.device = "auto"',
        )
    if fallback or wanted == "mixed":
        status: Status = "warning" if gpus else "ok"
        remedy = "see the lines on lightgbm gpu and lightgbm cuda" if gpus else ""
        return Check(name=name, status=status, message=f"windows train on the CPU: {why}", remedy=remedy)
    return Check(
        name=name,
        status="problem",
        message=f'{why}, and devices.fallback = "none" forbids the CPU',
        remedy='set devices.fallback = "cpu", or give --device cpu',
    )


def files_check(soft: int | None, hard: int | None, slots: int) -> Check:
    """Compare the limits on open files (None: unlimited) with the needs of `slots` slots."""
    needed = DESCRIPTORS + DESCRIPTORS_PER_SLOT * slots
    now, most = ("any number of" if limit is None else str(limit) for limit in (soft, hard))
    message = f"{now} files may be open, {most} at most; {slots} slots need {needed}"
    if hard is not None and hard < needed:
        remedy = f"raise the limit to {needed}: `ulimit -Hn {needed}`, LimitNOFILE= of a service"
    elif soft is not None and soft < needed:
        remedy = f"before `gpusched run`: `ulimit -n {needed}`; the daemon raises its own limit"
    else:
        return Check(name="files", status="ok", message=message)
    return Check(name="files", status="warning", message=message, remedy=remedy)


def data_check(root: str, symbols: int | None, why: str = "") -> Check:
    """Whether there is data to train on; `symbols` is None if the root cannot be read, for the reason `why`."""
    remedy = "give --data-root, or set data.root in config.toml; `gpusched demo` brings data of its own"
    if symbols is None:
        message = f"the data root {root} cannot be read: {why}"
        return Check(name="data", status="warning", message=message, remedy=remedy)
    if not symbols:
        return Check(name="data", status="warning", message=f"the data root {root} holds no symbols", remedy=remedy)
    return Check(name="data", status="ok", message=f"the data root {root} holds {counted(symbols, 'symbol')}")


def state_check(path: str, free_bytes: int) -> Check:
    """Whether the daemon's state has room to grow: nothing is launched without."""
    if free_bytes < LITTLE_SPACE_BYTES:
        message = f"its state in {path} has only {free_bytes >> 20} MiB of disk left"
        return Check(name="daemon", status="warning", message=message, remedy="make room, or set daemon.state_dir")
    return Check(name="daemon", status="ok", message=f"its state is in {path}, with {free_bytes / 2**30:.0f} GiB free")


def space_check(name: str, path: str, *, why: str | None, free_bytes: int, remedy: str) -> Check:
    """Whether a directory has room and can be written; `why` is the reason why not, or None."""
    if why is not None:
        return Check(name=name, status="warning", message=f"{path} cannot be written: {why}", remedy=remedy)
    if free_bytes < LITTLE_SPACE_BYTES:
        message = f"{path} can be written, but only {free_bytes >> 20} MiB are free"
        return Check(name=name, status="warning", message=message, remedy=f"make room, or {remedy}")
    return Check(name=name, status="ok", message=f"{path} can be written, {free_bytes / 2**30:.0f} GiB are free")
