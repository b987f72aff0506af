"""Run one window in a slot: load the workload, call it for the window, commit its artifacts.

`run_window` does all of it and raises like any function; `gpusched train` calls it in its own process. `serve` calls
it in a forked process, and sends the result or the error to the supervisor.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import msgspec

from gpusched.artifacts import NotCommittable, Partial
from gpusched.core.failures import kind_of_words
from gpusched.core.model import DeviceType, WindowResult
from gpusched.directories import NotOurs
from gpusched.leaving import exit_code, leave
from gpusched.metadata import OWN_ENTRIES, Metadata
from gpusched.worker import linux
from gpusched.worker.cuda import CudaError, require_device
from gpusched.worker.identity import Identity
from gpusched.worker.import_timer import LEAST_S, ImportTimer
from gpusched.worker.loading import WorkloadFunction, code_of, load_function, load_module
from gpusched.worker.messages import ErrorKind, WindowJob
from gpusched.worker.settings import made_settings, plain_settings
from gpusched.worker.stream import MergedProgress, Stream, error_message, words
from gpusched.workload import (
    BadData,
    BadParameters,
    DeviceMismatch,
    NoData,
    ProgramFailed,
    ProgramKilled,
    ProgramSkipped,
    Report,
    Result,
    Task,
    device_fingerprint,
)


def run_window(job: WindowJob, report: Report, *, durable: bool = True) -> WindowResult:
    """Train one window and commit its artifacts. Passes on the workload's exceptions."""
    began = time.monotonic()
    function = load_function(job.workload)
    task = msgspec.structs.replace(job.task, settings=made_settings(job.workload, job.task.settings))
    module = load_module(job.workload)
    opens_device = getattr(module, "OPENS_DEVICE", True)
    device_seen = require_device(task.device, task.device_type) if opens_device else None
    partial = Partial(Path(job.output_dir), task.label, guarded=job.guarded)
    try:
        settings, code = plain_settings(task.settings), code_of(job.workload)
        identity = Identity(job.workload, code, settings, task.data_root, task.after)
        # Taken before the training: data that change later have another fingerprint, so the result is made again.
        fingerprint = identity.fingerprint(task.symbol, task.start, task.end, None)
        with ImportTimer() as imports:
            result = _result(job, _returned_by(function, task, partial.path, report))
        if imports.seconds >= LEAST_S:
            phases = {"import": round(imports.seconds, 6)} | result.phases
            result = msgspec.structs.replace(result, phases=phases)
        if result.fingerprint is not None and hasattr(module, "survey"):
            fingerprint = identity.fingerprint(task.symbol, task.start, task.end, result.fingerprint)
        _require_closed(partial)
        report("commit")
        metadata = msgspec.structs.replace(
            _metadata(job, task, result, fingerprint),
            device_seen=device_seen,
            workload_settings=settings,
            workload_code=code.digest,
            seconds=round(time.monotonic() - began, 6),
        )
        path = partial.commit(metadata, durable=durable)
    except BaseException:
        with contextlib.suppress(OSError):  # it is swept later
            partial.discard()
        raise
    return msgspec.structs.replace(metadata.result(path), moved_aside=partial.moved_aside)


def branch_random_numbers(label: str) -> None:
    """Seed numpy's own generator from its state and the label, once in a process whose workload is loaded.

    Each fork has a copy of the launcher's state, so all windows would draw the same numbers. Where the module has
    seeded it, each window draws the same ones every time. (Python's `random` seeds itself anew in each fork.)
    """
    if (numbers := sys.modules.get("numpy.random")) is not None:
        numbers.seed([*numbers.bytes(16), *label.encode()])


def serve(job: WindowJob, stream: Stream) -> int:
    """Run a window for the supervisor at the other end of `stream`; return the exit code."""
    report = MergedProgress(stream)
    branch_random_numbers(job.task.label)
    try:
        result = run_window(job, report)
    except ProgramKilled as end:
        report.stop()
        linux.die_of(end.signal)
    except BaseException as error:  # a cancelled task of asyncio and a panic of Rust are no Exception
        report.stop()
        _lift_memory_limit()
        message = error_message(error_kind(error, job.task.device_type), error)
        if not isinstance(error, ProgramFailed | ProgramSkipped):  # theirs is in the log already
            with contextlib.suppress(Exception):  # closed or replaced by the workload, or the disk is full
                print(message.traceback, file=sys.stderr, flush=True)  # noqa: T201  # stderr is the attempt's log
        stream.send(message)
        return exit_code(error) if isinstance(error, SystemExit) else 1
    report.stop()
    stream.send(result)
    return 0


