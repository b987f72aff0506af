"""A log that grows: its rows for a width, the part that is looked at, and words that are looked for in it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import msgspec

#: lines that are kept to be scrolled through
KEPT_LINES = 5000


class LogRow(msgspec.Struct, frozen=True):
    """A line, or a part of it where it is longer than the screen is wide. `note`: it is about the log."""

    text: str
    note: bool = False


class LogView:
    """The last `KEPT_LINES` lines. `look` comes before everything that moves: it says how large the screen is."""

    def __init__(self, chop: Callable[[str, int], list[str]]) -> None:
        """`chop` cuts a text into parts of at most the given number of cells."""
        self._chop = chop
        #: the end stays on the screen while the log grows
        self.following = True
        #: words that are looked for, in lower case
        self.words = ""
        self._lines: deque[LogRow] = deque(maxlen=KEPT_LINES)
        self._rows: list[LogRow] = []
        self._width, self._room, self._first = 80, 1, 0

    def add(self, text: str, *, note: bool = False) -> None:
        """A line was written."""
        line = LogRow(text, note)
        if len(self._lines) == KEPT_LINES:
            gone = len(self._wrapped(self._lines[0]))
            del self._rows[:gone]
            self._first = max(0, self._first - gone)
        self._lines.append(line)
        self._rows += self._wrapped(line)

    def look(self, width: int, room: int) -> tuple[int, list[LogRow]]:
        """The rows on a screen of this size, and the number of the first one."""
        if width != self._width:
            self._width = width
            self._rows = [row for line in self._lines for row in self._wrapped(line)]
        self._room = max(1, room)
        last = max(0, len(self._rows) - self._room)
        self._first = last if self.following else min(self._first, last)
        return self._first, self._rows[self._first : self._first + max(0, room)]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def room(self) -> int:
        return self._room

    def move(self, step: int) -> None:
        """Go `step` rows down, or up if it is negative; at its end, the log is followed."""
        last = max(0, len(self._rows) - self._room)
        self._first = max(0, min(last, self._first + step))
        self.following = self._first == last

    def find(self, words: str) -> None:
        """Look for words; go to the first row with them from here on."""
        self.words = words.lower()
        if words and not self._seek(range(self._first, len(self._rows))):
            self._seek(range(self._first))

    def seek(self, step: int) -> None:
        """Go to the next row that has the words (1), or to the one before (-1)."""
        rows = len(self._rows)
        if self.words and rows:
            self._seek((self._first + step * distance) % rows for distance in range(1, rows + 1))

    @property
    def found(self) -> int:
        """The number of rows that have the words."""
        return sum(self.words in row.text.lower() for row in self._rows) if self.words else 0

    def _seek(self, numbers: Iterable[int]) -> bool:
        for number in numbers:
            if self.words in self._rows[number].text.lower():
                self._first, self.following = number, False
                return True
        return False

    def _wrapped(self, line: LogRow) -> list[LogRow]:
        if len(line.text) <= self._width and line.text.isascii():
            return [line]
        parts = self._chop(line.text, max(2, self._width)) or [""]
        return [LogRow(part, line.note) for part in parts]
