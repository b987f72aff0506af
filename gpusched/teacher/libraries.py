"""Importing LightGBM and TA-Lib without the packages that they only integrate with, and once for all windows.

Both import pandas, scikit-learn, polars and others when they find them, and this workload hands them arrays. What is
not imported need not be forked: a fork of a process with pandas and scikit-learn takes 9 ms here, without 2.8 ms.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
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


#: scipy copies numpy's whole namespace, which imports these for nobody: a third of all the time
LAZY = ("f2py", "testing")


def preload() -> None:
    """Import all that a window needs, and do what every window would otherwise do first.

    Starts no threads if OMP_NUM_THREADS and OPENBLAS_NUM_THREADS are 1.
    """
    with hidden(OPTIONAL), _no_lazy_numpy():
        importlib.import_module("gpusched.teacher.window")
        importlib.import_module("gpusched.teacher.surveyor")
        _warm_up()


def _warm_up() -> None:
    """Fill the caches of pure Python that a window would fill, 10 to 15 ms in all.

    Nothing here may train or predict: OpenMP's threads do not survive a fork.
    """
    import numpy as np
    from lightgbm import basic

    from gpusched.teacher import features, fingerprint, settings
    from gpusched.teacher.bars import NAIVE, clean

    settings.parse_settings({})
    fingerprint.lightgbm_version()
    platform.python_version()
    features.features(clean(np.arange(60), np.full(60, NAIVE, np.int32), np.ones((5, 60))))
    basic._ConfigAliases.get("num_iterations")
    # LightGBM ≥ 4.7 asks narwhals of each array whether it is a data frame, which first reads every package's metadata.
    narwhals = sys.modules.get("narwhals.dependencies")
    if narwhals is not None:
        narwhals.is_into_dataframe(np.zeros((1, 1)))


@contextlib.contextmanager
def hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Let imports of `names` fail as if they were not installed, unless they are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None is how Python spells it
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


@contextlib.contextmanager
def _no_lazy_numpy() -> Iterator[None]:
    """Keep the modules `LAZY`, which numpy imports when they are asked for, from being imported."""
    import numpy as np

    absent = [name for name in LAZY if name not in vars(np)]
    vars(np).update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            delattr(np, name)
