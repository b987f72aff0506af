"""The symbols of a batch, or its windows one by one: from a file, from stdin, or named in a list."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gpusched.client.text_files import MAX_BYTES, NotText, decoded, is_json, read_text
from gpusched.client.windows_file import Asked, parse_windows
from gpusched.core.symbols import Symbols, listed_symbols, named, parse_symbols
from gpusched.core.wording import first_few
from gpusched.errors import InputError

#: how many repeated symbols are shown; the others are only counted
SHOWN_DUPLICATES = 5
STDIN = "-"


class BadSymbolsFile(InputError):
    problem = "the symbols file cannot be read: {why}"
    remedy = "give a UTF-8 text file with one symbol a line"


class BadSymbol(InputError):
    problem = "{symbol!r} cannot be a symbol: {why}{more}"
    remedy = "mend or remove that line"


class NoSymbols(InputError):
    problem = "no symbol is named{why}"
    remedy = "write one a line in a file, or AAPL,MSFT in a list"


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """The symbols of a command."""

    symbols: tuple[str, ...]
    #: what a windows file asks for; nothing: it was a symbols file
    asked: Asked = Asked()
    #: name that the batch id is made from
    source: str
    #: sentences for people
    notes: tuple[str, ...]


def typed_symbols(text: str) -> Named:
    """The symbols of `--symbols`: `AAPL,MSFT`. Raises InputError."""
    return _of_lines(listed_symbols(text), "--symbols", re.sub(r"[,\s]+", "-", text), typed=True)


def given_symbols(symbols: Iterable[str]) -> Named:
    """The symbols of a program. Raises InputError."""
    several = list(symbols)
    return _of_lines(named(several), "symbols", "-".join(several), typed=True)


def read_symbols(path: Path | None) -> Named:
    """The symbols of the file at `path` or of stdin (None), which may be a windows file. Raises InputError."""
    place, source = ("stdin", "stdin") if path is None else (str(path), path.stem)
    try:
        text = _stdin() if path is None else read_text(path)
    except NotText as error:
        raise BadSymbolsFile(place=place, why=error) from None
    if is_json(text):
        contents = parse_windows(text, place)
        return Named(
            symbols=tuple(dict.fromkeys(one.symbol for one in contents.windows)),
            asked=contents,
            source=source,
            notes=(),
        )
    return _of_lines(parse_symbols(text), place, source, typed=False)


def _stdin() -> str:
    return decoded(sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin is not None else b"")  # None: it is closed


def _of_lines(parsed: Symbols, place: str, source: str, *, typed: bool) -> Named:
    if parsed.refused:
        line, more = parsed.refused[0], len(parsed.refused) - 1
        others = f"; {more:,} more {'line' if more == 1 else 'lines'} like it" if more else ""
        where = place if typed else f"{place}:{line.line}"
        raise BadSymbol(place=where, symbol=line.text, why=line.why, more=others)
    if not parsed.symbols:
        raise NoSymbols(place=place, why=_why_none(parsed))
    notes = [f"{place}: {doubt}" for doubt in parsed.doubts]
    if parsed.duplicates:
        twice = [f"{duplicate.symbol} (line {duplicate.line})" for duplicate in parsed.duplicates]
        notes.append(f"{place}: named twice, taken once: {first_few(twice, SHOWN_DUPLICATES)}")
    return Named(symbols=parsed.symbols, source=source, notes=tuple(notes))


def _why_none(parsed: Symbols) -> str:
    if not parsed.comments:
        return ""
    return ": all that it has are comments, which start with #"
