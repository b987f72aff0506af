"""The index of results, below the cache directory: the places of the results of this user's batches, by fingerprint.

It has a file for each output directory and client: a heading, then a line for each result. It is only a hint: whoever
follows it checks that the result is there, is whole, and belongs to the user who asks.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from gpusched import directories, files

#: the directory of the index within the cache directory
DIRECTORY = "results"
#: names of its files
NAME = re.compile(r"[0-9a-f]{24}")
#: bytes that are read of all its files, those that were written to last first
_MOST_BYTES = 64 * 1024 * 1024
_LINE = re.compile(rb"([0-9a-f]{64}) ([A-Za-z0-9][A-Za-z0-9._=,+&-]*)\n")


class _Heading(msgspec.Struct, frozen=True):
    directory: str
    #: uid of the client; None: the user whose cache it is
    owner: int | None


def opened_for(cache_dir: Path, directory: Path, owner: int | None) -> BinaryIO:
    """The file of an output directory of a client, to which lines are appended. Raises OSError."""
    files.make_private_directory(cache_dir / DIRECTORY)
    heading = msgspec.json.encode(_Heading(str(directory), owner)) + b"\n"
    path = cache_dir / DIRECTORY / hashlib.sha256(heading).hexdigest()[:24]
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o600), "a+b")
    if not _is_ours(file):
        file.close()
        raise FileExistsError(path)
    if os.fstat(file.fileno()).st_size == 0:
        file.write(heading)
    return file


def line(fingerprint: str, label: str) -> bytes:
    """The line of a result; empty if there can be none."""
    text = f"{fingerprint} {label}\n".encode()
    return text if _LINE.fullmatch(text) else b""


def lines(file: BinaryIO) -> set[bytes]:
    """All lines that a file has so far."""
    file.flush()
    file.seek(0)
    return set(file.read(_MOST_BYTES).splitlines(keepends=True))


def paths(cache_dir: Path, owner: int | None) -> dict[str, Path]:
    """The places of all results of a client, by fingerprint."""
    places: dict[str, Path] = {}
    with contextlib.suppress(OSError), directories.opened(cache_dir / DIRECTORY) as directory:
        for text in _newest(directory):
            heading = text.readline()
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
                about = msgspec.json.decode(heading, type=_Heading)
                # One that may not be looked into any more hides no other.
                there = about.directory.startswith("/") and os.path.isdir(about.directory)  # noqa: PTH112
                if about.owner == owner and there:
                    for match in _LINE.finditer(text.read()):
                        places.setdefault(match[1].decode(), Path(about.directory, match[2].decode()))
    return places


def _newest(directory: int) -> Iterator[io.BytesIO]:
    """The files of the index, those that were written to last first, as far as they are ours and not too large."""
    changed: list[tuple[int, str]] = []
    for name in filter(NAME.fullmatch, directories.names(directory)):
        with contextlib.suppress(OSError):
            changed.append((os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns, name))
    left = _MOST_BYTES
    for _, name in sorted(changed, reverse=True):
        with contextlib.suppress(OSError), files.regular(name, directory) as file:
            if _is_ours(file) and os.fstat(file.fileno()).st_size <= left:
                text = file.read(left)
                left -= len(text)
                yield io.BytesIO(text)


def _is_ours(file: BinaryIO) -> bool:
    status = os.fstat(file.fileno())
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
