"""The variables that cap the threads of a process: OpenMP and BLAS runtimes read them when they are loaded."""

from __future__ import annotations


def capped(threads: int) -> dict[str, str]:
    """Variables that allow at most this many threads, and let none spin while it waits."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
    }
