"""Text that is printed once: the summary after a run, and parts that other texts share with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from gpusched.client.drawing.failures import failure_groups, path_line
from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.plain import clean
from gpusched.client.drawing.text import Glyphs, duration, glyphs, per_second
from gpusched.client.views.batch import BatchView
from gpusched.client.views.failures import by_reason
from gpusched.client.views.reasons import Reasons
from gpusched.client.views.window import FinishedWindow
from gpusched.core.model import BatchSpec, DataNotes
from gpusched.core.statuses import OUTCOMES, words
from gpusched.core.wording import counted, first_few
from gpusched.core.worth import constants_note

#: reasons of skipped windows that the summary shows; it counts the rest
SHOWN_REASONS = 10
#: lines about the data of symbols
SHOWN_NOTES = 20
#: characters of a message that are shown
MESSAGE_CHARS = 600


def notes_lines(notes: DataNotes) -> list[str]:
    """A line for each symbol with notes on its data; symbols with the same notes share one."""
    alike: dict[str, list[str]] = {}
    for symbol, symbol_notes in notes.items():
        alike.setdefault(clean("; ".join(note.text for note in symbol_notes)), []).append(clean(symbol))
    lines = []
    for text, symbols in alike.items():
        lines.append(f"{first_few(symbols, 3)}: {text}")
    if (more := len(lines) - SHOWN_NOTES) > 0:
        lines[SHOWN_NOTES:] = [f"… and {more:,} more lines; --json has them all"]
    return lines


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a batch: outcomes, time, failures with the paths of their logs, reasons of skips.

    Print it with `crop=False`: paths are whole, on lines of their own.
    """

    view: BatchView
    seconds: float
    held_reason: str | None
    interrupted: bool
    #: how windows that are not finished go on
    way_on: str = "the same command goes on with them"
    #: the logs of all batches
    logs_dir: Path
    #: of the batch: its settings may be the cause of models that are worth nothing
    spec: BatchSpec

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        draw, view = glyphs(ascii_only=options.ascii_only), self.view
        yield from self._heading(draw)
        widest = max(len(str(view.total)), 1)
        for name in OUTCOMES:
            if view.counts[name]:
                count = f"{view.counts[name]:>{widest}}"
                yield Text(f"  {count}  {words(name)}", STYLES[name])
        if left := view.total - view.done:
            yield Text(f"  {left:>{widest}}  not finished; {self.way_on}")
        models = view.counts["succeeded"] + view.counts["reused"]
        if note := constants_note(view.constants, models, self.spec):
            yield Text(draw.clean(note), "yellow")
        if failures := [(view.batch_id, window) for window in view.failures]:
            yield Text()
            yield Text("What failed", "bold")
            yield from failure_groups(by_reason(failures), self._logs(), console, options)
            if (more := view.totals()["failed"] - view.unlaunched - len(failures)) > 0:
                yield Text(f"  {draw.ellipsis} and {more} more; logs are in")
                yield path_line(2, str(self._logs()), draw)
        if refusals := view.refusals():
            yield Text()
            yield Text("Data that are refused: these windows have failed without a launch", "bold")
            yield from reason_lines(refusals, draw)
        if view.skips:
            yield Text()
            yield Text("Why windows were skipped", "bold")
            yield from reason_lines(view.skips, draw)

    def _heading(self, draw: Glyphs) -> Iterator[Text]:
        view = self.view
        if self.held_reason is not None:
            yield Text(f"Stopped: {draw.clean(self.held_reason)}", "bold red")
        elif self.interrupted:
            yield Text("Interrupted", "bold yellow")
        line = f"{counted(view.total, 'window')} in {duration(self.seconds)}"
        if view.trained and self.seconds > 0:
            line += f", {view.trained} of them run at {per_second(view.trained / self.seconds)}"
        yield Text(line, "bold")

    def _logs(self) -> Path:
        return self.logs_dir / self.view.batch_id


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


def reason_lines(reasons: Reasons, draw: Glyphs) -> Iterator[Text]:
    shown = reasons.most_common(SHOWN_REASONS)
    widest = max((len(str(count)) for _, count in shown), default=1)
    for reason, count in shown:
        yield Text(f"  {count:>{widest}} {draw.times} {_bounded(reason, draw)}")
    if (more := len(reasons) - SHOWN_REASONS) > 0:
        yield Text(f"  {draw.ellipsis} and for {more} more reasons")


def _bounded(message: str, draw: Glyphs) -> str:
    """A message as long as it deserves here; its log has the whole of it."""
    return draw.clean(message if len(message) <= MESSAGE_CHARS else message[:MESSAGE_CHARS] + draw.ellipsis)
