"""Failures by reason, for `run`, `submit --wait` and `status BATCH`: nothing of an example is masked or cut.

Paths are whole, on lines of their own: print them with `crop=False`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, ConsoleOptions
from rich.text import Text

from gpusched.client.drawing.logs import WROTE_NOTHING, written_log
from gpusched.client.drawing.palette import STYLES
from gpusched.client.drawing.text import Glyphs, glyphs
from gpusched.client.views.failures import FailureGroup
from gpusched.core.statuses import words
from gpusched.core.wording import first_few

#: groups, and labels of each, that are shown
MOST_GROUPS, MOST_LABELS = 8, 3
#: characters of a message; its log has the whole of a longer one
MESSAGE_CHARS = 2000

#: cells before the lines of a group, below its reason
_INDENT = 6


def failure_groups(
    groups: Sequence[FailureGroup], logs_dir: Path, console: Console, options: ConsoleOptions
) -> Iterator[Text]:
    """For each reason the number of windows, an example, which they are, the line that raised it, and the log."""
    draw = glyphs(ascii_only=options.ascii_only)
    widest = max((len(str(len(group.windows))) for group in groups), default=1)
    for group in groups[:MOST_GROUPS]:
        yield from _hanging(_reason(group, widest, draw), 2, console, options)
        window = group.example
        log = written_log(logs_dir, window.label, window.attempts, window.node) if window.attempts else None
        if len(group.windows) > 1 or log is None:  # one with a log is named by that
            yield from _hanging(Text(draw.clean(first_few(group.labels, MOST_LABELS))), _INDENT, console, options)
        if window.source_line:
            yield path_line(_INDENT, f"at {window.source_line}", draw)
        if log is not None:
            yield path_line(_INDENT, str(log), draw)
        elif window.attempts:
            yield from _hanging(Text(f"it {WROTE_NOTHING}", "dim"), _INDENT, console, options)
    if (more := len(groups) - MOST_GROUPS) > 0:
        yield Text(f"  {draw.ellipsis} and for {more} more reasons")


def path_line(indent: int, path: str, draw: Glyphs) -> Text:
    """A path on a line of its own: a terminal that wraps it still copies it as one word."""
    return Text(" " * indent + draw.clean(path), "dim", no_wrap=True, overflow="ignore")


def _reason(group: FailureGroup, widest: int, draw: Glyphs) -> Text:
    window = group.example
    how = words(window.outcome if window.kind in (None, "raised") else window.kind)
    if window.attempts > 1:
        how += f" after {window.attempts} attempts"
    line = Text(f"{len(group.windows):>{widest}} {draw.times} ").append(how, STYLES["failed"])
    message = window.reason[:MESSAGE_CHARS] + (draw.ellipsis if len(window.reason) > MESSAGE_CHARS else "")
    return line.append(f"{'' if group.same else ', such as'}: {draw.clean(message)}") if message else line


def _hanging(text: Text, indent: int, console: Console, options: ConsoleOptions) -> Iterator[Text]:
    """The text behind spaces, also where it wraps; in a pipe it does not."""
    room = max(20, options.max_width - indent)
    for line in [text] if options.no_wrap else text.wrap(console, room, overflow="fold"):
        yield Text(" " * indent).append_text(line)
