"""A symbols file as text: what it names, what it names twice, and what cannot be a symbol. Pure."""

from __future__ import annotations

import re
import unicodedata

import msgspec

MAX_SYMBOL_LENGTH = 64

#: those that editors know; `str.splitlines` would also take form feeds and other control characters for one
_LINE_END = re.compile(r"\r\n|\r|\n")
#: between the symbols of a command line
_BETWEEN = re.compile(r"[,\s]+")
#: what a first line says that is the heading of a table
_HEADINGS = frozenset(("symbol", "symbols", "ticker", "tickers", "name", "code", "instrument", "security", "isin"))
#: a symbol that ends so was taken from a listing of files
_SUFFIXES = (".csv", ".txt", ".parquet", ".gz")
_TABLE = "one symbol a line; this looks like a CSV table: its column Symbol?"
_QUOTED = f"a quotation mark ({_TABLE})"
#: what is in no symbol, and what is said of it
_NEVER = {
    ",": f"a comma ({_TABLE})",
    ";": f"a semicolon ({_TABLE})",
    "|": f"a vertical bar ({_TABLE})",
    **dict.fromkeys('"“”„«»`', _QUOTED),
    **dict.fromkeys("<>", "an angle bracket (is this an HTML page?)"),
    **dict.fromkeys("*?", "a wildcard, and patterns are not expanded (name each symbol)"),
}
#: characters of a line that is refused which are kept
_SHOWN_CHARACTERS = 80


class SymbolLine(msgspec.Struct, frozen=True):
    """One symbol of a symbols file and the line it stands on, from 1."""

    symbol: str
    line: int


class Refused(msgspec.Struct, frozen=True):
    """A line that names no symbol, and why."""

    line: int
    text: str
    why: str


class Symbols(msgspec.Struct, frozen=True, kw_only=True):
    """A symbols file, read: what to train, what stood there twice, what cannot be a symbol, what may be none."""

    symbols: tuple[str, ...]
    duplicates: tuple[SymbolLine, ...] = ()
    refused: tuple[Refused, ...] = ()
    #: sentences about symbols that are taken as they stand, and may be meant otherwise
    doubts: tuple[str, ...] = ()
    #: lines that have nothing but a comment
    comments: int = 0


def parse_symbols(text: str) -> Symbols:
    """One symbol a line; blank lines and `#` comments, also behind a symbol and a blank, are skipped."""
    named: list[SymbolLine] = []
    refused: list[Refused] = []
    comments = 0
    for number, line in enumerate(_LINE_END.split(text.removeprefix("\ufeff")), start=1):
        symbol, mark, _ = line.partition("#")
        if mark and not symbol.strip():
            comments += 1
        elif mark and not symbol[-1].isspace():
            # A comment, or a part of the name: a guess would train on another symbol's prices.
            refused.append(
                Refused(number, _cut(line.strip()), "# stands right behind it (put a blank before a comment)")
            )
        elif symbol.strip():
            named.append(SymbolLine(symbol.strip(), number))
    return _sorted_out(named, refused, comments)


def listed_symbols(text: str) -> Symbols:
    """Symbols with commas or blanks between them, as on a command line; their numbers take the place of lines."""
    words = [word for word in _BETWEEN.split(text) if word]
    return _sorted_out([SymbolLine(word, number) for number, word in enumerate(words, start=1)], [], 0)


def _sorted_out(named: list[SymbolLine], refused: list[Refused], comments: int) -> Symbols:
    seen: dict[str, int] = {}
    duplicates: list[SymbolLine] = []
    for found in named:
        if why := symbol_problem(found.symbol):
            refused.append(Refused(found.line, _cut(found.symbol), why))
        elif found.symbol in seen:
            duplicates.append(found)
        else:
            seen[found.symbol] = found.line
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
    """Why `symbol` cannot be one, or None. A symbol names a directory, so it must not be able to leave its root."""
    if not symbol:
        return "it is empty"
    if symbol.startswith("."):
        return "it starts with a dot"
    if "/" in symbol or "\\" in symbol:
        return f"it contains a path separator (write it as its file is called{_like(symbol)})"
    if symbol[0] == symbol[-1] == "'":
        return f"it contains {_QUOTED}"  # one within it may be a letter's: L'OREAL
    for character, what in _NEVER.items():
        if character in symbol:
            return f"it contains {what}"
    if any(character.isspace() for character in symbol):
        return "it contains white space (one symbol a line)"
    if not symbol.isprintable():
        return f"it contains control characters ({_unseen(symbol)})"
    if len(symbol) > MAX_SYMBOL_LENGTH:
        return f"it is longer than {MAX_SYMBOL_LENGTH} characters"
    return None


def _like(symbol: str) -> str:
    """Likely names of the file of `BTC/USDT`."""
    parts = [part for part in re.split(r"[/\\]+", symbol) if part]
    names = dict.fromkeys(("_".join(parts), "".join(parts)))
    return f": {' or '.join(names)}?" if parts else ""


def _unseen(symbol: str) -> str:
    """The first character that cannot be seen, by its number and name, and where it stands."""
    place, character = next((n, c) for n, c in enumerate(symbol) if not c.isprintable())
    name = unicodedata.name(character, "")
    where = "at its end" if place == len(symbol) - 1 else f"as character {place + 1}"
    return f"U+{ord(character):04X}{' ' if name else ''}{name} {where}, which cannot be seen"


def _doubts(seen: dict[str, int]) -> tuple[str, ...]:
    doubts = []
    first = next(iter(seen), "")
    if first.lower() in _HEADINGS:
        doubts.append(f"{first!r} in line {seen[first]} is taken for a symbol, and looks like a heading")
    composed = ((symbol, unicodedata.normalize("NFC", symbol)) for symbol in seen if not symbol.isascii())
    if apart := next((symbol for symbol, whole in composed if symbol != whole), None):
        doubts.append(f"{apart} in line {seen[apart]} has letters and accents apart, as macOS writes names of files")
    files = [symbol for symbol in seen if symbol.lower().endswith(_SUFFIXES)]
    if files:
        looks = f" and {len(files) - 1:,} more look like names of files" if files[1:] else " looks like a file's name"
        stem = files[0].rpartition(".")[0]
        doubts.append(f"{files[0]}{looks}: leave the suffix out ({stem}) where it is not the symbol's")
    return tuple(doubts)
