"""Hints for a user whose data was not found: the nearest thing that exists, and a remedy."""

from __future__ import annotations

import collections
import functools
import os
import unicodedata
from pathlib import Path

from gpusched.core.wording import counted, first_few
from gpusched.files import is_directory
from gpusched.teacher import intervals
from gpusched.teacher.suffixes import FLAT_SUFFIXES, SUFFIXES
from gpusched.workload import NoData

#: most names that a hint lists
SHOWN = 3


def nothing_found(root: str, symbol: str, interval: str) -> NoData:
    """Make the error for a symbol without bars: the places that were searched, and a remedy."""
    if not is_directory(Path(root)):
        return NoData(f"no data: the data root {root} is not a directory", remedy="give another --data-root")
    below = Path(root, symbol)
    if is_directory(below):
        there, remedy = _instead(below, interval)
        return NoData(f"no data: {below} has no interval {interval} ({there})", remedy=remedy)
    missing = f"no data: neither {symbol}/{interval} nor {symbol}.csv or the like is in {root}"
    if near := _nearest(root, symbol):
        return NoData(f"{missing} ({near[0]})", remedy=near[1])
    return NoData(missing, remedy="give another --data-root")


def _instead(below: Path, interval: str) -> tuple[str, str]:
    """The contents of a symbol's directory that lacks the interval, and a remedy."""
    paths = list(below.iterdir())
    directories = sorted(path.name for path in paths if path.is_dir())
    if directories:
        return f"there {_are(len(directories))}: {first_few(directories, SHOWN)}", f"give --interval {directories[0]}"
    if not paths:
        return "it is empty", f"put files into {below}/{interval}"
    counts = collections.Counter(path.suffix or path.name for path in paths)
    files = ", ".join(counted(count, f"{suffix} file") for suffix, count in sorted(counts.items()))
    return f"there {_are(len(paths))} {files} directly in it, not read", f"move them to {below}/{interval}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _nearest(root: str, symbol: str) -> tuple[str, str] | None:
    """What is in the root instead: an entry with nearly the symbol's name, or a sign of another root; and a remedy."""
    try:
        names = _names(root, Path(root).stat().st_mtime_ns)
    except OSError:  # the root can be searched, but not listed
        return None
    if symbol in names.get(plain(symbol), ()):
        return f"{symbol} is there, a file without a suffix", "rename it to end with .csv"
    if alike := names.get(plain(symbol)):
        if alike[0].startswith(symbol + ".") and alike[0].lower().endswith(SUFFIXES):
            return f"{alike[0]} is there", "write its suffix in lower case"
        if alike[0].startswith(symbol + "."):
            return f"{alike[0]} is there, in a format that is not read", "save it as CSV or Parquet"
        return f"{alike[0]} is there", "write the symbol as its file is called"
    for suffix in SUFFIXES:
        if symbol.lower().endswith(suffix) and Path(root, symbol).exists():
            return f"{symbol} is there", f"leave {suffix} out of the symbol"
    folders = [name for alike in names.values() for name in alike if intervals.span(name) and Path(root, name).is_dir()]
    for name in folders:
        for there in (symbol, *(symbol + suffix for suffix in FLAT_SUFFIXES)):
            if Path(root, name, there).exists():
                return f"{Path(root, name, there)} is there", f"give --data-root {Path(root, name)}"
    if folders:
        return f"it has {folders[0]} itself, as a symbol's own directory does", "give the --data-root above that"
    if Path(root, f"symbol={symbol}").exists():
        return f"symbol={symbol} is there", f"move its files to {Path(root, symbol, intervals.DEFAULT)}"
    start = plain(symbol)
    longer = sorted(name for key, alike in names.items() if start and key.startswith(start) for name in alike)
    longer = [name for name in longer if not name[len(symbol) : len(symbol) + 1].isalnum()]
    if not longer:
        return None
    there = f"{first_few(longer, SHOWN)} {_are(len(longer))} there"
    if longer[0].startswith(symbol + ".") and not longer[0].lower().endswith(SUFFIXES):
        return f"{there}, which is not a form that is read", "unpack it, or save it as CSV or Parquet"
    return there, "write the symbol as its file is called"


@functools.lru_cache(maxsize=1)
def _names(root: str, mtime_ns: int) -> dict[str, list[str]]:
    """The root's entries by names without suffix, case and punctuation; they are read again for a new `mtime_ns`."""
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(root)):  # noqa: PTH208 # only names are needed
        stem = name
        for suffix in (*SUFFIXES, Path(name).suffix):
            if suffix and name.lower().endswith(suffix.lower()):
                stem = name[: -len(suffix)]
                break
        names.setdefault(plain(stem), []).append(name)
    return names


def plain(name: str) -> str:
    """Reduce a name to its letters and digits, without differences of case and of Unicode spelling."""
    letters = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in letters if letter.isalnum())
