"""The warm-up: what LightGBM can really train with on the GPUs that were found, and their kernels compiled.

The first use of a device compiles kernels for seconds, each process for itself if they start at once. So one small
process per model of GPU and device type tries before any slot opens, and leaves the kernels in a cache that gpusched
owns. A GPU on which nothing trains is not used, and a note says why.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import anyio
import msgspec

from gpusched.config import Config
from gpusched.core.failures import last_words
from gpusched.core.model import Device, DeviceChoice, DeviceType
from gpusched.core.selection import Selected
from gpusched.daemon.launcher import Launcher
from gpusched.daemon.link import WorkloadNotLoadable
from gpusched.daemon.logs import end_of_log, size_of_log
from gpusched.daemon.supervisor import environment
from gpusched.errors import LaunchError
from gpusched.teacher.opencl import ALLOW_CPU_OPENCL, is_processor
from gpusched.worker.messages import Error, PipeMessage, TrialJob
from gpusched.workload import Trial

#: seconds that one trial may take: PoCL compiled for 34 s, with the processors to itself
TRIAL_S = 180.0

#: device types to try in turn, by what a batch asks for
_CANDIDATES: dict[DeviceChoice, tuple[DeviceType, ...]] = {
    "auto": ("cuda", "gpu"),
    "mixed": ("cuda", "gpu"),
    "gpu": ("gpu",),
    "cuda": ("cuda",),
}


def launcher_environment(config: Config) -> dict[str, str]:
    """This process's environment with the kernel caches below the cache directory, for the launcher and its windows."""
    kernels = config.cache.dir / "kernels"
    own = {"POCL_CACHE_DIR": kernels / "pocl", "CUDA_CACHE_PATH": kernels / "cuda"}
    for path in own.values():
        with contextlib.suppress(OSError):  # without a cache it is slow, and works
            path.mkdir(parents=True, exist_ok=True)
    allowed = "1" if config.devices.allow_cpu_opencl else "0"
    return {**os.environ, **{name: str(path) for name, path in own.items()}, ALLOW_CPU_OPENCL: allowed}


class WarmUp:
    """Tries each model of GPU once with each device type, and remembers what came of it."""

    def __init__(self, launcher: Launcher, *, workload: str, log_path: Path) -> None:
        self._launcher = launcher
        self._workload = workload
        self._log_path = log_path
        self._trials: dict[tuple[str, DeviceType], Trial] = {}
        #: of two that ask for the same at the same time, the second waits for the first one's trial
        self._trying = anyio.Lock()

    async def resolve(self, found: Selected, wanted: DeviceChoice) -> Selected:
        """The GPUs that can be used for batches which ask for `wanted`, each with its device type, and the notes."""
        models = {device.name: device for device in reversed(found.devices)}
        resolved: dict[str, DeviceType | None] = {}
        notes: list[str] = []

        async def try_model(device: Device) -> None:
            resolved[device.name], said = await self._try(device, _CANDIDATES[wanted])
            notes.extend(said)

        async with self._trying, anyio.create_task_group() as tasks:
            for device in models.values():
                tasks.start_soon(try_model, device)
        usable = []
        for device in found.devices:
            device_type = resolved[device.name]
            if device_type is not None:
                usable.append(msgspec.structs.replace(device, device_type=device_type))
        return Selected(tuple(usable), (*found.notes, *sorted(notes)))

    async def _try(self, device: Device, candidates: tuple[DeviceType, ...]) -> tuple[DeviceType | None, list[str]]:
        """The first device type that trains there, or None, and what there is to say about that."""
        failures: list[str] = []
        for device_type in candidates:
            key = (device.name, device_type)
            if key not in self._trials:
                self._trials[key] = _checked(device, await self._run(device, device_type))
            trial = self._trials[key]
            if trial.trained:
                # That the PyPI wheel has no CUDA is no news.
                told = [why for why in failures if "not enabled in this build" not in why]
                return device_type, [f"{device.name} is used with device type {device_type}: {why}" for why in told]
            failures.append(f"{device_type} does not work ({(trial.why or 'no reason was given').splitlines()[0]})")
        return None, [f"{device.name} is not used: {', '.join(failures)}; run `gpusched doctor`"]

    async def _run(self, device: Device, device_type: DeviceType) -> Trial:
        """One trial in a process that is pinned to `device`."""
        trial: Trial | None = None

        def on_message(message: PipeMessage) -> None:
            nonlocal trial
            match message:
                case Trial():
                    trial = message
                case Error(message=why):
                    trial = Trial(trained=False, why=why)

        logged = size_of_log(self._log_path)
        try:
            with anyio.fail_after(TRIAL_S):
                process = await self._launcher.fork(
                    TrialJob(workload=self._workload, device_type=device_type, device=device.id),
                    log_path=self._log_path,
                    env=environment(device),
                    cpus=device.cpus,
                )
                end = await process.wait(on_message)
        except TimeoutError:
            return Trial(trained=False, why=f"it did not train within {TRIAL_S:g} s")
        except WorkloadNotLoadable:
            # Not the device's fault; the first window says what is wrong.
            return Trial(trained=True)
        except (LaunchError, OSError) as error:
            return Trial(trained=False, why=str(error))
        if trial is None:
            how = f"signal {end.signal}" if end.signal else f"exit code {end.exit_code}"
            died = f"the process that tried ended with {how}, see {self._log_path}"
            return Trial(trained=False, why=last_words(end_of_log(self._log_path, after=logged)) or died)
        return trial


def _checked(device: Device, trial: Trial) -> Trial:
    """Refuse a trial that trained on a GPU of another make: OpenCL's default may be the one on the mainboard."""
    if not trial.trained or trial.device is None or is_processor(trial.device):
        return trial
    if _words(device.name) & _words(trial.device):
        return trial
    return Trial(trained=False, why=f"it trained on another device, {trial.device}")


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.casefold())) - {"nvidia", "r", "tm"}
