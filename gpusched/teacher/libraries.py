"""Importing LightGBM and TA-Lib without the packages that they only integrate with.

Both import pandas, scikit-learn, polars and others when they find them, and this workload hands them arrays. What is
not imported need not be forked: a fork of a process with pandas and scikit-learn takes 9 ms here, without 2.8 ms.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

#: narwhals and scipy are not among them: LightGBM cannot do without
OPTIONAL = (
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


def preload() -> None:
    """Import all that a window needs, and do once what it would do first."""
    with _hidden(OPTIONAL):
        basic = importlib.import_module("lightgbm.basic")
        importlib.import_module("talib")
        # The modules of a window, and with them what they import of the standard library.
        importlib.import_module("gpusched.teacher.window")
    aliases = getattr(basic, "_ConfigAliases", None)
    if aliases is not None:
        aliases.get("num_iterations")  # parses LightGBM's table of aliases, which it keeps
    importlib.import_module("gpusched.teacher.fingerprint").lightgbm_version()


@contextlib.contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Let imports of `names` fail as if they were not installed, unless they are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None is how Python spells it
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]
