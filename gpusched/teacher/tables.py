"""Cut text into rows and fields, by numpy: many files that have the same layout at once.

The rules are those of RFC 4180: a field may be quoted, and then holds separators, line ends and doubled quotes. Every
row has as many fields as the header. Blank rows and repetitions of the header are skipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpusched.core.wording import counted
from gpusched.teacher.bars import Integers
from gpusched.teacher.contents import require_utf8
from gpusched.teacher.layout import Layout
from gpusched.workload import BadData

Bytes = npt.NDArray[np.uint8]
#: (W, n): the characters of n texts, padded with zeros
Characters = Bytes

_NEWLINE, _QUOTE, _SPACE, _TAB, _ZERO, _NINE = b'\n" \t09'
#: characters: a longer field is cut to this, and its last character becomes `_TOO_LONG`, which is in no text
LONGEST = 64
_TOO_LONG = 0xFF
#: rows of a block
_BLOCK_ROWS = 1 << 14


def as_bytes(characters: Characters) -> npt.NDArray[np.bytes_]:
    """(n,) the texts of `characters`, which has at least one row."""
    return np.ascontiguousarray(characters.T).view(f"S{len(characters)}").ravel()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Table:
    """n rows of fields, in the order in which they were read."""

    paths: Sequence[Path]
    separator: str
    text: bytes
    #: (n, columns) positions in `text`: of a field's first character, and of the one behind its last
    starts: Integers
    ends: Integers
    #: (n,) number of the row's file in `paths`
    file: Integers
    #: (n,) number of the row's line in its file
    line: Integers
    #: whether there are quotes in `text`
    has_quotes: bool

    def __len__(self) -> int:
        return len(self.file)

    def place(self, row: int) -> str:
        """`file:line` of a row."""
        return f"{self.path(row)}:{self.line[row]}"

    def path(self, row: int) -> Path:
        """The file of a row."""
        return self.paths[int(self.file[row])]

    def field(self, row: int, column: int) -> str:
        """A field as it is written, without quotes and blanks around it."""
        start, end = self._trimmed(column)
        return self.text[int(start[row]) : int(end[row])].decode()

    def shown(self, row: int, column: int) -> str:
        """A field as an error message quotes it."""
        text = self.field(row, column)
        return repr(text if len(text) <= LONGEST else text[:LONGEST] + "…")

    def fields(self, column: int) -> list[str]:
        starts, ends = (bounds.tolist() for bounds in self._trimmed(column))
        return [self.text[start:end].decode() for start, end in zip(starts, ends, strict=True)]

    def characters(self, *columns: int) -> Characters:
        """The fields of columns, one after the other, without quotes and blanks around them, cut at `LONGEST`."""
        starts, ends = self._trimmed(*columns)
        widths = ends - starts
        longest = min(int(widths.max(initial=0)), LONGEST)
        shortest = int(widths.min(initial=LONGEST))
        buffer = np.frombuffer(self.text, np.uint8)
        block = np.empty((longest, len(starts)), np.uint8)
        places = starts.copy()
        for position in range(longest):
            np.take(buffer, places, out=block[position], mode="clip")
            places += 1
            if position >= shortest:
                block[position][widths <= position] = 0
        if longest == LONGEST:
            block[-1][widths > LONGEST] = _TOO_LONG
        return block

    def first(self, column: int) -> Bytes:
        """The first character of each field of a column; for an empty field, the separator or quote after it."""
        return np.frombuffer(self.text, np.uint8)[self._trimmed(column)[0]]

    def blocks(self) -> Iterator[Table]:
        """The table in pieces of few rows, for computations that take much memory for each row; at least one piece."""
        for start in range(0, max(len(self), 1), _BLOCK_ROWS):
            yield self.only(slice(start, start + _BLOCK_ROWS))

    def only(self, rows: npt.NDArray[np.bool_] | slice) -> Table:
        """The table with only these rows."""
        return dataclasses.replace(
            self, starts=self.starts[rows], ends=self.ends[rows], file=self.file[rows], line=self.line[rows]
        )

    def _trimmed(self, *columns: int) -> tuple[Integers, Integers]:
        buffer = np.frombuffer(self.text, np.uint8)
        starts, ends = _strip(buffer, self.starts[:, columns].T.ravel(), self.ends[:, columns].T.ravel())
        if self.has_quotes:
            quoted = (buffer[starts] == _QUOTE) & (ends - starts > 1)
            starts, ends = _strip(buffer, starts + quoted, ends - quoted)
        return starts, ends


def _strip(buffer: Bytes, starts: Integers, ends: Integers) -> tuple[Integers, Integers]:
    """Bounds of fields without blanks at their ends. The character at the end of a field is its separator."""
    while (blank := _blank(buffer[starts]) & (starts < ends)).any():
        starts = starts + blank
    while (blank := _blank(buffer[ends - 1]) & (starts < ends)).any():
        ends = ends - blank
    return starts, ends


def _blank(characters: Bytes) -> npt.NDArray[np.bool_]:
    blank: npt.NDArray[np.bool_] = (characters == _SPACE) | (characters == _TAB)
    return blank


def cut(paths: Sequence[Path], bodies: Sequence[bytes], layout: Layout) -> Table:
    """Cut files into rows; each body is without its header, and has a line end at its end. Raises BadData."""
    text = b"".join(bodies)
    if b"\r" in text:
        bodies = [body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") for body in bodies]
        text = b"".join(bodies)
    if not text.isascii() or b"\0" in text:
        for path, body in zip(paths, bodies, strict=True):
            require_utf8(path, b"\n" * layout.lines + body)
    buffer = np.frombuffer(text, np.uint8)
    first = np.cumsum([0, *(len(body) for body in bodies)])
    newlines = np.flatnonzero(buffer == _NEWLINE)
    is_bound = buffer == ord(layout.separator)
    is_bound |= buffer == _NEWLINE
    if has_quotes := b'"' in text:
        is_bound &= ~_quoted(paths, buffer, first, newlines, layout)
    bounds = np.flatnonzero(is_bound)
    if len(text) < 2**31:  # half the memory
        bounds = bounds.astype(np.int32)
    del is_bound
    last = np.flatnonzero(buffer[bounds] == _NEWLINE)  # of each row: its last bound
    ends = bounds[last]
    starts = np.concatenate([np.zeros(1, bounds.dtype), ends[:-1] + 1])[: len(ends)]
    file = np.searchsorted(first, starts, side="right") - 1
    line = np.searchsorted(newlines, starts) - np.searchsorted(newlines, first[:-1])[file] + layout.lines + 1
    fields = np.diff(last, prepend=-1)
    width = len(layout.names)
    whole = fields == width
    if not whole.all():
        wrong = np.flatnonzero(~whole)
        blank = [_is_blank(text[starts[row] : ends[row]], layout.separator) for row in wrong]
        if not all(blank):
            row = wrong[blank.index(False)]
            raise BadData(f"{paths[file[row]]}:{line[row]}: {_miscounted(int(fields[row]), width)}")
        bounds = bounds[np.repeat(whole, fields)]
        starts, file, line = starts[whole], file[whole], line[whole]
    field_ends = bounds.reshape(-1, width)
    field_starts = np.concatenate([starts[:, np.newaxis], field_ends[:, :-1] + 1], axis=1)
    table = Table(paths, layout.separator, text, field_starts, field_ends, file, line, has_quotes)
    return _without_headers(table, layout)


def column_of(path: Path, columns: Sequence[Sequence[str]], line: Integers) -> Table:
    """Make a table of texts that are already cut, from its columns."""
    rows = [[field.encode() for field in row] for row in zip(*columns, strict=True)]
    text = b"\n".join(field for row in rows for field in row) + b"\n"
    lengths = np.array([[len(field) for field in row] for row in rows], np.int64).reshape(-1, len(columns))
    ends = np.cumsum(lengths.ravel() + 1).reshape(lengths.shape) - 1
    return Table((path,), ",", text, ends - lengths, ends, np.zeros(len(rows), np.int64), line, b'"' in text)


def _is_blank(line: bytes, separator: str) -> bool:
    """Whether all fields of a line are empty."""
    return all(field.strip(b" \t") in (b"", b'""') for field in line.split(separator.encode()))


def _miscounted(fields: int, width: int) -> str:
    count = f"{counted(fields, 'field')}, where the header has {width}"
    if fields == 1:
        return f"{count}: remove a line that is not a row"
    return f"{count}: quote a field that contains the separator, such as 1,234.5" if fields > width else count


def _without_headers(table: Table, layout: Layout) -> Table:
    """The table without rows that are blank or repeat the header, as concatenated files have them."""
    first = table.first(layout.timestamp)
    suspects = np.flatnonzero((first < _ZERO) | (first > _NINE))
    if not len(suspects):
        return table
    names = [name.strip() for name in layout.names]
    kept = np.ones(len(table), bool)
    for row in suspects.tolist():
        line = table.text[table.starts[row, 0] : table.ends[row, -1]]
        fields = [field.strip(' \t"\ufeff') for field in line.decode().split(layout.separator)]
        kept[row] = not _is_blank(line, layout.separator) and fields != names
    return table.only(kept)


def _quoted(
    paths: Sequence[Path], buffer: Bytes, first: Integers, newlines: Integers, layout: Layout
) -> npt.NDArray[np.bool_]:
    """Mark the characters within quotes. Raises BadData for a quote that neither opens nor closes a field."""
    is_quote = buffer == _QUOTE
    inside = np.bitwise_xor.accumulate(is_quote.view(np.uint8)).view(bool)
    quotes = np.flatnonzero(is_quote)
    edges = np.zeros(256, bool)
    edges[[ord(layout.separator), _NEWLINE, _QUOTE]] = True
    # The text's first character has none before it, and its last is a line end.
    before = edges[buffer[np.maximum(quotes - 1, 0)]] | (quotes == 0)
    stray = ~np.where(inside[quotes], before, edges[buffer[np.minimum(quotes + 1, len(buffer) - 1)]])
    # Each file has to end outside of quotes.
    count = np.searchsorted(quotes, first)
    if (count & 1).any():
        stray[count[(count & 1).argmax()] - 1] = True
    if stray.any():
        place = int(quotes[stray.argmax()])
        file = int(np.searchsorted(first, place, side="right")) - 1
        line = np.searchsorted(newlines, place) - np.searchsorted(newlines, first[file]) + layout.lines + 1
        raise BadData(f"{paths[file]}:{line}: a quote that neither opens nor closes a field, or is never closed")
    return inside
