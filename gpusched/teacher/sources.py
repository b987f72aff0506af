"""Where a symbol's bars are: the files that hold them, found and identified but not read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from gpusched.core.symbols import symbol_problem
from gpusched.workload import BadData, NoData


class Source(msgspec.Struct, frozen=True):
    """A file as it was when it was found; its content is taken to change only together with these."""

    name: str
    size: int
    mtime_ns: int


class Sources(msgspec.Struct, frozen=True):
    """All files of one symbol and interval, in the order in which they are read."""

    directory: str
    files: tuple[Source, ...]

    @property
    def paths(self) -> list[Path]:
        return [Path(self.directory, file.name) for file in self.files]

    def digest(self) -> str:
        """Changes when a file is added, removed, renamed or written to."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()


def find_sources(root: str, symbol: str, interval: str) -> Sources:
    """The files of `<root>/<symbol>/<interval>/*.csv`, else `<root>/<symbol>.csv`, else `<root>/<symbol>.parquet`.

    A symbol is text from a user: it names something directly below the root or nothing. Links are followed, for they
    are the operator's own. Raises NoData, BadData.
    """
    if problem := symbol_problem(symbol):
        raise BadData(f"{symbol!r} cannot be a symbol: {problem}")
    directory = str(Path(root, symbol, interval))
    try:
        files = _csv_files(directory)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except PermissionError as error:
        raise BadData(f"{directory}: {error.strerror}") from None
    else:
        if not files:
            raise NoData(f"no data: {directory} has no .csv files")
        return Sources(directory, files)
    for suffix in (".csv", ".parquet"):
        try:
            status = Path(root, symbol + suffix).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return Sources(root, (Source(symbol + suffix, status.st_size, status.st_mtime_ns),))
    raise NoData(_nothing_found(root, symbol, interval))


def _csv_files(directory: str) -> tuple[Source, ...]:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            # A leading dot is an editor's or a file manager's left-over, never data.
            if entry.name.lower().endswith(".csv") and not entry.name.startswith(".") and entry.is_file():
                status = entry.stat()
                found.append(Source(entry.name, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found, key=lambda source: source.name))


def _nothing_found(root: str, symbol: str, interval: str) -> str:
    if not Path(root).is_dir():
        return f"no data: the data root {root} is not a directory"
    below = Path(root, symbol)
    try:
        intervals = sorted(path.name for path in below.iterdir() if path.is_dir())
    except OSError:
        return f"no data: neither {below}/{interval} nor {symbol}.csv or {symbol}.parquet is in {root}"
    others = f"there are: {', '.join(intervals)}" if intervals else "it is empty"
    return f"no data: {below} has no interval {interval} ({others})"
