"""The nearest thing that is there, for somebody whose data was not found."""

from __future__ import annotations

import collections
import functools
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from gpusched.teacher import intervals

PARQUET = ".parquet"
#: of files of bars, in any case
SUFFIXES = (".csv", ".csv.gz", ".txt", PARQUET)
#: of a file that stands for a symbol by itself, the preferred one first
FLAT_SUFFIXES = (".csv", ".CSV", ".csv.gz", ".txt", ".TXT", PARQUET)


def some(names: Sequence[str], most: int = 3) -> str:
    """The first of some names, and how many there are beside them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def nothing_found(root: str, symbol: str, interval: str) -> str:
    """Where the bars of a symbol were looked for, and what is there instead."""
    if not Path(root).is_dir():
        return f"the data root {root} is not a directory"
    below = Path(root, symbol)
    if below.is_dir():
        return f"{below} has no interval {interval} ({_instead(below, interval)})"
    hint = _nearest(root, symbol) or f"bars are looked for in {below}/{interval}/*.csv or {below}.csv"
    return f"neither a directory {symbol} nor {symbol}.csv (.csv.gz, .txt, .parquet) is in {root}: {hint}"


def _instead(below: Path, interval: str) -> str:
    directories = sorted(path.name for path in below.iterdir() if path.is_dir())
    if directories:
        return f"there are: {some(directories)}; --interval chooses"
    counts = collections.Counter(path.suffix or path.name for path in below.iterdir())
    if not counts:
        return "it is empty"
    there = ", ".join(f"{count} {suffix} file{'s' if count > 1 else ''}" for suffix, count in sorted(counts.items()))
    return (
        f"there {'is' if sum(counts.values()) == 1 else 'are'} {there} right below it: move them to {below}/{interval}"
    )


def _nearest(root: str, symbol: str) -> str | None:
    """A hint at something with nearly the symbol's name, or at the root that was meant."""
    names = _names(root, Path(root).stat().st_mtime_ns)
    if alike := names.get(_plain(symbol)):
        name = alike[0]
        if name.startswith(symbol + "."):
            return f"{name} is there, which is not a form that is read: save it as CSV or Parquet"
        return f"{name} is there: write the symbol as its file is called"
    for suffix in SUFFIXES:
        if symbol.lower().endswith(suffix) and Path(root, symbol).exists():
            return f"{symbol} is there: leave {suffix} out of the symbol"
    folders = [name for alike in names.values() for name in alike if intervals.span(name) and Path(root, name).is_dir()]
    for name in folders:
        for there in (symbol, *(symbol + suffix for suffix in FLAT_SUFFIXES)):
            if Path(root, name, there).exists():
                return f"{Path(root, name, there)} is there: give --data-root {Path(root, name)}"
    if folders:
        return f"the root has the interval {folders[0]} itself: is it a symbol's directory? give --data-root {Path(root).parent}"
    if Path(root, f"symbol={symbol}").exists():
        return f"symbol={symbol} is there: move its files to {Path(root, symbol, intervals.DEFAULT)}"
    if not (start := _plain(symbol)):
        return None
    longer = sorted(name for key, alike in names.items() if key.startswith(start) for name in alike)
    longer = [name for name in longer if not name[len(symbol) : len(symbol) + 1].isalnum()]
    return f"{some(longer)} is there: is that the symbol?" if longer else None


@functools.lru_cache(maxsize=1)
def _names(root: str, mtime_ns: int) -> dict[str, list[str]]:
    """What is in the root, by names without suffix, case and punctuation; `mtime_ns` makes it notice changes."""
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(root)):  # noqa: PTH208  # names are all that is needed
        stem = name
        for suffix in (*SUFFIXES, Path(name).suffix):
            if suffix and name.lower().endswith(suffix.lower()):
                stem = name[: -len(suffix)]
        names.setdefault(_plain(stem), []).append(name)
    return names


def _plain(name: str) -> str:
    letters = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in letters if letter.isalnum())
