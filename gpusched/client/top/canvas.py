"""A Textual widget that shows frames, and writes only the lines of them that changed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

from rich.console import Console
from textual.events import Click
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from gpusched.client.drawing.line import Drawn, Line
from gpusched.client.drawing.text import glyphs


class Canvas(Widget):
    """As large as it can be; `show` draws."""

    DEFAULT_CSS = "Canvas { width: 1fr; height: 1fr; }"

    def __init__(
        self,
        terminal: Console,
        clicked: Callable[[int, int, bool], None],
        scrolled: Callable[[int], None],
    ) -> None:
        """`clicked` is given the cell and whether it was clicked twice, `scrolled` a row down (1) or up (-1)."""
        super().__init__()
        self.clicked, self.scrolled = clicked, scrolled
        #: the terminal's encoding says whether it knows more than ASCII
        self.glyphs = glyphs(ascii_only=terminal.options.ascii_only)
        self._lines: list[Line] = []

    def show(self, frame: Drawn) -> None:
        width, height = self.size
        lines = frame.lines(width, height, self.glyphs)[:height]
        changed = [
            Region(0, number, width, 1)
            for number, (old, new) in enumerate(zip_longest(self._lines, lines))
            if old is None or new is None or old.parts != new.parts
        ]
        self._lines = lines
        if changed:
            self.refresh(*changed)

    def on_click(self, event: Click) -> None:
        self.clicked(event.x, event.y, event.chain > 1)

    def on_mouse_scroll_down(self) -> None:
        self.scrolled(1)

    def on_mouse_scroll_up(self) -> None:
        self.scrolled(-1)

    def render_line(self, y: int) -> Strip:
        """Line `y` of the last frame."""
        width = self.size.width
        if y >= len(self._lines):
            return Strip.blank(width)
        line = self._lines[y]
        return Strip(line.segments(), line.cells).adjust_cell_length(width)
