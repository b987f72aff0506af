"""Load a workload by its entry point."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from gpusched.core.entry import Entry, parse
from gpusched.worker.code import Code, read_code
from gpusched.workload import BadParameters, Report, Result, Task

WorkloadFunction = Callable[[Task, Path, Report], Result]

#: the code of the modules that this process has loaded, or tried to load
_codes: dict[str, Code] = {}


def load_module(workload: str) -> ModuleType:
    """The module of an entry point `[DIRECTORY:]package.module:function`. Raises BadParameters."""
    entry = _entry(workload)
    if workload in _codes and entry.module in sys.modules:
        return sys.modules[entry.module]
    if entry.directory and sys.path[0] != entry.directory:
        sys.path.insert(0, entry.directory)
    _codes[workload] = read_code(entry)
    try:
        with _no_bytecode(_codes[workload]):
            module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        searched = ", ".join(path for path in sys.path if Path(path).exists())
        raise BadParameters(f"workload {entry.name!r}: {error}; the search path is {searched}") from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise BadParameters(f"workload {entry.name!r}: importing {entry.module} failed: {why}") from error
    file = getattr(module, "__file__", None) or "Python itself"
    if entry.directory and not file.startswith(f"{entry.directory}/"):
        raise BadParameters(f"{entry.directory}/{entry.module}.py has the name of a module of {file}: rename it")
    return module


def load_function(workload: str) -> WorkloadFunction:
    """The function of an entry point. Raises BadParameters."""
    function: Any = getattr(load_module(workload), _entry(workload).function, None)
    if not callable(function):
        raise BadParameters(f"workload {workload!r}: the module has no such function")
    return cast(WorkloadFunction, function)


def code_of(workload: str) -> Code:
    """The code of a workload that this process has loaded."""
    return _codes.get(workload, Code())


def _entry(workload: str) -> Entry:
    entry = parse(workload)
    if entry is None:
        raise BadParameters(f"workload {workload!r} is not of the form package.module:function")
    return entry


@contextlib.contextmanager
def _no_bytecode(code: Code) -> Iterator[None]:
    """Leave no compiled files of a user's modules.

    Python takes one for up to date if the source has the same size and the same second of its time.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = before or code.digest is not None
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
