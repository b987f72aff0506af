"""A window of a command: the program is run in the window's directory, and what it leaves there is the result."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import Any

import gpusched
from gpusched.command import ending, identity, lookup, placeholders, process, script
from gpusched.command.schema import Settings, parse_settings
from gpusched.workload import DateRange, Report, Result, SurveyTask, SymbolSurvey, Task, WindowSurvey


def run_command(task: Task, directory: Path, report: Report) -> Result:
    """See `gpusched.command.run_command`."""
    settings = _settings(task.settings)
    name = lookup.name(settings)
    code = identity.code(settings)
    window = DateRange(task.start, task.end)
    (fingerprint,) = identity.fingerprints(settings, code, task.symbol, [window], task.data_root)
    values = placeholders.values(task, str(directory), settings.param)
    argv = [settings.argv[0], *placeholders.fill(settings.argv[1:], values)]
    shown = placeholders.fill(settings.argv[1:], values | {"output_dir": "{output_dir}"})
    began = time.monotonic()
    if settings.preload:
        ended = script.run(argv, settings.directory, *lookup.entry(settings))
    else:
        report(name)
        ended = process.run(argv, settings.directory)
    seconds = time.monotonic() - began
    program_report = ending.judge(ended, settings.exit_codes, directory, name, task.device_type)
    return Result(
        metrics=program_report.metrics,
        sample_counts=program_report.sample_counts,
        metadata=program_report.metadata
        | {
            "command": {
                "argv": [settings.argv[0], *shown],
                "exit_code": ended.exit_code,
                "code": code,
            },
            "versions": {"gpusched": gpusched.__version__},
        },
        phases={"command": round(seconds, 6)},
        fingerprint=fingerprint,
    )


def survey(task: SurveyTask) -> SymbolSurvey:
    """See `gpusched.command.survey`."""
    settings = _settings(task.settings)
    fingerprints = identity.fingerprints(settings, identity.code(settings), task.symbol, task.windows, task.data_root)
    return SymbolSurvey(
        windows=tuple(
            WindowSurvey(start=window.start, end=window.end, bars=0, usable_rows=0, fingerprint=fingerprint)
            for window, fingerprint in zip(task.windows, fingerprints, strict=True)
        )
    )


def _settings(given: Any) -> Settings:
    """The settings of a task, checked. Raises BadParameters."""
    settings = given if isinstance(given, Settings) else parse_settings(given)
    placeholders.require_parameters(settings.argv[1:], settings.param)
    return settings


def rehearse() -> None:
    """Do once what every window does first, so that it inherits what msgspec and others remember of their types."""
    settings = parse_settings({"argv": ["/bin/sh"], "directory": "/"})
    identity.fingerprints(settings, identity.code(settings), "", [DateRange(dt.date.min, dt.date.max)], "")
