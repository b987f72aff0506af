"""The windows that `benchmarks.launch` launches: a workload that imports no more than the built-in one."""

from __future__ import annotations

import resource
from pathlib import Path

from gpusched.workload import BadData, Report, Result, Task


def preload() -> None:
    """Import the modules that windows of the built-in workload need."""
    from gpusched import teacher

    teacher.preload()


def nothing(task: Task, directory: Path, report: Report) -> Result:
    return Result(metrics={}, sample_counts={}, metadata={}, phases={})


def fails(task: Task, directory: Path, report: Report) -> Result:
    raise BadData("the column 'close' is missing in 2022-03-14.csv")


def weighs_itself(task: Task, directory: Path, report: Report) -> Result:
    return Result(metrics=own_memory(), sample_counts={}, metadata={}, phases={})


def trains(task: Task, directory: Path, report: Report) -> Result:
    """Train on 100 rows and 15 features, as a window of daily bars has, for 500 rounds."""
    import lightgbm
    import numpy as np

    random = np.random.default_rng(42)
    features = random.normal(size=(100, 15))
    parameters = {"objective": "binary", "num_threads": 1, "verbose": -1, "num_leaves": 127, "force_col_wise": True}
    booster = lightgbm.train(parameters, lightgbm.Dataset(features, features[:, 0] > 0), num_boost_round=500)
    (directory / "model.txt").write_text(booster.model_to_string())
    return Result(metrics=own_memory(), sample_counts={}, metadata={}, phases={})


def own_memory() -> dict[str, int]:
    """This process's unshared bytes (Private_Clean + Private_Dirty), all of its resident bytes, and page faults."""
    kibibytes = {
        fields[0].rstrip(":"): int(fields[1])
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
        if len(fields := line.split()) == 3
    }
    unshared = kibibytes["Private_Clean"] + kibibytes["Private_Dirty"]
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return {"unshared": unshared * 1024, "resident": kibibytes["Rss"] * 1024, "faults": faults}
