"""Import LightGBM and TA-Lib once for all windows, without the packages that they integrate with.

TA-Lib imports pandas and polars if these are installed, but this workload hands it only arrays.
Fewer imports make forks cheaper: a fork of a process with pandas and scikit-learn takes 9 ms here, without them 2.8 ms.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

#: packages that TA-Lib imports where they are installed, as LightGBM's Python package does, which a trial imports; that
#: one cannot do without narwhals and scipy, so these are not hidden
_OPTIONAL = (
    "cffi",
    "dask",
    "distributed",
    "graphviz",
    "joblib",
    "matplotlib",
    "pandas",
    "polars",
    "psutil",
    "pyarrow",
    "sklearn",
)


def preload_survey() -> None:
    """Import the modules that a survey needs; LightGBM is not among them."""
    with optional_hidden():
        importlib.import_module("gpusched.teacher.surveyor")


def preload() -> None:
    """Import the modules that a window needs.

    Starts no threads if OMP_NUM_THREADS and OPENBLAS_NUM_THREADS are 1.
    """
    with optional_hidden(), _without_threading():
        importlib.import_module("gpusched.teacher.window")
        importlib.import_module("gpusched.teacher.surveyor")


@contextlib.contextmanager
def _without_threading() -> Iterator[None]:
    """Let TA-Lib import a stand-in for `threading`, with `local`, which is all that it uses.

    The module itself registers a function that runs in each forked process and writes to 40 pages there, although there
    are no other threads. From Python 3.14 on there is no way around it: ctypes, which numpy needs, imports it.
    """
    importlib.import_module("ctypes")
    if "threading" in sys.modules:
        yield
        return
    sys.modules["threading"] = only_local = ModuleType("threading")
    only_local.__dict__["local"] = _thread._local
    try:
        yield
    finally:
        del sys.modules["threading"]


@contextlib.contextmanager
def optional_hidden() -> Iterator[None]:
    """Let imports of the optional packages fail as if they were not installed, unless they are imported already."""
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None is how Python spells it
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]
