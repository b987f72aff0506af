"""What determines a window's result, as one number: the same fingerprint means the same artifacts on the same device
type. It needs no LightGBM, so a survey can tell what is already done."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import importlib.metadata
from typing import Any

import msgspec
import numpy as np

from gpusched.teacher.bars import Bars
from gpusched.teacher.settings import READING, Settings

#: Raise it with every change that makes another model or other artifacts of the same bars and settings.
WORKLOAD_VERSION = 3


def fingerprint(symbol: str, start: dt.date, end: dt.date, bars: Bars, settings: Settings) -> str:
    """sha256 over the window, its bars, the settings that its result depends on and the versions, in hex.

    Paths, threads and devices are not in it, nor is `min_rows`, which decides whether there is a result, nor how files
    were read, which the bars show.
    """
    asked_settings = msgspec.to_builtins(settings)
    asked: dict[str, Any] = {
        "workload": WORKLOAD_VERSION,
        "lightgbm": lightgbm_version(),
        "window": [symbol, start, end],
        "settings": {name: value for name, value in asked_settings.items() if name not in ("min_rows", *READING)},
        "dropped": bars.quality(),
    }
    digest = hashlib.sha256(msgspec.json.encode(asked, order="sorted"))
    for column in bars.columns():
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


@functools.cache
def lightgbm_version() -> str:
    """The version of the installed LightGBM."""
    return importlib.metadata.version("lightgbm")
