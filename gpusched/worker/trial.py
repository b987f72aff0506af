"""A trial: whether a workload can train on the device that this process is pinned to."""

from __future__ import annotations

import os
from collections.abc import Callable

from gpusched.core.model import DeviceType
from gpusched.worker.cuda import require_device
from gpusched.worker.messages import Started, TrialJob
from gpusched.worker.stream import Stream, error_message
from gpusched.worker.window import error_kind, load_module
from gpusched.workload import Trial

WarmUp = Callable[[DeviceType], Trial]


def serve(job: TrialJob, pipe: int) -> int:
    """Try it for the supervisor at the other end of `pipe`; return the exit code."""
    stream = Stream(pipe)
    stream.send(Started(pid=os.getpid()))
    try:
        require_device(job.device)
        warm_up: WarmUp | None = getattr(load_module(job.workload), "warm_up", None)
        stream.send(Trial(trained=True) if warm_up is None else warm_up(job.device_type))
    except Exception as error:  # whatever a workload raises: it does not train here
        stream.send(error_message(error_kind(error, job.device_type), error))
        return 1
    return 0
