"""Text that is printed once: a plan before a run, and the summary after it.

Lines are laid out here rather than by rich's tables, which look at every cell twice and keep all of them: a plan has as
many lines as the batch has windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.text import Glyphs, clean, duration, glyphs, per_second
from gpusched.client.views.batch import BatchView
from gpusched.client.views.reasons import Reasons, refusals_of, skips_of
from gpusched.client.views.window import FinishedWindow
from gpusched.core.model import BatchSpec, DataNotes
from gpusched.core.planning import Plan, action, reason_of_plan, replacing, with_remedy
from gpusched.core.statuses import OUTCOMES, words
from gpusched.core.worth import constants_note

#: the summary shows so many failures and skip reasons, and counts the rest
SHOWN_FAILURES = 20
SHOWN_REASONS = 10
#: lines about the data of symbols
SHOWN_NOTES = 20
#: characters of a message that are shown
MESSAGE_CHARS = 600

_OUTCOME_OF = {"train": "succeeded", "reuse": "reused", "skip": "skipped", "fail": "failed"}


def plan_rows(plan: Plan) -> Iterator[str]:
    """Tab-separated lines for pipes, below a line with their names."""
    yield "symbol\tstart\tend\twindow\tbars\tusable_rows\taction\treason"
    for planned in plan.windows:
        window = planned.window
        yield "\t".join(
            (
                clean(window.symbol),
                window.start.isoformat(),
                window.end.isoformat(),
                clean(window.label),
                str(planned.bars),
                str(planned.usable_rows),
                action(planned),
                clean(with_remedy(reason_of_plan(planned), planned.remedy)),
            )
        )


def plan_line(plan: Plan) -> str:
    """A plan in one line: how many windows are trained, reused, skipped."""
    line = f"{len(plan.to_train)} to train, {len(plan.to_reuse)} to reuse, {len(plan.to_skip)} to skip"
    line += f", {len(plan.to_fail)} to fail: their data are refused" if plan.to_fail else ""
    return "; ".join((line, *replacing(plan.to_replace, plan.to_move_aside)))


def notes_lines(notes: DataNotes) -> list[str]:
    """A line for each symbol that there is something to know about; those of which the same is known share one."""
    alike: dict[str, list[str]] = {}
    for symbol, found in notes.items():
        alike.setdefault(clean("; ".join(note.text for note in found)), []).append(clean(symbol))
    lines = []
    for text, symbols in alike.items():
        names = ", ".join(symbols[:3]) + (f" and {len(symbols) - 3:,} more" if len(symbols) > 3 else "")
        lines.append(f"{names}: {text}")
    if (more := len(lines) - SHOWN_NOTES) > 0:
        lines[SHOWN_NOTES:] = [f"… and {more:,} more lines; --json has them all"]
    return lines


def plan_table(plan: Plan, bars: RenderableType | None = None) -> RenderableType:
    """A line for each window, or `bars` in their place, then the totals."""
    return _PlanTable(plan, bars)


def summary(
    view: BatchView,
    seconds: float,
    *,
    held_reason: str | None,
    interrupted: bool,
    logs_dir: Path,
    spec: BatchSpec,
) -> RenderableType:
    """The end of a batch: outcomes, time, failures with the paths of their logs, reasons of skips.

    `spec` is the batch's: its settings may be the cause of models that are worth nothing.
    """
    note = constants_note(view.constants, view.counts["succeeded"] + view.counts["reused"], spec)
    return _Summary(view, seconds, held_reason=held_reason, interrupted=interrupted, logs_dir=logs_dir, note=note)


class _PlanTable:
    def __init__(self, plan: Plan, bars: RenderableType | None) -> None:
        self._plan = plan
        self._bars = bars

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        draw, plan = glyphs(ascii_only=options.ascii_only), self._plan
        if self._bars is None:
            yield from self._windows(options, draw)
        else:
            yield self._bars
        yield Text()
        yield Text(f"{_windows(len(plan.windows))}: {plan_line(plan)}", "bold")
        yield from _reasons(skips_of(plan.windows), draw)
        if refusals := refusals_of(plan.windows):
            yield Text()
            yield Text("Data that are refused", "bold")
            yield from _reasons(refusals, draw)
        if plan.notes:
            yield Text()
            yield Text("About the data", "bold")
            yield from (Text(f"  {draw.clean(line)}") for line in notes_lines(plan.notes))

    def _windows(self, options: ConsoleOptions, draw: Glyphs) -> Iterator[Text]:
        plan = self._plan
        longest = max((cell_len(planned.window.label) for planned in plan.windows), default=6)
        # The other columns take 30 cells; a reason gets nearly as many before a label takes more than its half. A
        # reason that is cut off here stands below, grouped, and in full where the plan goes through a pipe.
        width = max(6, min(longest, max(options.max_width // 2, options.max_width - 56)))
        room = options.max_width - width - 30
        yield Text(f"{draw.crop('window', width)}  {'bars':>8}  {'usable':>8}  action  reason", "bold", no_wrap=True)
        for planned in plan.windows:
            act = action(planned)
            label = draw.crop_middle(draw.clean(planned.window.label), width)
            line = Text(f"{label}  {planned.bars:>8}  {planned.usable_rows:>8}  ", no_wrap=True, overflow="crop")
            line.append(act, STYLES[_OUTCOME_OF[act]])
            if (why := reason_of_plan(planned)) and room > 4:
                reason = draw.crop(draw.clean(why), room).rstrip()
                line.append(" " * (8 - len(act)) + reason)
            yield line


class _Summary:
    def __init__(
        self,
        view: BatchView,
        seconds: float,
        *,
        held_reason: str | None,
        interrupted: bool,
        logs_dir: Path,
        note: str,
    ) -> None:
        self._view = view
        self._seconds = seconds
        self._held_reason = held_reason
        self._interrupted = interrupted
        self._logs_dir = logs_dir
        self._note = note

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        draw, view = glyphs(ascii_only=options.ascii_only), self._view
        yield from self._heading(draw)
        widest = max(len(str(view.total)), 1)
        for name in OUTCOMES:
            if view.counts[name]:
                count = f"{view.counts[name]:>{widest}}"
                yield Text(f"  {count}  {words(name)}", STYLES[name])
        if left := view.total - view.done:
            yield Text(f"  {left:>{widest}}  not finished; the same command goes on with them")
        if self._note:
            yield Text(draw.clean(self._note), "yellow")
        if failures := view.failures:
            yield Text()
            yield Text("What failed", "bold")
            for window in failures[:SHOWN_FAILURES]:
                yield from self._failure(window, draw)
            failed = view.totals()["failed"] - view.unlaunched
            if failed > SHOWN_FAILURES:
                yield Text(f"  {draw.ellipsis} and {failed - SHOWN_FAILURES} more; logs are in {self._logs()}")
        if refusals := view.refusals():
            yield Text()
            yield Text("Data that are refused: these windows have failed without a launch", "bold")
            yield from _reasons(refusals, draw)
        if view.skips:
            yield Text()
            yield Text("Why windows were skipped", "bold")
            yield from _reasons(view.skips, draw)

    def _heading(self, draw: Glyphs) -> Iterator[Text]:
        view = self._view
        if self._held_reason is not None:
            yield Text(f"Stopped: {draw.clean(self._held_reason)}", "bold red")
        elif self._interrupted:
            yield Text("Interrupted", "bold yellow")
        line = f"{_windows(view.total)} in {duration(self._seconds)}"
        if view.trained and self._seconds > 0:
            line += f", {view.trained} of them run at {per_second(view.trained / self._seconds)}"
        yield Text(line, "bold")

    def _failure(self, window: FinishedWindow, draw: Glyphs) -> Iterator[Text]:
        yield Text("  ").append_text(failure_line(window, draw))
        log = f"{window.label}.{window.attempts}.log"
        yield Text(f"    {draw.clean(f'{self._logs()}/{log}')}", "dim", overflow="fold")

    def _logs(self) -> Path:
        return self._logs_dir / self._view.batch_id


def failure_line(window: FinishedWindow, draw: Glyphs) -> Text:
    """A window, how it ended and why; wraps where it must."""
    how = words(window.outcome)
    if window.kind and window.kind not in (window.outcome, "raised"):
        how += f" ({words(window.kind)})"
    if window.attempts > 1:
        how += f" after {window.attempts} attempts"
    line = Text(overflow="fold")
    line.append(draw.clean(window.label), "bold")
    line.append("  ")
    line.append(how, STYLES[window.outcome])
    return line.append(f": {_bounded(window.reason, draw)}" if window.reason else "")


def _reasons(reasons: Reasons, draw: Glyphs) -> Iterator[Text]:
    shown = reasons.most_common(SHOWN_REASONS)
    widest = max((len(str(count)) for _, count in shown), default=1)
    for reason, count in shown:
        yield Text(f"  {count:>{widest}} {draw.times} {_bounded(reason, draw)}")
    if (more := len(reasons) - SHOWN_REASONS) > 0:
        yield Text(f"  {draw.ellipsis} and for {more} more reasons")


def _bounded(message: str, draw: Glyphs) -> str:
    """A message as long as it deserves here; its log has the whole of it."""
    return draw.clean(message if len(message) <= MESSAGE_CHARS else message[:MESSAGE_CHARS] + draw.ellipsis)


def _windows(count: int) -> str:
    return "1 window" if count == 1 else f"{count} windows"
