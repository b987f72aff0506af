"""Tests have the same names in each process: workers of xdist compare what they collected, and refuse to start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: collects with another clock, as a worker does that starts a second later
COLLECT = """
import sys, time
import pytest
now = time.time
time.time = lambda: now() + float(sys.argv[1])
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-m", "thorough or not thorough", "tests"]))
"""


@pytest.mark.thorough
def test_names_depend_on_no_clock_process_or_hash() -> None:
    collecting = [
        subprocess.Popen(
            [sys.executable, "-c", COLLECT, str(later)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, later in ((1, 0), (2, 10_000_000))
    ]
    first, second = ([line for line in process.communicate()[0].splitlines() if "::" in line] for process in collecting)
    assert len(first) > 1000
    assert first == second
