"""A workload whose results are reused: `tests.devices.reusable:window`. It trains nothing."""

from __future__ import annotations

from pathlib import Path

from gpusched.workload import Report, Result, SurveyTask, Task, WindowSurvey, window_label


def window(task: Task, directory: Path, report: Report) -> Result:
    return Result(metrics={}, sample_counts={}, metadata={}, phases={}, fingerprint=task.label)


def survey(task: SurveyTask) -> list[WindowSurvey]:
    return [
        WindowSurvey(
            start=window.start,
            end=window.end,
            bars=0,
            usable_rows=0,
            fingerprint=window_label(task.symbol, window.start, window.end),
        )
        for window in task.windows
    ]
