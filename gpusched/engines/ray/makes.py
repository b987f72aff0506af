"""Versions and processors: the bytes of a result depend on them, so nodes must be alike in both."""

from __future__ import annotations

import sys
from importlib import metadata

from gpusched.engines.ray.frames import Make
from gpusched.teacher.schema import WORKLOAD_VERSION


def make_here(processor: str) -> Make:
    """The make of this process, on a machine with this processor."""
    return Make(
        lightgbm=metadata.version("lightgbm"),
        workload=WORKLOAD_VERSION,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        processor=processor,
    )


class Makes:
    """Compares the nodes of a supervisor. The first one decides about Python and the processor of the others."""

    def __init__(self) -> None:
        self._first: Make | None = None

    def refusal(self, make: Make) -> str | None:
        """Why results of a node may differ from those of the others; None if they are the same, byte for byte."""
        first = self._first or make
        here = make_here(first.processor)  # whose LightGBM and workload the surveys put into fingerprints
        if make.lightgbm != here.lightgbm:
            return f"LightGBM {make.lightgbm} is installed there, and {here.lightgbm} here"
        if make.workload != here.workload:
            return f"version {make.workload} of the built-in workload is installed there, and {here.workload} here"
        if make.python != first.python:
            return f"it runs Python {make.python}, and the nodes before it Python {first.python}"
        if make.processor != first.processor:
            return f"its processor is {make.processor}, that of the nodes before it {first.processor}"
        self._first = make
        return None
