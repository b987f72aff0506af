"""For all tests: no limit on the time of random examples, one language and umask, and more workers than cores."""

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

# a machine under load would not keep a limit
settings.register_profile("gpusched", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gpusched")

# Whoever runs the tests has others: frames have the characters of the locale, files the modes that the umask leaves.
os.environ["LC_ALL"] = "C.UTF-8"
os.umask(0o022)

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
