"""Between the fork and the workload: turn a copy of the launcher into a window process of its own."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Set
from typing import NoReturn

from gpusched import shared
from gpusched.leaving import exit_code
from gpusched.worker import inputs, linux, settings, survey, trial, window
from gpusched.worker.messages import Fork, InputsJob, Job, SettingsJob, Started, SurveyJob, TrialJob, WindowJob
from gpusched.worker.stream import ORPHANED, Stream
from gpusched.worker.threads import capped

#: descriptor of the pipe in every window process: the first after the standard ones
PIPE = 3
#: a window's OOM score adjustment: a machine out of memory kills a window, not the launcher or the daemon
OOM_SCORE_ADJ = b"500"

#: signals that the launcher receives from a descriptor; a window must unblock them
BLOCKED_SIGNALS = (signal.SIGCHLD, signal.SIGTERM)


def become_window(
    request: Fork, pipe: int, log: int, launcher: int, allowed_cpus: Set[int], memory_file: int | None
) -> NoReturn:
    """Run `request.job` in this freshly forked process. Never returns. `memory_file`: see `gpusched.shared`."""
    code = 1
    try:
        _detach(pipe, log, launcher, memory_file)
        _apply_limits(request, allowed_cpus)
        _apply_environment(request)
        gc.enable()
        stream = Stream(PIPE)
        stream.send(Started(pid=os.getpid()))
        code = _serve(request.job, stream)
    except SystemExit as stop:
        code = exit_code(stop)
    except BaseException:  # nothing above could catch it: it goes to the log
        traceback.print_exc(file=sys.stderr)
    finally:
        try:
            _flush()
        finally:  # whatever the workload has made of its streams: a copy of the launcher would kill the other windows
            os._exit(code)


def _serve(job: Job, stream: Stream) -> int:
    """Do the job for the supervisor at the other end of `stream`; return the exit code."""
    match job:
        case WindowJob():
            return window.serve(job, stream)
        case SurveyJob():
            return survey.serve(job, stream)
        case SettingsJob():
            return settings.serve(job, stream)
        case InputsJob():
            return inputs.serve(job, stream)
        case TrialJob():
            return trial.serve(job, stream)


def _detach(pipe: int, log: int, launcher: int, memory_file: int | None) -> None:
    """Give the process its own session, signals and descriptors, and let it die with the launcher."""
    os.setsid()
    linux.die_with_parent(signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(ORPHANED)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if pipe != PIPE:
        os.dup2(pipe, PIPE, inheritable=False)
    first = PIPE + 1
    if memory_file is not None and memory_file >= first:
        os.closerange(first, memory_file)
        shared.inherit(memory_file)
        first = memory_file + 1
    linux.close_from(first)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_SIGNALS)


def _apply_limits(request: Fork, allowed_cpus: Set[int]) -> None:
    cpus = allowed_cpus & set(request.cpus)
    if cpus:
        os.sched_setaffinity(0, cpus)
    if request.memory_limit_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = request.memory_limit_bytes
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, OOM_SCORE_ADJ)
        finally:
            os.close(descriptor)
    except OSError:
        pass  # a hardened container; the kernel then chooses unaided


def _apply_environment(request: Fork) -> None:
    caps = capped(request.job.task.threads) if isinstance(request.job, WindowJob) else {}
    for name, value in (caps | request.env).items():  # update() would have each window copy pages of abstract classes
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _flush() -> None:
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed or replaced by the workload, or the disk is full
            file.flush()
