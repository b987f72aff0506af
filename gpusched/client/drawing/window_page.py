"""One frame of a window in `gpusched top`: its story, and below it its log."""

from __future__ import annotations

from collections.abc import Sequence

from gpusched.client.drawing.box import Box, detail_lines
from gpusched.client.drawing.line import Drawn, Line, footer
from gpusched.client.drawing.rooms import BORDER
from gpusched.client.drawing.text import Glyphs
from gpusched.client.views.log import LogRow, LogView
from gpusched.core.wording import counted

KEYS = "j/k scroll  tab {}  / find  n next  F follow  c cancel  h hold  r retry  esc back  ? help"
_SHORT_KEYS = "j/k scroll  tab {}  / find  n next  F follow  c r  esc back  ? help"


class WindowFrame(Drawn, frozen=True, kw_only=True):
    """A window's story and its log."""

    #: batch and label
    name: str
    #: one detail or event each
    story: Sequence[str]
    log: LogView
    #: rows of the story that are scrolled out
    above: int = 0
    #: keys scroll the story, not the log
    in_story: bool = False
    #: an answer, instead of the keys
    message: str = ""

    def lines(self, width: int, height: int, draw: Glyphs) -> list[Line]:
        return _Drawing(self, draw, width).lines(height)


class _Drawing:
    def __init__(self, frame: WindowFrame, draw: Glyphs, width: int) -> None:
        self._frame, self._draw, self._width = frame, draw, width
        self._inner = width - BORDER

    def lines(self, height: int) -> list[Line]:
        story = detail_lines(self._frame.story, self._inner, self._draw)
        room = height - 1 - 2 * BORDER
        high = min(len(story), max(1, room // 2))
        above = max(0, min(self._frame.above, len(story) - high))
        hidden = len(story) - high
        box = Box(
            title=self._draw.clean(self._frame.name),
            width=self._width,
            lines=story[above : above + high],
            below=f"{hidden} more" if hidden else "",
            focused=self._frame.in_story,
        )
        drawn = [*box.drawn(self._draw), *self._log(height - 1 - high - BORDER)]
        return [*drawn[: max(0, height - 1)], self._footer()]

    def _log(self, height: int) -> list[Line]:
        log = self._frame.log
        room = height - BORDER
        first, rows = log.look(self._inner, room)
        if log.words:
            below = f"{counted(log.found, 'row has', 'rows have')} {log.words!r}"
        else:
            below = "follows" if log.following else f"row {first + 1} of {len(log)}"
        box = Box(
            title="log",
            width=self._width,
            lines=[self._row(row) for row in rows],
            room=room,
            below=self._draw.clean(below),
            focused=not self._frame.in_story,
        )
        return box.drawn(self._draw) if room > 0 else []

    def _row(self, row: LogRow) -> Line:
        """A row of the log, with the words that are looked for marked in it."""
        words, text = self._frame.log.words, row.text
        line, at, style = Line(), 0, "bold" if row.note else ""
        lower = text.lower()
        while words and len(lower) == len(text) and (place := lower.find(words, at)) >= 0:
            line.append(text[at:place], style).append(text[place : place + len(words)], "black on yellow")
            at = place + len(words)
        return line.append(text[at:], style)

    def _footer(self) -> Line:
        frame = self._frame
        other = "log" if frame.in_story else "story"
        keys = (KEYS if self._width > len(KEYS) + 3 else _SHORT_KEYS).format(other)
        return footer(frame.message, keys, self._width, self._draw)
