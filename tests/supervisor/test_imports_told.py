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
#: the time that an import takes is what is tested
HEAVY = "import time\ntime.sleep(0.2)\n"


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
    assert metadata["phases"]["import"] >= 0.2
