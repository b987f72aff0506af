"""A window of sixty bars, to be trained by the launcher before it forks any."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

from gpusched.workload import Task

_DAYS = 60


def rehearsal(directory: Path) -> Task:
    """Write the bars into a directory, and return the task: on one thread, so that OpenMP starts no others."""
    days = [dt.date(2000, 1, 1) + dt.timedelta(days=day) for day in range(_DAYS)]
    prices = [100 + 10 * math.sin(number) for number in range(_DAYS)]
    rows = (f"{day},{price},{price + 1},{price - 1},{price},1000" for day, price in zip(days, prices, strict=True))
    (directory / "BARS.csv").write_text("\n".join(("timestamp,open,high,low,close,volume", *rows)))
    return Task(
        symbol="BARS",
        start=days[0],
        end=days[-1],
        data_root=str(directory),
        cache_dir=str(directory),
        settings={"horizon": 1, "threshold": 0.0, "lightgbm": {"num_iterations": 2, "min_child_samples": 1}},
        threads=1,
    )
