"""Parsed bars, kept in a file that all windows of a symbol map into memory.

One file per data root, symbol and interval. It is valid only for the sources whose digest it names. If the file is
missing, damaged or out of date, the sources are parsed again and it is replaced. Writers do not wait for each other:
the last one to rename its file wins, and all of them write the same content.

Layout: a line of JSON padded with spaces to a multiple of 64 bytes, the columns one after the other, the notes as JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import time
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from gpusched import files
from gpusched.teacher.bars import Bars, History
from gpusched.workload import DataNote

#: seconds: a use renews the file's mtime if it is older than this
USED_S = 86400.0
#: Increase it with every change of this layout, and of the bars that are made of the same files.
FORMAT = 3
_ALIGNMENT = 64
_UNREADABLE = re.compile(r"[^A-Za-z0-9.&^=-]")
_COLUMNS: dict[str, np.dtype[Any]] = {
    "local": np.dtype("<i8"),
    "open": np.dtype("<f8"),
    "high": np.dtype("<f8"),
    "low": np.dtype("<f8"),
    "close": np.dtype("<f8"),
    "volume": np.dtype("<f8"),
    "dropped_local": np.dtype("<i8"),
    # The narrow columns come last, so that the wide ones are aligned.
    "offset": np.dtype("<i4"),
    "dropped_code": np.dtype("<i2"),
}


class _Header(msgspec.Struct, frozen=True):
    format: int
    sources: str
    bars: int
    dropped: int
    interval: str
    #: length of the notes, in bytes
    notes: int
    #: checksum of everything after the header
    crc32: int


_header_decoder = msgspec.json.Decoder(_Header)
_notes_decoder = msgspec.json.Decoder(tuple[DataNote, ...])


def cache_path(cache_dir: str, root: str, symbol: str, interval: str) -> Path:
    """The path of a symbol's file; its name starts with the symbol, for people who look into the directory."""
    key = "\n".join((root, symbol, interval))
    readable = _UNREADABLE.sub("_", f"{symbol}.{interval}")
    return Path(cache_dir, "bars", f"{readable}.{hashlib.sha256(key.encode()).hexdigest()[:16]}")


def load(path: Path, sources: str) -> History | None:
    """Map the history at `path`; None unless the file is intact and belongs to the sources with this digest."""
    try:
        with path.open("rb") as file:
            _note_use(file.fileno())
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):  # there is no file, or it is empty
        return None
    line = bytes(content[:4096]).partition(b"\n")[0]
    try:
        header = _header_decoder.decode(line)
    except msgspec.MsgspecError:
        return None
    start = _header_bytes(line)
    lengths = {name: header.dropped if name.startswith("dropped") else header.bars for name in _COLUMNS}
    size = start + sum(lengths[name] * dtype.itemsize for name, dtype in _COLUMNS.items()) + header.notes
    counts = (*lengths.values(), header.notes)
    if header.format != FORMAT or header.sources != sources or len(content) != size or min(counts) < 0:
        return None
    if zlib.crc32(content[start:]) != header.crc32:
        return None
    columns = {}
    for name, dtype in _COLUMNS.items():
        columns[name] = np.frombuffer(content, dtype, lengths[name], start)
        start += columns[name].nbytes
    return History(Bars(**columns), header.interval, _notes_decoder.decode(content[start:]))


def _note_use(descriptor: int) -> None:
    """Renew the mtime once a day, since files that were not used lately are pruned. Other uses write nothing."""
    now = time.time()
    if now - os.fstat(descriptor).st_mtime > USED_S:
        with contextlib.suppress(OSError):  # the file is another user's, or read-only
            os.utime(descriptor, (now, now))


def save(path: Path, sources: str, history: History) -> None:
    """Replace the file at `path`. Raises OSError, and leaves no partial file then."""
    bars, notes = history.bars, msgspec.json.encode(history.notes)
    columns = [getattr(bars, name).astype(dtype, copy=False).tobytes() for name, dtype in _COLUMNS.items()]
    body = b"".join((*columns, notes))
    header = _Header(
        format=FORMAT,
        sources=sources,
        bars=len(bars),
        dropped=len(bars.dropped_local),
        interval=history.interval,
        notes=len(notes),
        crc32=zlib.crc32(body),
    )
    line = msgspec.json.encode(header)
    files.make_private_directory(path.parent)
    # A file that a loss of power has damaged does not have its checksum.
    files.write_whole(path, ((line + b"\n").ljust(_header_bytes(line)), body), mode=0o600, durable=False)


def _header_bytes(line: bytes) -> int:
    return -(-(len(line) + 1) // _ALIGNMENT) * _ALIGNMENT
