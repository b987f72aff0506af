"""The workload of the engines' contract: `tests.engines.workloads:train`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from benchmarks.instant import ENDLESS
from gpusched.workload import Report, Result, SurveyTask, Task, WindowSurvey

FINGERPRINT = "f" * 64
FAILING, LARGE = "FAILING", "LARGE"
#: more than travels with the end of a window
LARGE_BYTES = (9 << 20) + 1


def survey(task: SurveyTask) -> list[WindowSurvey]:
    return [
        WindowSurvey(start=dates.start, end=dates.end, bars=100, usable_rows=100, fingerprint=FINGERPRINT)
        for dates in task.windows
    ]


def look(task: Task, directory: Path, report: Report) -> Result:
    """Write down the settings of the window's process and of its launcher."""
    launcher = os.getppid()
    seen = {
        "nice": [os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, launcher)],
        "oom_score_adj": [Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in ("self", launcher)],
        "environment": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")},
        "path": sys.path,
        "cwd": str(Path.cwd()),
    }
    (directory / "seen.json").write_text(json.dumps(seen))
    return Result(metrics={}, sample_counts={}, metadata={}, phases={}, fingerprint=FINGERPRINT)


def train(task: Task, directory: Path, report: Report) -> Result:
    print(f"trained {task.label}", flush=True)
    if task.symbol == ENDLESS:
        report("waiting")
        while True:
            signal.pause()
    if task.symbol == FAILING:
        raise OSError("it fails")
    (directory / "model.txt").write_text("a model")
    if task.symbol == LARGE:
        (directory / "more").mkdir()
        (directory / "more" / "rows.bin").write_bytes(bytes(LARGE_BYTES))
    bars = Path(task.data_root, task.symbol, "bars.csv")
    if bars.exists():
        (directory / "bars.csv").write_bytes(bars.read_bytes())
    return Result(metrics={}, sample_counts={}, metadata={}, phases={}, fingerprint=FINGERPRINT)
