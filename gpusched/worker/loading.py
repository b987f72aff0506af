"""Load a workload by its entry point."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from gpusched.core.entry_point import EntryPoint, entry_point
from gpusched.worker.code import Code, is_own, read_code
from gpusched.worker.stream import words
from gpusched.workload import BadParameters, Report, Result, Task

if TYPE_CHECKING:
    from importlib.abc import PathEntryFinder

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
    if root := _codes[workload].root:
        _read_sources_below(root)
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        searched = ", ".join(path for path in sys.path if os.path.exists(path))  # noqa: PTH110 - some are private
        raise BadParameters(f"workload {entry.name!r}: {error}; the search path is {searched}") from error
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {words(error)}"
        if isinstance(error, SystemExit):
            why += '; what it does as a program belongs below `if __name__ == "__main__":`'
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


def _entry(workload: str) -> EntryPoint:
    entry = entry_point(workload)
    if entry is None:
        raise BadParameters(f"workload {workload!r} is not of the form package.module:function")
    return entry


class _FromSource(SourceFileLoader):
    """Neither reads nor leaves a compiled file.

    Python takes one for up to date if the source has the same size and the same second of its time.
    """

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError(f"{path} is compiled anew")


def _read_sources_below(root: Path) -> None:
    """Have modules below a directory compiled from their source, also late, in a window's process."""
    finder = FileFinder.path_hook(
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (_FromSource, SOURCE_SUFFIXES),
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    )

    def hook(path: str) -> PathEntryFinder:
        if not is_own(Path(path), root):
            raise ImportError(path)
        return finder(path)

    sys.path_hooks.insert(0, hook)
    for path in tuple(sys.path_importer_cache):
        if is_own(Path(path), root):
            del sys.path_importer_cache[path]
