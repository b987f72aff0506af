"""Load a workload by its entry point."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from gpusched.workload import BadParameters, Report, Result, Task

WorkloadFunction = Callable[[Task, Path, Report], Result]


def load_module(workload: str) -> ModuleType:
    """The module of an entry point `package.module:function`. Raises BadParameters."""
    name, _, function = workload.partition(":")
    if not name or not function:
        raise BadParameters(f"workload {workload!r} is not of the form package.module:function")
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except Exception as error:
        raise BadParameters(
            f"workload {workload!r}: importing {name} failed: {type(error).__name__}: {error}"
        ) from error


def load_function(workload: str) -> WorkloadFunction:
    """The function of an entry point. Raises BadParameters."""
    function: Any = load_module(workload)
    for name in workload.partition(":")[2].split("."):
        function = getattr(function, name, None)
    if not callable(function):
        raise BadParameters(f"workload {workload!r}: the module has no such function")
    return cast(WorkloadFunction, function)
