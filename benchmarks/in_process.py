"""The limit: every window of a batch in one warm process, by the very function that a slot runs.

    python -m benchmarks.in_process SYMBOLS_FILE OUTPUT CACHE

Imports are done before the clock starts. Prints the seconds and the windows trained, as JSON.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.settings import END, START, WINDOW_DAYS, settings


def main(arguments: list[str]) -> None:
    symbols_file, output, cache = (Path(argument).resolve() for argument in arguments[:3])
    interval = arguments[3] if len(arguments) > 3 else "1d"
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from gpusched import teacher
    from gpusched.core.planning import date_ranges
    from gpusched.worker.messages import WindowJob
    from gpusched.worker.window import run_window
    from gpusched.workload import DateRange, SurveyTask, Task

    teacher.preload()
    common: dict[str, Any] = {
        "data_root": str(symbols_file.parent / "data"),
        "cache_dir": str(cache),
        "settings": settings(interval),
    }
    ranges = tuple(DateRange(*pair) for pair in date_ranges(START, END, WINDOW_DAYS))
    trained = 0
    began = time.perf_counter()
    for symbol in symbols_file.read_text().split():
        for window in teacher.survey(SurveyTask(symbol=symbol, windows=ranges, **common)):
            if window.skip_reason is None:
                task = Task(symbol=symbol, start=window.start, end=window.end, **common)
                job = WindowJob(workload="gpusched.teacher:train_window", task=task, output_dir=str(output))
                run_window(job, lambda phase, round=0, rounds=0: None)
                trained += 1
    print(json.dumps({"seconds": time.perf_counter() - began, "trained": trained, "at": dt.datetime.now().isoformat()}))


if __name__ == "__main__":
    main(sys.argv[1:])
