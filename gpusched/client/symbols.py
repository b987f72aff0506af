"""The symbols of a batch, or its windows one by one: from a file, from stdin, or named in a list."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gpusched.client.windows_file import is_windows_file, parse_windows
from gpusched.core.model import Window
from gpusched.core.symbols import SymbolLine, Symbols, listed_symbols, named, parse_symbols
from gpusched.errors import InputError

#: a longer file cannot be a list of symbols or windows: a batch may have 200,000 windows at most
MAX_BYTES = 32 * 1024 * 1024
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
    problem = "the symbols file names no symbol{why}"
    remedy = "write one symbol a line"


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """The symbols of a command."""

    symbols: tuple[str, ...]
    #: the windows of a windows file; empty: it was a symbols file
    windows: tuple[Window, ...] = ()
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
    if path is None:
        place, source = "stdin", "stdin"
        content = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin is not None else b""  # None: it is closed
    else:
        place, source, content = str(path), path.stem, _read(path)
    text = _text(content, place)
    if is_windows_file(text):
        windows = parse_windows(text, place)
        return Named(
            symbols=tuple(dict.fromkeys(one.symbol for one in windows)), windows=windows, source=source, notes=()
        )
    return _of_lines(parse_symbols(text), place, source, typed=False)


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
        notes.append(f"{place}: named twice, taken once: {_again(parsed.duplicates)}")
    return Named(symbols=parsed.symbols, source=source, notes=tuple(notes))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:  # may be a pipe: <(grep …)
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadSymbolsFile(place=str(path), why=error.strerror or str(error)) from None


def _text(content: bytes, place: str) -> str:
    if len(content) > MAX_BYTES:
        raise BadSymbolsFile(place=place, why=f"it is larger than {MAX_BYTES // 2**20} MiB")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:2]:
        raise BadSymbolsFile(
            place=place, why="it is UTF-16 text, as Excel's “Unicode text” and PowerShell's > write it"
        )
    if content.startswith((b"PK\3\4", b"\x1f\x8b")):
        kind = "a zip archive, as Excel's workbooks are" if content.startswith(b"PK") else "compressed by gzip"
        raise BadSymbolsFile(place=place, why=f"it is {kind}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start : error.start + 1]
        why = f"it is not UTF-8 text: the byte 0x{byte.hex()} in line {line} is {byte.decode('latin-1')!r} in Latin-1"
        raise BadSymbolsFile(place=place, why=why) from None


def _why_none(parsed: Symbols) -> str:
    if not parsed.comments:
        return ""
    return ": all that it has are comments, which start with #"


def _again(duplicates: tuple[SymbolLine, ...]) -> str:
    shown = ", ".join(f"{duplicate.symbol} (line {duplicate.line})" for duplicate in duplicates[:SHOWN_DUPLICATES])
    more = len(duplicates) - SHOWN_DUPLICATES
    return f"{shown} and {more:,} more" if more > 0 else shown
