"""The door to NVML: the only module that imports pynvml, and it does so only when it is first needed."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Any

#: NVML's library, a part of the driver
LIBRARY = "libnvidia-ml.so.1"


class NoLibrary(Exception):
    """NVML's library cannot be loaded: there is no driver."""


def nvml_binding() -> Any:
    """The pynvml module; it has no types. Raises ImportError, and NoLibrary on a machine without a driver.

    There it is not imported: that would take a tenth of the time in which a run starts.
    """
    if "pynvml" not in sys.modules:
        try:
            ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise NoLibrary(str(error)) from error
    import pynvml

    return pynvml


@contextlib.contextmanager
def session() -> Iterator[Any]:
    """NVML, started for the time of the context. Raises as `nvml_binding` does, and NVMLError."""
    nvml = nvml_binding()
    nvml.nvmlInit()
    try:
        yield nvml
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
