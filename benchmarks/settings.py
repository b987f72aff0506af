"""The dates and the workload's settings of the benchmarks, the same for every contender."""

from __future__ import annotations

import datetime as dt
from typing import Any

START = dt.date(2022, 1, 1)
END = dt.date(2024, 12, 31)
WINDOW_DAYS = 180


def settings(interval: str = "1d") -> dict[str, Any]:
    """The built-in workload's defaults, with a threshold that bars of this length do reach."""
    return {"interval": interval, "threshold": 0.02 if interval == "1d" else 0.002}
