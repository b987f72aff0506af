"""A workload that says which files it reads."""

from __future__ import annotations

from gpusched.workload import Task
from tests.engines.workloads import train as train


def inputs(task: Task) -> list[str]:
    return ["common.csv"]
