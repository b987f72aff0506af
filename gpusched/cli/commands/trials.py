"""What the doctor tries in processes of their own, since what does not work may crash or hang whoever tries it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import IO, Self, TypeVar

import msgspec

from gpusched.cli.commands.findings import Imported
from gpusched.core.failures import last_words
from gpusched.core.model import DeviceType
from gpusched.workload import Trial

#: longest answer that is read
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

    What has not answered after so many seconds is ended.
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
            found = process.answer(Imported, deadline)
            imported[name] = Imported(why=found) if isinstance(found, str) else found
    return trials, imported


class _Trying:
    """A Python process whose last line is its answer; leaving the context ends it and all that it has started."""

    def __init__(self, environment: Mapping[str, str], *arguments: str) -> None:
        # Files, since pipes may be held open by what the process has started: OpenCL drivers start linkers.
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        # As the launcher starts: without the current directory, single-threaded.
        self._process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._out.close()
        self._err.close()

    def answer(self, kind: type[Answer], deadline: float) -> Answer | str:
        """What it says, or a sentence about what became of it instead."""
        began = time.monotonic()
        try:
            code = self._process.wait(max(0.0, deadline - began))
        except subprocess.TimeoutExpired:
            return "it did not answer in time"
        try:
            return msgspec.json.decode(_lines(self._out)[-1], type=kind)
        except (IndexError, msgspec.MsgspecError):
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            said = _lines(self._err)
            died = f"the process ended with {how}: {(said or ['it said nothing'])[-1]}"
            return (last_words("\n".join(said)) if code == -signal.SIGABRT else None) or died


def _lines(file: IO[bytes]) -> list[str]:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _ANSWER_BYTES))
    return file.read().decode(errors="replace").strip().splitlines()
