"""Numbers of things, and long lists of names, in words."""

from __future__ import annotations

from collections.abc import Sequence

#: seconds between notes on a survey that takes long
SURVEY_NOTE_S = 10.0


def counted(count: int, one: str, several: str = "") -> str:
    """A number of things: `1 window`, `3 windows`. `several`: their plural, if it is not `one` with an s."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def first_few(names: Sequence[str], most: int) -> str:
    """The first names, and the number of the others: `A, B, C and 4 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def surveying(done: int, total: int) -> str:
    """A note on a survey: `Looking at the data: 3/36 symbols`."""
    return f"Looking at the data: {done}/{counted(total, 'symbol')}"
