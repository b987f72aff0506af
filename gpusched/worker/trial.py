"""A trial: whether a workload can train on the device that this process is pinned to."""

from __future__ import annotations

import resource
from collections.abc import Callable

from gpusched.core.model import DeviceType
from gpusched.worker.cuda import CudaError, require_device
from gpusched.worker.loading import load_module
from gpusched.worker.messages import TrialJob
from gpusched.worker.stream import Stream, error_message
from gpusched.worker.window import error_kind
from gpusched.workload import Trial

WarmUp = Callable[[DeviceType], Trial]


def serve(job: TrialJob, stream: Stream) -> int:
    """Run a trial for the supervisor at the other end of `stream`, whose last message counts; return the exit code.

    If CUDA refuses a context, the workload is tried all the same: only the workload knows whether it was built for CUDA
    at all, which is the better answer. CUDA's error is sent first, since LightGBM may die of it.
    """
    try:
        refused = _refused(job)
        if refused is not None:
            stream.send(error_message(refused.kind, refused))
            leave_no_core()
        warm_up: WarmUp | None = getattr(load_module(job.workload), "warm_up", None)
        trial = Trial(trained=True) if warm_up is None else warm_up(job.device_type)
    except Exception as error:  # any error of a workload: it does not train here
        stream.send(error_message(error_kind(error, job.device_type), error))
        return 1
    if refused is None or not trial.trained:
        stream.send(trial)
    return 0


def _refused(job: TrialJob) -> CudaError | None:
    """CUDA's error if it cannot use this device now."""
    try:
        require_device(job.device, job.device_type)
    except CudaError as error:
        return error
    return None


def leave_no_core() -> None:
    """Switch core dumps off: the process may be expected to crash."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
