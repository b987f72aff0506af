"""The fingerprint of a window: a hash of everything that determines its result.

The same fingerprint means the same artifacts on the same device type. It needs no LightGBM, so a survey can tell which
windows are already trained.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from typing import Any

import msgspec
import numpy as np

from gpusched.teacher.bars import Bars
from gpusched.teacher.installed import package
from gpusched.teacher.schema import READING, WORKLOAD_VERSION, Settings, written


def fingerprint(symbol: str, start: dt.date, end: dt.date, bars: Bars, settings: Settings) -> str:
    """Return the SHA-256, in hex, of the window, its bars, the settings that its result depends on, and the versions.

    Paths, threads and devices are left out; so are `min_rows`, which only decides whether there is a result, and the
    settings for reading files, whose effect is in the bars.
    """
    inputs: dict[str, Any] = {
        "workload": WORKLOAD_VERSION,
        "lightgbm": lightgbm_version(),
        "window": [symbol, start, end],
        "settings": {name: value for name, value in written(settings).items() if name not in ("min_rows", *READING)},
        "dropped": bars.quality(),
    }
    digest = hashlib.sha256(msgspec.json.encode(inputs, order="sorted"))
    for column in bars.columns():
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


@functools.cache
def lightgbm_version() -> str:
    """The version of the installed LightGBM, from the file in which its package keeps it."""
    return (package() / "VERSION.txt").read_text().strip()
