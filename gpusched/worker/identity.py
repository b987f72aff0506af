"""The identity of a result: a digest of all that determines it but the device type."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gpusched.core.entry_point import entry_point
from gpusched.files import is_file
from gpusched.worker.code import Code, stamp_of

#: Increase it with every change of what is counted.
VERSION = 1


class Identity:
    """Makes the fingerprints of the results of a workload.

    `settings` are its plain settings. gpusched's own workloads make their fingerprints themselves. Any other's are made
    of its code, its settings, the window, and its own fingerprint of the data; without one, of the state of the
    symbol's files.
    """

    def __init__(self, workload: str, code: Code, settings: Any, data_root: str, after: tuple[str, ...] = ()) -> None:
        """`after` are the indexes of earlier batches: once these have run again, the results are others."""
        entry = entry_point(workload)
        self._common = [VERSION, entry.name if entry else workload, code.digest, settings]
        if after:
            self._common.append([(stamp.path, stamp.size, stamp.mtime_ns) for stamp in map(stamp_of, after)])
        self._is_own = code.digest is None
        self._data_root = data_root
        self._listings: dict[str, list[tuple[str, int, int]]] = {}

    def fingerprint(self, symbol: str, start: dt.date, end: dt.date, of_data: str | None) -> str | None:
        """The fingerprint of a window's result; None if nothing is known that could tell whether it is still valid."""
        if self._is_own:
            return of_data
        try:
            data = self._listing(symbol) if of_data is None else of_data
        except OSError:
            return None
        return digest([*self._common, symbol, start, end, data])

    def _listing(self, symbol: str) -> list[tuple[str, int, int]]:
        if symbol not in self._listings:
            self._listings[symbol] = list(listing(self._data_root, symbol))
        return self._listings[symbol]


def digest(value: Any) -> str:
    """The SHA-256, in hex, of JSON-compatible data."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def listing(data_root: str, symbol: str) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of the symbol's files in a data root, `<SYMBOL>`, `<SYMBOL>/**` and `<SYMBOL>.*`.

    If there are none, all files directly in the data root are listed: one of them may hold the symbol. Raises OSError.
    """
    names = sorted(os.listdir(data_root))  # noqa: PTH208  # a hundred times as fast, for thousands of symbols
    theirs = [name for name in names if name.startswith(f"{symbol}.")]
    yield from _entries(data_root, "", theirs)
    if symbol in names:
        yield from _entries(data_root, "", [symbol])
        for directory, inside in _directories(f"{data_root}/{symbol}"):
            yield from _entries(directory, os.path.relpath(directory, data_root) + "/", sorted(inside))
    elif not theirs:
        yield from _entries(data_root, "", names)


def _directories(top: str) -> Iterator[tuple[str, list[str]]]:
    """Each directory from `top` on with the names in it, through links as well: data often lie behind them."""
    seen: set[tuple[int, int]] = set()
    for directory, below, inside in os.walk(top, followlinks=True):
        status = os.stat(directory)  # noqa: PTH116  # as above
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below.sort()
        yield directory, inside


def _entries(directory: str, prefix: str, names: list[str]) -> Iterator[tuple[str, int, int]]:
    for name in names:
        path = Path(directory, name)
        if is_file(path):
            status = path.stat()
            yield prefix + name, status.st_size, status.st_mtime_ns
