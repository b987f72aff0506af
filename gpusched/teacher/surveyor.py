"""Looking at the windows of a symbol without training them."""

from __future__ import annotations

import msgspec

from gpusched.teacher.bars import Bars
from gpusched.teacher.examples import window_examples
from gpusched.teacher.fingerprint import fingerprint
from gpusched.teacher.history import load_history
from gpusched.teacher.labels import usable_rows
from gpusched.teacher.settings import Settings, parse_settings
from gpusched.teacher.sources import NoData
from gpusched.workload import BadData, DateRange, SurveyTask, WindowSurvey


def survey(task: SurveyTask) -> list[WindowSurvey]:
    """See `gpusched.teacher.survey`."""
    settings = parse_settings(task.settings)
    try:
        history = load_history(task.data_root, task.cache_dir, task.symbol, settings)
    except NoData as error:
        return [_skipped(window, 0, 0, str(error)) for window in task.windows]
    settings = msgspec.structs.replace(settings, interval=history.interval)
    return [_look(task.symbol, history.bars, window, settings) for window in task.windows]


def _look(symbol: str, history: Bars, window: DateRange, settings: Settings) -> WindowSurvey:
    bars = history.window(window.start, window.end)
    usable = usable_rows(len(bars), settings.horizon)
    try:
        window_examples(history, bars, window.start, window.end, settings)
    except BadData as error:
        return _skipped(window, len(bars), usable, str(error))
    return WindowSurvey(
        start=window.start,
        end=window.end,
        bars=len(bars),
        usable_rows=usable,
        fingerprint=fingerprint(symbol, window.start, window.end, bars, settings),
    )


def _skipped(window: DateRange, bars: int, usable: int, reason: str) -> WindowSurvey:
    return WindowSurvey(start=window.start, end=window.end, bars=bars, usable_rows=usable, skip_reason=reason)
