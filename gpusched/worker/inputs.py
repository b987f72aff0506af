"""The inputs of windows: the files that must be on a machine before they can be trained there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from gpusched.worker.identity import listing
from gpusched.worker.loading import load_function, load_module
from gpusched.worker.messages import InputFiles, InputsJob
from gpusched.worker.settings import made_settings
from gpusched.worker.stream import Stream, error_message
from gpusched.worker.window import error_kind
from gpusched.workload import BadParameters, Task


def input_files(job: InputsJob) -> InputFiles:
    """The files for the windows of a symbol. Raises BadParameters, OSError, and the workload's own errors."""
    load_function(job.workload)
    find: Callable[[Task], Iterable[str | os.PathLike[str]]] | None = getattr(load_module(job.workload), "inputs", None)
    root = job.task.data_root
    if find is None:
        return InputFiles(names=tuple(name for name, _, _ in listing(root, job.task.symbol)))
    task = msgspec.structs.replace(job.task, settings=made_settings(job.workload, job.task.settings))
    return InputFiles(names=tuple(_within(root, Path(root, path)) for path in find(task)))


def serve(job: InputsJob, stream: Stream) -> int:
    """Answer the supervisor at the other end of `stream`; return the exit code."""
    try:
        stream.send(input_files(job))
    except Exception as error:
        stream.send(error_message(error_kind(error, "cpu"), error))
        return 1
    return 0


def _within(root: str, path: Path) -> str:
    try:
        return os.path.normpath(path.relative_to(root))
    except ValueError:
        raise BadParameters(f"the workload's inputs() names {path}, which is not below {root}") from None
