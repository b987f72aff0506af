"""The doctor's trials, each in a separate process: a broken library may crash or hang the process that uses it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import IO, Self, TypeVar

import msgspec

from gpusched import programs
from gpusched.cli.commands.findings import Imported
from gpusched.core.failures import last_words
from gpusched.core.model import DeviceType
from gpusched.worker.threads import capped
from gpusched.workload import Trial

#: bytes read at the end of a process's output
_ANSWER_BYTES = 1 << 20
_TRIAL = "gpusched.cli.commands.trial"
_IMPORT = """\
import importlib, json, sys
try:
    print(json.dumps({"version": importlib.import_module(sys.argv[1]).__version__}))
except Exception as error:
    print(json.dumps({"why": str(error) or type(error).__name__}))
"""

Answer = TypeVar("Answer", Trial, Imported)


def try_all(
    device_types: tuple[DeviceType, ...],
    libraries: Mapping[str, str],
    seconds: float,
    environment: Mapping[str, str] = os.environ,
) -> tuple[dict[DeviceType, Trial], dict[str, Imported]]:
    """Train a tiny model on each device type and import each library (distribution → module), all at once.

    A process that has not answered after `seconds` is killed.
    """
    trying = partial(_Trying, environment)
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        training = {kind: stack.enter_context(trying("-m", _TRIAL, kind)) for kind in device_types}
        importing = {name: stack.enter_context(trying("-c", _IMPORT, module)) for name, module in libraries.items()}
        trials: dict[DeviceType, Trial] = {}
        imported: dict[str, Imported] = {}
        for kind, process in training.items():
            answer = process.answer(Trial, deadline)
            trials[kind] = Trial(trained=False, why=answer) if isinstance(answer, str) else answer
        for name, process in importing.items():
            library = process.answer(Imported, deadline)
            imported[name] = Imported(why=library) if isinstance(library, str) else library
    return trials, imported


class _Trying:
    """A Python process whose last line is its answer; leaving the context kills it and its children."""

    def __init__(self, environment: Mapping[str, str], *arguments: str) -> None:
        # Files, not pipes: a child of the process (OpenCL drivers start linkers) could hold a pipe open. In memory: a
        # machine where nothing temporary can be written is one to examine.
        self._out, self._err = os.fdopen(os.memfd_create("out"), "w+b"), os.fdopen(os.memfd_create("err"), "w+b")
        # Like the launcher: without the current directory in sys.path, single-threaded.
        self._process = programs.start(
            [sys.executable, "-P", *arguments],
            stdout=self._out,
            stderr=self._err,
            environment={**environment, **capped(1)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        programs.signal_group(self._process, signal.SIGKILL)
        self._process.wait()
        self._out.close()
        self._err.close()

    def answer(self, kind: type[Answer], deadline: float) -> Answer | str:
        """The answer of the process, or a sentence about how it ended without one."""
        code = programs.ended(self._process, max(0.0, deadline - time.monotonic()))
        if code is None:
            return "it did not answer in time"
        try:
            return msgspec.json.decode(_lines(self._out)[-1], type=kind)
        except (IndexError, msgspec.MsgspecError):
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            lines = _lines(self._err)
            died = f"the process ended with {how}: {(lines or ['it said nothing'])[-1]}"
            return (last_words("\n".join(lines)) if code == -signal.SIGABRT else None) or died


def _lines(file: IO[bytes]) -> list[str]:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _ANSWER_BYTES))
    return file.read().decode(errors="replace").strip().splitlines()
