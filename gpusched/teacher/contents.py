"""Read the bytes of a file of bars, and recognize files that hold something else."""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import zlib
from pathlib import Path

from gpusched.core.wording import counted
from gpusched.workload import BadData

_UTF16 = "UTF-16 text: save it as UTF-8"
#: first bytes → the kind of file that starts with them, and the remedy
_FOREIGN: dict[bytes, str] = {
    b"\x1f\x8b": "compressed with gzip: unpack it, or rename it to end with .csv.gz",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV",
    b"BZh": "compressed with bzip2: unpack it",
    b"\xfd7zXZ": "compressed with xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
    b"PAR1": "a Parquet file: rename it to end with .parquet",
    b"ARROW1": "a Feather file: save it as Parquet or CSV",
    b"\x89HDF": "an HDF5 file: save it as Parquet or CSV",
    b"SQLite format 3": "an SQLite database: save its rows as CSV",
    **dict.fromkeys((b"\xff\xfe", b"\xfe\xff"), _UTF16),
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: run `git lfs pull`",
}
#: the same for text, in any case and after white space; `<` alone proves nothing, MetaTrader's headers start with
#: `<DATE>`
_PAGES: dict[bytes, str] = {
    **dict.fromkeys(
        (b"<!doctype", b"<html", b"<head"), "an HTML page, likely an error of the site that it was downloaded from"
    ),
    b"<?xml": "an XML document: save its rows as CSV",
    b"{": "a JSON document, likely an error message of an API",
    b"[": "a JSON document: save its rows as CSV",
}

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}
#: bytes of a file, unpacked: 40 million bars. 1 MB of gzip data can unpack to 1 GB, and some to all of the memory
MOST_BYTES = 2 << 30
_TOO_LARGE = f"more than {MOST_BYTES >> 30} GiB: give the symbol several smaller files"


def kind(mode: int) -> str | None:
    """The name of the kind of file with this mode (`st_mode`); None for a regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no file")


def read_file(path: Path) -> bytes:
    """Read all bytes of a regular file, unpacked if its name ends with .gz.

    Raises BadData if it is not a regular file, must not be read or is damaged, OSError if reading fails.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a process that writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise BadData(f"{path}: {error.strerror}") from None
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise BadData(f"{path}: is a socket, not a file of bars") from None
        raise
    try:
        status = os.fstat(descriptor)
        if other_kind := kind(status.st_mode):
            raise BadData(f"{path}: is {other_kind}, not a file of bars")
        if status.st_size > MOST_BYTES:
            raise BadData(f"{path}: has {_TOO_LARGE}")
        content = os.read(descriptor, status.st_size + 1)
        while more := os.read(descriptor, 1 << 20):
            content += more
    finally:
        os.close(descriptor)
    return _unpacked(path, content) if path.name.lower().endswith(".gz") else content


def require_text(path: Path, content: bytes) -> None:
    """Raise BadData, with the kind of the file, if its content starts as a table of text cannot start."""
    for start, foreign in _FOREIGN.items():
        if content.startswith(start):
            raise BadData(f"{path}: is {foreign}")
    text = content[:200].lstrip().lower()
    for start, page in _PAGES.items():
        if text.startswith(start):
            excerpt = " ".join(content[:200].decode(errors="replace").split())[:80]
            raise BadData(f"{path}:1: is {page}: {excerpt}")


def require_utf8(path: Path, content: bytes) -> None:
    """Raise BadData with the line of the first zero byte, or else of the first byte that is not UTF-8."""
    if (first := content.find(b"\0")) >= 0:
        if any(half.count(0) > 0.9 * len(half) for half in (content[:200:2], content[1:200:2])):
            raise BadData(f"{path}:1: is {_UTF16}")
        line, zeros = content.count(b"\n", 0, first) + 1, counted(content.count(b"\0"), "zero byte")
        raise BadData(f"{path}:{line}: {zeros}, as a crash or a full disk leaves them: write the file anew")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadData(f"{path}:{line}: not UTF-8 text: save it as UTF-8") from None


def _unpacked(path: Path, content: bytes) -> bytes:
    if not content:
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(MOST_BYTES + 1)
    except EOFError:
        raise BadData(f"{path}: ends in the middle of its gzip data: fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadData(f"{path}: is not sound gzip data, as its name says: {error}") from None
    if len(unpacked) > MOST_BYTES:
        raise BadData(f"{path}: unpacks to {_TOO_LARGE}")
    return unpacked
