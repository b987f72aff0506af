"""A workload that takes 150 MiB, piece by piece, and then needs them for a moment."""

from __future__ import annotations

import time
from pathlib import Path

from gpusched.workload import Report, Result, Task

PIECES, PIECE_BYTES = 150, 1 << 20


def window(task: Task, directory: Path, report: Report) -> Result:
    held = []
    for _ in range(PIECES):
        held.append(bytearray(b"x" * PIECE_BYTES))
        time.sleep(0.001)
    (directory / "model.txt").write_text(task.label)
    return Result(metrics={}, sample_counts={}, metadata={}, phases={})
