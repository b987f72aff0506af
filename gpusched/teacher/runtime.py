"""The libraries that LightGBM's own library needs of the machine, and what to do where one is missing."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

OPENMP = "install it: `apt install libgomp1`, `dnf install libgomp`"
NCCL = (
    "this LightGBM is built with CUDA and needs NCCL: `pip install nvidia-nccl-cu13` (cu12 for CUDA 12),"
    " or name the directory of libnccl.so.2 in LD_LIBRARY_PATH"
)
_REMEDIES = {"libgomp": OPENMP, "libnccl": NCCL}


def remedy_for(why: str) -> str | None:
    """What to do about a library that was not found; None where `why` is about something else."""
    return next((remedy for library, remedy in _REMEDIES.items() if library in why), None)


def missing_library() -> str | None:
    """Why LightGBM's library cannot be loaded, as the loader says; None if it can, or is not there to be asked.

    LightGBM may come with an OpenMP runtime of its own, so the machine's is not what decides; where that is there,
    though, nothing more is loaded, and the answer takes a millisecond.
    """
    if _why_not("libgomp.so.1") is None:
        return None
    found = importlib.util.find_spec("lightgbm")
    for package in (found.submodule_search_locations or ()) if found else ():
        library = Path(package, "lib", "lib_lightgbm.so")
        if library.exists():
            return _why_not(str(library))
    return None


def _why_not(library: str) -> str | None:
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    return None
