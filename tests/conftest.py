"""For all tests: random examples have no time limit of their own, and more tests run at once than there are cores."""

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

# a machine under load would not keep a limit
settings.register_profile("gpusched", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gpusched")

# Modules and 4,000 tests make a heap of objects that stay: a sixth of a collection was a search for garbage.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """`-n auto`: half as many again as cores, as a test that waits for a process, a timer or a disk leaves its idle."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0))
    return cores + (cores + 1) // 2
