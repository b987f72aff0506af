"""The door to NVML: the only module that imports pynvml, and it does so only when it is first needed."""

from __future__ import annotations

from typing import Any


def nvml_binding() -> Any:
    """The pynvml module; it has no types. Raises ImportError."""
    import pynvml

    return pynvml
