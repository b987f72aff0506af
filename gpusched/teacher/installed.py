"""LightGBM's package as it is installed, found without importing it, and the system libraries that its own needs."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from pathlib import Path

OPENMP = "install it: `apt install libgomp1`, `dnf install libgomp`"
NCCL = (
    "this LightGBM is built with CUDA and needs NCCL: `pip install nvidia-nccl-cu13` (cu12 for CUDA 12),"
    " or name the directory of libnccl.so.2 in LD_LIBRARY_PATH"
)
_REMEDIES = {"libgomp": OPENMP, "libnccl": NCCL}


def package() -> Path:
    """The directory of LightGBM's Python package. Raises ModuleNotFoundError."""
    spec = importlib.util.find_spec("lightgbm")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'lightgbm'", name="lightgbm")
    return Path(spec.origin).parent


def library() -> Path:
    """LightGBM's shared library, in its package. Raises ImportError."""
    here = package()
    for place in (here / "lib", here / "bin", here.parent):
        if (path := place / "lib_lightgbm.so").is_file():
            return path
    raise ImportError(f"the lightgbm package in {here} has no lib_lightgbm.so", name="lightgbm")


def remedy_for(why: str) -> str | None:
    """The remedy for the missing library that `why` names; None if it names none that is known here."""
    return next((remedy for library, remedy in _REMEDIES.items() if library in why), None)


def missing_library() -> str | None:
    """The loader's reason why LightGBM's library cannot be loaded; None if it can, or if LightGBM is not installed.

    If the machine has an OpenMP runtime, nothing more is loaded, and the answer takes a millisecond. If it has none,
    LightGBM may still have brought one of its own, so its library is loaded.
    """
    if _load_error("libgomp.so.1") is None:
        return None
    with contextlib.suppress(ImportError):
        return _load_error(str(library()))
    return None


def _load_error(name: str) -> str | None:
    try:
        ctypes.CDLL(name)
    except OSError as error:
        return str(error)
    return None
