"""A Textual widget that shows a rich renderable, and writes only the lines of it that changed."""

from __future__ import annotations

from itertools import zip_longest

from rich.console import Console, RenderableType
from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class Canvas(Widget):
    """As large as it can be; `show` draws."""

    DEFAULT_CSS = "Canvas { width: 1fr; height: 1fr; }"

    def __init__(self, terminal: Console) -> None:
        super().__init__()
        #: its encoding says whether the terminal knows more than ASCII
        self._terminal = terminal
        self._lines: list[list[Segment]] = []

    def show(self, frame: RenderableType) -> None:
        """Draw `frame` in the colours of the terminal."""
        width, height = self.size
        options = self._terminal.options.update(width=width, height=height)
        lines = self._terminal.render_lines(frame, options)[:height]
        changed = [
            Region(0, number, width, 1)
            for number, (old, new) in enumerate(zip_longest(self._lines, lines))
            if old != new
        ]
        self._lines = lines
        if changed:
            self.refresh(*changed)

    def render_line(self, y: int) -> Strip:
        """Line `y` of the last frame."""
        width = self.size.width
        return Strip(self._lines[y]).adjust_cell_length(width) if y < len(self._lines) else Strip.blank(width)
