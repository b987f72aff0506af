"""A survey: what the windows of some symbols would find, and which of their results are already committed."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from gpusched import artifacts
from gpusched.core.model import WindowResult
from gpusched.worker.messages import Started, SurveyDone, SurveyedWindow, SurveyFailed, SurveyJob
from gpusched.worker.stream import Stream, encodable, error_message
from gpusched.worker.window import error_kind, load_function, load_module
from gpusched.workload import BadData, BadParameters, SurveyTask, WindowSurvey, device_fingerprint, window_label

Survey = Callable[[SurveyTask], Sequence[WindowSurvey]]
Send = Callable[[SurveyedWindow | SurveyFailed], None]


def run_survey(job: SurveyJob, send: Send) -> None:
    """Survey each symbol; one that cannot be surveyed does not keep the others from it. Raises BadParameters."""
    load_function(job.workload)
    survey: Survey = getattr(load_module(job.workload), "survey", _all_trainable)
    for task in job.tasks:
        try:
            windows = survey(task)
            _check_complete(task, windows)
        except BadParameters:
            raise  # no symbol would fare better
        except BadData as error:
            send(SurveyFailed(symbol=task.symbol, reason=encodable(str(error))))
        except Exception as error:  # a bug in the workload's survey; its log has the traceback
            traceback.print_exc(file=sys.stderr)
            send(SurveyFailed(symbol=task.symbol, reason=encodable(f"{type(error).__name__}: {error}")))
        else:
            for window in windows:
                send(_surveyed(job, task.symbol, window))


def serve(job: SurveyJob, pipe: int) -> int:
    """Run a survey for the supervisor at the other end of `pipe`; return the exit code."""
    stream = Stream(pipe)
    stream.send(Started(pid=os.getpid()))
    try:
        run_survey(job, stream.send)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        stream.send(error_message(error_kind(error, "cpu"), error))
        return 1
    stream.send(SurveyDone())
    return 0


def _all_trainable(task: SurveyTask) -> list[WindowSurvey]:
    """For workloads that have no survey of their own."""
    return [WindowSurvey(start=window.start, end=window.end, bars=0, usable_rows=0) for window in task.windows]


def _check_complete(task: SurveyTask, windows: Sequence[WindowSurvey]) -> None:
    if [(window.start, window.end) for window in windows] != [(window.start, window.end) for window in task.windows]:
        raise ValueError(f"the workload's survey of {task.symbol} did not return its windows one by one, in order")


def _surveyed(job: SurveyJob, symbol: str, window: WindowSurvey) -> SurveyedWindow:
    return SurveyedWindow(
        symbol=symbol,
        start=window.start,
        end=window.end,
        bars=window.bars,
        usable_rows=window.usable_rows,
        skip_reason=window.skip_reason,
        fingerprint=window.fingerprint,
        committed=_committed(job, symbol, window),
    )


def _committed(job: SurveyJob, symbol: str, window: WindowSurvey) -> WindowResult | None:
    if window.fingerprint is None or window.skip_reason is not None:
        return None
    path = Path(job.output_dir) / window_label(symbol, window.start, window.end)
    fingerprints = {device_fingerprint(window.fingerprint, device_type) for device_type in job.device_types}
    metadata = artifacts.verify(path, fingerprints)
    return None if metadata is None else metadata.result(path)