def error_kind(error: BaseException, device_type: DeviceType) -> ErrorKind:
    """Classify an error by whether and how trying again can help."""
    match error:
        case NoData():
            return "no_data"
        case BadData():
            return "bad_data"
        case BadParameters() | NotOurs():
            return "bad_parameters"
        case DeviceMismatch():
            return "device_mismatch"
        case NotCommittable():
            return "permanent"
        case CudaError() | ProgramFailed():
            return error.kind
        case MemoryError():
            return "memory"
        case SystemExit():
            return "exited"
    return kind_of_words(words(error), on_cpu=device_type == "cpu") or "raised"


def _returned_by(function: WorkloadFunction, task: Task, directory: Path, report: Report) -> object:
    """Call a workload function. Passes on its exceptions.

    A process that it has forked and that comes back ends here, as a program would: it would commit or discard the
    directory under its parent.
    """
    process = os.getpid()
    try:
        returned = function(task, directory, report)
    except BaseException as error:
        if os.getpid() == process:
            raise
        if isinstance(error, SystemExit):
            leave(exit_code(error))
        traceback.print_exc(file=sys.stderr)
        leave(1)
    if os.getpid() != process:
        leave(0)
    return returned


def _require_closed(partial: Partial) -> None:
    """Raise NotCommittable if a file of the result is still open for writing: its end may be in no file yet."""
    if not partial.open_files():
        return
    # No collection of garbage first: it closes a file before the buffers above it are written.
    if (logging := sys.modules.get("logging")) is not None:
        logging.shutdown()  # nobody closes the file of a log
    if names := partial.open_files():
        raise NotCommittable(f"{names[0]} is still open, so its end may be missing: close it once it is written")


def _result(job: WindowJob, returned: object) -> Result:
    """What a workload has returned: a result, or its metrics alone. Raises BadParameters."""
    result = Result(metrics=returned) if isinstance(returned, dict) else returned
    if not isinstance(result, Result):
        what = f"{type(returned).__name__}, no Result or metrics"
        raise BadParameters(f"workload {job.workload!r} returned {what}")
    if taken := sorted(OWN_ENTRIES & result.metadata.keys()):
        raise BadParameters(f"workload {job.workload!r} returned metadata that gpusched writes: {', '.join(taken)}")
    return result


def _metadata(job: WindowJob, task: Task, result: Result, fingerprint: str | None) -> Metadata:
    plain = _recorded(job, result)
    return Metadata(
        label=task.label,
        symbol=task.symbol,
        start=task.start,
        end=task.end,
        workload=job.workload,
        device_type=task.device_type,
        device=task.device,
        fingerprint=None if fingerprint is None else device_fingerprint(fingerprint, task.device_type),
        metrics=plain["metrics"],
        sample_counts=plain["sample_counts"],
        constant=plain["constant"],
        phases=plain["phases"],
        seconds=0.0,
        trained_at=dt.datetime.now(dt.UTC),
        details=plain["metadata"],
    )


def _recorded(job: WindowJob, result: Result) -> Any:
    """A result as JSON has it. Raises BadParameters, before anything is committed, if it cannot be recorded."""
    refusal = f"workload {job.workload!r} returned a Result that cannot be recorded"
    try:
        plain = msgspec.to_builtins(result, enc_hook=_plain, str_keys=True)
        phases = msgspec.convert(plain, Result).phases
        msgspec.json.encode(plain)  # fails for the lone surrogates of a file name that is not UTF-8
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadParameters(f"{refusal}: {error}") from error
    if not all(map(math.isfinite, phases.values())):
        raise BadParameters(f"{refusal}: its phases have to be finite numbers of seconds")
    return plain


def _plain(value: object) -> object:
    """Convert scalars and arrays of numpy and pandas for JSON, without importing these to recognize them."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, dt.date):  # a Timestamp of pandas: msgspec takes the class itself only
        return value.isoformat()
    to_list = getattr(value, "tolist", None)
    if to_list is not None:
        return to_list()
    raise TypeError(f"it has a {type(value).__name__}, which is no JSON")


def _lift_memory_limit() -> None:
    """Lift the soft limit: a process that ran into it still needs memory to report that."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
