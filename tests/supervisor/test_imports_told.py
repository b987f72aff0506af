"""A window that imports for longer than it trains is told of once for each batch."""

from __future__ import annotations

import json
from pathlib import Path

from tests.supervisor.support import make_batch, plan, supervised

SLOW = """
from gpusched.workload import Result

def train(task, directory, report):
    import heavy
    return Result(metrics={}, sample_counts={}, metadata={}, phases={"train": 0.0})
"""
#: a module whose import takes an hour by the clocks of the window, so that it is most of its time on any machine
HEAVY = """
import time

def ahead(clock):
    return lambda: clock() + 3600.0

time.monotonic, time.perf_counter = ahead(time.monotonic), ahead(time.perf_counter)
"""


async def test_slow_imports_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "heavy.py").write_text(HEAVY)
    async with supervised(tmp_path) as bench:
        batch = make_batch(tmp_path, f"{tmp_path}:slow:train")
        await bench.supervisor.submit(batch, plan(3))
        await bench.finished()
        (note,) = bench.notes
    assert "to import modules: move those imports to the top of slow, where they are made once" in note
    metadata = json.loads(next((tmp_path / "output").glob("*/metadata.json")).read_text())
    assert list(metadata["phases"]) == ["import", "train"]
    assert metadata["phases"]["import"] >= 3600.0
