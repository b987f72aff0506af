"""The warm-up: find the device type with which LightGBM trains on a GPU, and compile its kernels.

The first use of a device compiles kernels for seconds, and processes that start at once would each compile their own.
So one small process per model of GPU and device type trains before any slot opens, and leaves the kernels in a cache
that gpusched owns. A GPU on which no device type trains is not used, and a note says why. `gpusched.supervisor.fleet`
decides when a GPU is tried, and tried again.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import anyio
import msgspec

from gpusched import files
from gpusched.config import Config
from gpusched.core.failures import last_words
from gpusched.core.model import Device, DeviceChoice, DeviceType
from gpusched.engines.engine import Verdict, WorkloadNotLoadable
from gpusched.engines.local.launcher import Confines, Launcher
from gpusched.engines.local.logs import end_of_log, size_of_log
from gpusched.errors import LaunchError
from gpusched.teacher.opencl import ALLOW_CPU_OPENCL, is_processor
from gpusched.worker.messages import Error, PipeMessage, TrialJob
from gpusched.workload import Trial

#: seconds that one trial may take: PoCL compiled for 34 s, with the processors to itself
TRIAL_S = 180.0

#: part of LightGBM's message about a device type that it was not built with
_NOT_BUILT = "not enabled in this build"

#: device types to try in turn, by the requested device
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
        with contextlib.suppress(OSError):  # it works without a cache, only more slowly
            files.make_private_directory(path)
    allowed = "1" if config.devices.allow_cpu_opencl else "0"
    return {**os.environ, **{name: str(path) for name, path in own.items()}, ALLOW_CPU_OPENCL: allowed}


class WarmUp:
    """Tries each model of GPU with each device type, and remembers the types that work.

    If the first GPU of a model does not train, each of its twins is tried by itself: the cause may be the GPU's own,
    such as a full memory. For the same reason no twin answers for a GPU that is to be tried afresh.
    """

    def __init__(
        self,
        launcher: Launcher,
        environment: Callable[[Device], dict[str, str | None]],
        *,
        workload: str,
        log_path: Path,
    ) -> None:
        """`environment`: the variables that pin a process to a device."""
        self._launcher = launcher
        self._environment = environment
        self._workload = workload
        self._log_path = log_path
        #: final trials by model and device type: successes, and types that LightGBM was not built with
        self._settled: dict[tuple[str, DeviceType], Trial] = {}
        #: by model: a second request for it waits for the trial of the first
        self._trying: dict[str, anyio.Lock] = {}

    async def judge(
        self,
        devices: Iterable[Device],
        wanted: DeviceChoice,
        tell: Callable[[Verdict], None],
        *,
        afresh: Collection[str] = (),
    ) -> None:
        """Call `tell` with the verdict on each of `devices`, as soon as it is known; see `Engine.judge`."""
        models: dict[str, list[Device]] = {}
        for device in devices:
            models.setdefault(device.name, []).append(device)
        async with anyio.create_task_group() as tasks:
            for twins in models.values():
                tasks.start_soon(self._judge_model, twins, _CANDIDATES[wanted], tell, afresh)

    async def _judge_model(
        self,
        twins: Sequence[Device],
        candidates: tuple[DeviceType, ...],
        tell: Callable[[Verdict], None],
        afresh: Collection[str],
    ) -> None:
        async def judge(device: Device) -> None:
            tell(await self._judge(device, candidates, afresh=device.id in afresh))

        async with self._trying.setdefault(twins[0].name, anyio.Lock()):
            await judge(twins[0])
            async with anyio.create_task_group() as tasks:
                for device in twins[1:]:
                    tasks.start_soon(judge, device)

    async def _judge(self, device: Device, candidates: tuple[DeviceType, ...], *, afresh: bool) -> Verdict:
        """Try the device types in turn; the verdict has the first one that trains."""
        failures: list[str] = []
        for device_type in candidates:
            key = (device.name, device_type)
            trial = self._settled.get(key)
            if trial is None or (afresh and trial.trained):
                trial = _checked(device, await self._run(device, device_type))
                if trial.trained or _NOT_BUILT in (trial.why or ""):
                    self._settled[key] = trial
            if trial.trained:
                # The PyPI wheel has no CUDA: not worth a note.
                why = ", ".join(failure for failure in failures if _NOT_BUILT not in failure)
                return Verdict(msgspec.structs.replace(device, lightgbm_type=device_type), trains=True, why=why)
            failures.append(f"{device_type} does not work ({(trial.why or 'no reason was given').splitlines()[0]})")
        return Verdict(device, trains=False, why=", ".join(failures))

    async def _run(self, device: Device, device_type: DeviceType) -> Trial:
        """Run one trial, in a process that is pinned to `device`."""
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
                    Confines(log_path=self._log_path, env=self._environment(device), cpus=device.cpus),
                )
                end = await process.wait(on_message)
        except TimeoutError:
            return Trial(trained=False, why=f"it did not train within {TRIAL_S:g} s")
        except WorkloadNotLoadable:
            # Not the device's fault; the first window's failure will show the cause.
            return Trial(trained=True)
        except (LaunchError, OSError) as error:
            return Trial(trained=False, why=str(error))
        if trial is None:
            died = f"the process that tried ended with {end.status}, see {self._log_path}"
            return Trial(trained=False, why=last_words(end_of_log(self._log_path, after=logged)) or died)
        return trial


def _checked(device: Device, trial: Trial) -> Trial:
    """Reject a trial that trained on a GPU of another make: OpenCL's default may be the one on the mainboard."""
    if not trial.trained or trial.device is None or is_processor(trial.device):
        return trial
    if _words(device.name) & _words(trial.device):
        return trial
    return Trial(trained=False, why=f"it trained on another device, {trial.device}")


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.casefold())) - {"nvidia", "r", "tm"}
