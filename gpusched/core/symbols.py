"""The text of a symbols file: its symbols, duplicates, and lines that cannot be symbols. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import msgspec

MAX_SYMBOL_LENGTH = 64

#: ends of lines as editors know them; `str.splitlines` would also split at form feeds and other control characters
_LINE_END = re.compile(r"\r\n|\r|\n")
#: separators of symbols on a command line
_BETWEEN = re.compile(r"[,\s]+")
#: names that are probably the heading of a table's column, if they stand in the first line
_HEADINGS = frozenset(("symbol", "symbols", "ticker", "tickers", "name", "code", "instrument", "security", "isin"))
#: endings of names that were probably copied from a listing of files
_SUFFIXES = (".csv", ".txt", ".parquet", ".gz")
_TABLE = "one symbol a line; this looks like a CSV table: its column Symbol?"
_QUOTED = f"a quotation mark ({_TABLE})"
#: characters that no symbol contains, and their names for the error message
_NEVER = {
    ",": f"a comma ({_TABLE})",
    ";": f"a semicolon ({_TABLE})",
    "|": f"a vertical bar ({_TABLE})",
    **dict.fromkeys('"“”„«»`', _QUOTED),
    **dict.fromkeys("<>", "an angle bracket (is this an HTML page?)"),
    **dict.fromkeys("*?", "a wildcard, and patterns are not expanded (name each symbol)"),
}
#: characters of a refused line that are shown
_SHOWN_CHARACTERS = 80


class SymbolLine(msgspec.Struct, frozen=True):
    """One symbol of a symbols file and its line number, from 1."""

    symbol: str
    line: int


class Refused(msgspec.Struct, frozen=True):
    """A line that cannot be a symbol, and the reason."""

    line: int
    text: str
    why: str


class Symbols(msgspec.Struct, frozen=True, kw_only=True):
    """A symbols file after reading: symbols to train, duplicates, refused lines, and doubtful symbols."""

    symbols: tuple[str, ...]
    duplicates: tuple[SymbolLine, ...] = ()
    refused: tuple[Refused, ...] = ()
    #: sentences about symbols that are accepted but may be mistakes
    doubts: tuple[str, ...] = ()
    #: number of lines with only a comment
    comments: int = 0


def parse_symbols(text: str) -> Symbols:
    """Parse a file with one symbol per line; blank lines are skipped, and `#` comments, also those after a symbol."""
    named: list[SymbolLine] = []
    refused: list[Refused] = []
    comments = 0
    for number, line in enumerate(_LINE_END.split(text.removeprefix("\ufeff")), start=1):
        symbol, mark, _ = line.partition("#")
        if mark and not symbol.strip():
            comments += 1
        elif mark and not symbol[-1].isspace():
            # A comment or a part of the name? A wrong guess would train on another symbol's prices.
            refused.append(
                Refused(number, _cut(line.strip()), "# stands right behind it (put a blank before a comment)")
            )
        elif symbol.strip():
            named.append(SymbolLine(symbol.strip(), number))
    return _sorted_out(named, refused, comments)


def listed_symbols(text: str) -> Symbols:
    """Parse symbols separated by commas or blanks, as on a command line; positions stand in for line numbers."""
    return named(word for word in _BETWEEN.split(text) if word)


def named(symbols: Iterable[str]) -> Symbols:
    """Check symbols that are named one by one, as in a program; positions stand in for line numbers."""
    return _sorted_out([SymbolLine(symbol, number) for number, symbol in enumerate(symbols, start=1)], [], 0)


def _sorted_out(named: list[SymbolLine], refused: list[Refused], comments: int) -> Symbols:
    seen: dict[str, int] = {}
    duplicates: list[SymbolLine] = []
    for entry in named:
        if why := symbol_problem(entry.symbol):
            refused.append(Refused(entry.line, _cut(entry.symbol), why))
        elif entry.symbol in seen:
            duplicates.append(entry)
        else:
            seen[entry.symbol] = entry.line
    return Symbols(
        symbols=tuple(seen),
        duplicates=tuple(duplicates),
        refused=tuple(sorted(refused, key=lambda line: line.line)),
        doubts=_doubts(seen),
        comments=comments,
    )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def symbol_problem(symbol: str) -> str | None:
    """Why `symbol` cannot be one, or None. A symbol names a directory, so it must not lead out of its root."""
    if not symbol:
        return "it is empty"
    if symbol.startswith("."):
        return "it starts with a dot"
    if "/" in symbol or "\\" in symbol:
        return f"it contains a path separator (write it as its file is called{_like(symbol)})"
    if symbol[0] == symbol[-1] == "'":
        return f"it contains {_QUOTED}"  # one within it may be a letter's: L'OREAL
    for character, description in _NEVER.items():
        if character in symbol:
            return f"it contains {description}"
    if any(character.isspace() for character in symbol):
        return "it contains white space (one symbol a line)"
    if not symbol.isprintable():
        return f"it contains control characters ({_unseen(symbol)})"
    if len(symbol) > MAX_SYMBOL_LENGTH:
        return f"it is longer than {MAX_SYMBOL_LENGTH} characters"
    return None


def _like(symbol: str) -> str:
    """Suggest names for the file of a symbol such as `BTC/USDT`."""
    parts = [part for part in re.split(r"[/\\]+", symbol) if part]
    names = dict.fromkeys(("_".join(parts), "".join(parts)))
    return f": {' or '.join(names)}?" if parts else ""


def _unseen(symbol: str) -> str:
    """Describe the first invisible character: its number, name and position."""
    place, character = next((n, c) for n, c in enumerate(symbol) if not c.isprintable())
    name = unicodedata.name(character, "")
    where = "at its end" if place == len(symbol) - 1 else f"as character {place + 1}"
    return f"U+{ord(character):04X}{' ' if name else ''}{name} {where}, which cannot be seen"


def _doubts(seen: dict[str, int]) -> tuple[str, ...]:
    doubts = []
    first = next(iter(seen), "")
    if first.lower() in _HEADINGS:
        doubts.append(f"{first!r} in line {seen[first]} is taken as a symbol, but looks like a heading")
    composed = ((symbol, unicodedata.normalize("NFC", symbol)) for symbol in seen if not symbol.isascii())
    if apart := next((symbol for symbol, whole in composed if symbol != whole), None):
        doubts.append(f"{apart} in line {seen[apart]} has accents as separate characters, as macOS writes file names")
    files = [symbol for symbol in seen if symbol.lower().endswith(_SUFFIXES)]
    if files:
        looks = f" and {len(files) - 1:,} more look like names of files" if files[1:] else " looks like a file's name"
        stem = files[0].rpartition(".")[0]
        doubts.append(f"{files[0]}{looks}: leave the suffix out ({stem}) where it is not the symbol's")
    return tuple(doubts)
