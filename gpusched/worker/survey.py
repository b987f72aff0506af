"""A survey: how the data of some symbols would serve their windows, and which results are already committed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from gpusched.core.model import PlannedWindow, Window
from gpusched.worker.earlier import Earlier
from gpusched.worker.identity import Identity
from gpusched.worker.loading import code_of, load_function, load_module
from gpusched.worker.messages import (
    SurveyDone,
    SurveyedSymbol,
    SurveyedWindow,
    SurveyFailed,
    SurveyJob,
)
from gpusched.worker.settings import made_settings, plain_settings
from gpusched.worker.stream import Stream, encodable, error_message, words
from gpusched.worker.window import error_kind
from gpusched.workload import (
    BadData,
    BadParameters,
    DataNote,
    DateRange,
    NoData,
    SurveyTask,
    SymbolSurvey,
    WindowSurvey,
)

#: most characters of a reason and of a remedy: a plan of 200,000 windows holds as many
MAX_REASON_CHARS = 1000
#: most notes on a symbol
MOST_NOTES = 20

Survey = Callable[[SurveyTask], SymbolSurvey | Sequence[WindowSurvey]]
Send = Callable[[SurveyedSymbol | SurveyedWindow | SurveyFailed], None]


def run_survey(job: SurveyJob, send: Send) -> None:
    """Survey each symbol; the failure of one does not stop the others. Raises BadParameters."""
    load_function(job.workload)
    survey: Survey = getattr(load_module(job.workload), "survey", _all_trainable)
    earlier = Earlier(job)
    for one in job.symbols:
        shared: dict[Any, Any] = {}
        last_sent: SurveyedSymbol | None = None
        for point, windows in _by_point(one.windows).items():
            try:
                task = SurveyTask(
                    symbol=one.symbol,
                    windows=tuple(DateRange(window.start, window.end) for window in windows),
                    data_root=job.data_root,
                    cache_dir=job.cache_dir,
                    settings=made_settings(job.workload, job.settings[point]),
                    shared=shared,
                )
                result = _complete(task, survey(task))
                settings, code = plain_settings(task.settings), code_of(job.workload)
                identity = Identity(job.workload, code, settings, job.data_root, job.after)
            except BadParameters:
                raise  # no symbol would fare better
            except NoData as error:
                send(_failed(one.symbol, point, "no_data", error, error.remedy))
            except BadData as error:
                send(_failed(one.symbol, point, "bad_data", error, error.remedy))
            except Exception as error:  # a disk error, lack of memory, or a bug: the data may be sound
                traceback.print_exc(file=sys.stderr)
                send(_failed(one.symbol, point, "unknown", f"{type(error).__name__}: {words(error)}"))
            else:
                about = _surveyed_symbol(task, result)
                if about != last_sent:
                    send(about)
                    last_sent = about
                for window, seen in zip(windows, result.windows, strict=True):
                    fingerprint = identity.fingerprint(window.symbol, window.start, window.end, seen.fingerprint)
                    send(_surveyed(earlier, window, msgspec.structs.replace(seen, fingerprint=fingerprint), settings))


def _by_point(windows: Sequence[Window]) -> dict[str, list[Window]]:
    by_point: dict[str, list[Window]] = {}
    for window in windows:
        by_point.setdefault(window.point, []).append(window)
    return by_point


def serve(job: SurveyJob, stream: Stream) -> int:
    """Run a survey for the supervisor at the other end of `stream`; return the exit code."""
    try:
        run_survey(job, stream.send)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        stream.send(error_message(error_kind(error, "cpu"), error))
        return 1
    stream.send(SurveyDone())
    return 0


def _all_trainable(task: SurveyTask) -> list[WindowSurvey]:
    """Survey for a workload that has no survey of its own: every window can be trained."""
    return [WindowSurvey(start=window.start, end=window.end, bars=0, usable_rows=0) for window in task.windows]


def _complete(task: SurveyTask, result: SymbolSurvey | Sequence[WindowSurvey]) -> SymbolSurvey:
    """Complete a survey. Raises ValueError unless it has every window once, in order."""
    if not isinstance(result, SymbolSurvey):
        result = SymbolSurvey(windows=tuple(result))
    surveyed = [(window.start, window.end) for window in result.windows]
    if surveyed != [(window.start, window.end) for window in task.windows]:
        raise ValueError(f"the workload's survey of {task.symbol} did not return its windows one by one, in order")
    return result


def _failed(
    symbol: str, point: str, kind: Literal["no_data", "bad_data", "unknown"], why: object, remedy: str = ""
) -> SurveyFailed:
    return SurveyFailed(symbol=symbol, point=point, kind=kind, reason=_bounded(str(why)), remedy=_bounded(remedy))


def _bounded(text: str) -> str:
    """Text about a symbol is repeated for each of its windows, so it has a limit."""
    return encodable(text if len(text) <= MAX_REASON_CHARS else text[:MAX_REASON_CHARS] + "…")


def _surveyed_symbol(task: SurveyTask, survey: SymbolSurvey) -> SurveyedSymbol:
    notes = tuple(DataNote(note.kind, _bounded(note.text)) for note in survey.notes[:MOST_NOTES])
    return SurveyedSymbol(symbol=task.symbol, notes=notes, days=survey.days, strict=survey.strict)


def _surveyed(earlier: Earlier, window: Window, seen: WindowSurvey, settings: Any) -> SurveyedWindow:
    is_wanted = seen.skip_reason is None and seen.refusal is None
    committed = earlier.result(window.label, seen.fingerprint) if is_wanted else None
    is_written = is_wanted and not earlier.is_in_place(committed)
    replaces = earlier.standing(window.label) if is_written else "nothing"
    planned = PlannedWindow(
        window=window,
        bars=seen.bars,
        usable_rows=seen.usable_rows,
        skip_reason=seen.skip_reason and _bounded(seen.skip_reason),
        refusal=seen.refusal and _bounded(seen.refusal),
        remedy=_bounded(seen.remedy),
        fingerprint=seen.fingerprint,
        committed=committed,
        replaces=replaces,
        known_in=earlier.known_in(window.label, seen.fingerprint) if is_wanted and committed is None else "",
        replaces_others=replaces == "result" and earlier.is_of_others(window.label, settings),
    )
    return SurveyedWindow(planned=planned)
