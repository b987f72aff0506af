"""Look at the windows of a symbol without training them."""

from __future__ import annotations

import msgspec

from gpusched.teacher.bars import Bars, History
from gpusched.teacher.examples import window_examples
from gpusched.teacher.fingerprint import fingerprint
from gpusched.teacher.history import load_history
from gpusched.teacher.labels import usable_rows
from gpusched.teacher.schema import READING, Settings, parse_settings
from gpusched.workload import DateRange, Days, NoData, SurveyTask, SymbolSurvey, WindowSurvey


def survey(task: SurveyTask) -> SymbolSurvey:
    """See `gpusched.teacher.survey`."""
    settings = parse_settings(task.settings)
    history = _history(task, settings)
    settings = msgspec.structs.replace(settings, interval=history.interval)
    looks = [_look(task.symbol, history.bars, window, settings) for window in task.windows]
    return SymbolSurvey(
        windows=tuple(looks), notes=history.notes, days=_days(history.bars, task.windows), strict=settings.strict
    )


def _history(task: SurveyTask, settings: Settings) -> History:
    """The history of the task's symbol, loaded once for all points that read the files in the same way.

    Looking a symbol's files up takes a hundred times as long as looking at a window.
    """
    key = repr([getattr(settings, name) for name in ("interval", *READING)])
    if key not in task.shared:
        task.shared[key] = load_history(task.data_root, task.cache_dir, task.symbol, settings)
    history: History = task.shared[key]
    return history


def _look(symbol: str, history: Bars, window: DateRange, settings: Settings) -> WindowSurvey:
    start, end = window.start, window.end
    bars = history.window(start, end)
    about: dict[str, str]
    try:
        window_examples(history, bars, start, end, settings)
        about = {"fingerprint": fingerprint(symbol, start, end, bars, settings)}
    except NoData as error:
        about = {"skip_reason": str(error), "remedy": error.remedy}
    usable = usable_rows(len(bars), settings.horizon)
    return WindowSurvey(start=start, end=end, bars=len(bars), usable_rows=usable, **about)


def _days(history: Bars, windows: tuple[DateRange, ...]) -> Days | None:
    """The days with bars, from the first day of any window to the last one."""
    if not windows:
        return None
    start, end = min(window.start for window in windows), max(window.end for window in windows)
    return Days.of(history.window(start, end).days())
