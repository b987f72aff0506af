"""Boxes with titles, and the columns of rows in them: headings stand in the upper border, so that they take no line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from textwrap import wrap

import msgspec
from rich.cells import cell_len

from gpusched.client.drawing.line import Line
from gpusched.client.drawing.text import Glyphs

#: cells before the first column: whether a row is chosen or marked
SIGN = 1
#: cells of the name of a detail, before its value
_DETAIL = 9
_WORDS = re.compile(r"\S+(?: \S+)*")


class Column(msgspec.Struct, frozen=True):
    """A column of `width` cells; the last one of a row takes the rest."""

    heading: str
    width: int
    right: bool = False
    #: text is cut in its middle, since its ends tell it from others
    middle: bool = False


Cell = tuple[str, str] | Line


def heading(columns: Sequence[Column]) -> str:
    """The headings where their columns stand."""
    shown = [c.heading.rjust(c.width) if c.right else c.heading.ljust(c.width) for c in columns]
    return " " * SIGN + " ".join(shown)


def row(columns: Sequence[Column], cells: Sequence[Cell], draw: Glyphs) -> Line:
    """A row: each cell is (text, style), or a line that has the width of its column."""
    line = Line(" " * SIGN)
    last = len(columns) - 1
    for number, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        gap = " " if number else ""
        if isinstance(cell, Line):
            line.append(gap).extend(cell)
            continue
        text, style = cell
        if column.right:
            text = text.rjust(column.width)
        elif number < last:
            text = (draw.crop_middle if column.middle else draw.crop)(text, column.width)
        line.append(gap + text, style)
    return line


def around(chosen: int, count: int, room: int) -> tuple[int, int]:
    """Which of `count` rows to show, the chosen one among them: the first, and their number."""
    shown = max(0, min(count, room))
    return max(0, min(chosen - shown // 2, count - shown)), shown


def signed(line: Line, cells: int, draw: Glyphs, *, chosen: bool, marked: bool) -> Line:
    """A row with the sign of being chosen or marked."""
    sign = draw.mark if marked else ">"
    if chosen:
        return line.fit(cells, draw).chosen(cells, sign)
    return line.signed(sign, "bold yellow") if marked else line


def detail_lines(details: Iterable[str], cells: int, draw: Glyphs) -> list[Line]:
    """Details such as `Status   running`, each wrapped with its values below each other."""
    return [
        Line(" " * SIGN + part)
        for detail in details
        for part in wrap(draw.clean(detail), max(1, cells - SIGN), subsequent_indent=" " * _DETAIL) or [""]
    ]


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """A bordered part of the screen."""

    title: str
    width: int
    lines: Sequence[Line]
    #: number of lines inside: blank ones follow those that there are
    room: int = 0
    #: at the right end of the upper border
    summary: str = ""
    #: headings of columns, where they stand inside
    headings: str = ""
    #: in the lower border, at its right end, or where its words stand if it is as long as the border
    below: str = ""
    focused: bool = False

    def drawn(self, draw: Glyphs) -> list[Line]:
        """The lines with their border, all of them as wide as the box."""
        top_left, top_right, low_right, low_left, across, down = tuple(draw.box)
        inner = self.width - 2
        if inner < 1:
            return []
        style = "cyan" if self.focused else "dim"
        border = list(across * inner)
        name = f" {self.title} " if cell_len(self.title) + 4 <= inner else draw.crop(f" {self.title} ", inner - 1)
        begin, end = 1 + cell_len(name), inner
        if self.summary and begin + cell_len(self.summary) + 4 < inner:
            end = inner - cell_len(self.summary) - 3
            _lay(border, end, f" {self.summary} ")
        for match in _WORDS.finditer(self.headings):
            words = match[0]
            # Of columns side by side, those that there is room for.
            while words and match.start() + len(words) >= end:
                words = words.rpartition(" ")[0]
            if words and begin < match.start():
                _lay(border, match.start() - 1, f" {words} ")
        top = Line(top_left + border[0], style).append(name, f"bold {style}" if self.focused else "bold")
        top.append("".join(border[1 + cell_len(name) :]) + top_right, style)
        low = list(across * inner)
        if len(self.below) < inner and self.below:
            _lay(low, inner - len(self.below) - 3, f" {self.below} ")
        else:
            for match in _WORDS.finditer(self.below):
                _lay(low, match.start() - 1, f" {match[0]} ")
        bottom = Line(low_left + "".join(low) + low_right, style)
        side = (down, style)
        sides = []
        for inside in (*self.lines, *(Line() for _ in range(self.room - len(self.lines)))):
            line = Line(*side).extend(inside.fit(inner, draw)).pad(1 + inner)
            sides.append(line.append(*side))
        return [top, *sides, bottom]


def _lay(border: list[str], at: int, words: str) -> None:
    """Put words on a border; those beyond its ends are left out."""
    for character in words:
        cells = cell_len(character)
        if at >= 0 and at + cells <= len(border):
            border[at : at + cells] = [character, *[""] * (cells - 1)]
        at += cells
