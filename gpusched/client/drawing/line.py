"""One line of a live screen: styled parts beside each other, lighter than rich's `Text` eight times a second."""

from __future__ import annotations

from textwrap import wrap

import msgspec
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from gpusched.client.drawing.text import Glyphs, glyphs

#: lines for the reason of the chosen row
TOLD_LINES = 4


class Line:
    """Parts and their styles. `cells` is its width."""

    __slots__ = ("cells", "parts")

    def __init__(self, text: str = "", style: str = "") -> None:
        self.parts: list[tuple[str, str]] = []
        self.cells = 0
        self.append(text, style)

    def append(self, text: str, style: str = "") -> Line:
        if text:
            parts = self.parts
            if parts and parts[-1][1] == style:  # fewer parts: each costs several objects on the way to the terminal
                parts[-1] = (parts[-1][0] + text, style)
            else:
                parts.append((text, style))
            self.cells += len(text) if text.isascii() else cell_len(text)
        return self

    def extend(self, other: Line) -> Line:
        self.parts += other.parts
        self.cells += other.cells
        return self

    def pad(self, cells: int) -> Line:
        """Fill the line with blanks up to `cells`."""
        return self.append(" " * (cells - self.cells))

    def fit(self, cells: int, draw: Glyphs) -> Line:
        """Cut it at its end, with a sign, if it is longer."""
        if self.cells <= cells:
            return self
        room = max(0, cells - len(draw.ellipsis))
        parts, self.parts, self.cells = self.parts, [], 0
        for text, style in parts:
            left = room - self.cells
            self.append(text if cell_len(text) <= left else set_cell_size(text, left), style)
            if self.cells >= room:
                break
        return self.append(draw.ellipsis[:cells])

    @property
    def plain(self) -> str:
        return "".join(text for text, _ in self.parts)

    def chosen(self, cells: int, sign: str) -> Line:
        """The chosen one of several lines: without colour, too, since its first cells are the sign."""
        text = sign + self.plain[len(sign) :]
        return Line(set_cell_size(text, cells), "reverse")

    def signed(self, sign: str, style: str) -> Line:
        """With a sign in place of the blank that it begins with."""
        (first, first_style), *others = self.parts
        line = Line(sign, style).append(first[1:], first_style)
        line.parts += others
        line.cells = self.cells
        return line

    def segments(self) -> list[Segment]:
        return [Segment(text, Style.parse(style)) if style else Segment(text) for text, style in self.parts]


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """A frame of a screen as lines: `top` compares them with those of the frame before, rich prints them."""

    def lines(self, width: int, height: int, draw: Glyphs) -> list[Line]:
        """Exactly or at most `height` lines of at most `width` cells."""
        raise NotImplementedError

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.size.height
        for line in self.lines(options.max_width, height, glyphs(ascii_only=options.ascii_only)):
            yield from line.segments()
            yield Segment.line()


def footer(message: str, keys: str, cells: int, draw: Glyphs) -> Line:
    """The last line of a screen: its keys, or a message in their place."""
    return Line(draw.crop(draw.clean(message or keys), cells).rstrip(), "bold yellow" if message else "dim")


def told(text: str, cells: int, draw: Glyphs, style: str = "yellow") -> list[Line]:
    """Wrap a sentence, such as the reason of the chosen row, into at most `TOLD_LINES` lines."""
    lines = wrap(draw.clean(text), max(1, cells))
    if len(lines) > TOLD_LINES:
        lines = [*lines[: TOLD_LINES - 1], " ".join(lines[TOLD_LINES - 1 :])]
    return [Line(draw.crop(line, cells).rstrip(), style) for line in lines]
