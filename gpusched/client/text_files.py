"""Text files that a user names: symbols, windows and parameters."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

#: a longer file lists more than a batch may have, which is 200,000 windows at most
MAX_BYTES = 32 * 1024 * 1024


class NotText(ValueError):
    """A file cannot be read, or is no text; the message says why."""


def read_text(path: Path) -> str:
    """The text of a file. Raises NotText."""
    try:
        with path.open("rb") as file:  # may be a pipe: <(grep …)
            content = file.read(MAX_BYTES + 1)
    except OSError as caught:
        raise NotText(caught.strerror or str(caught)) from None
    return decoded(content)


def is_json(text: str) -> bool:
    """Whether a text holds JSON objects: no symbol and no heading of a table starts like one, or like an array."""
    return _start(text).startswith(("{", "["))


def json_objects(text: str) -> Iterator[tuple[int, str]]:
    """The JSON objects in a text, each with the number of its line: one a line, or the elements of an array.

    Whether each is an object is left to whoever decodes it. Raises msgspec.DecodeError, or RecursionError, for what
    starts like an array and is none.
    """
    if not _start(text).startswith("["):
        lines = enumerate(io.StringIO(text.removeprefix("\ufeff"), newline=None), start=1)
        yield from ((number, line) for number, line in lines if line.strip())
        return
    content = text.removeprefix("\ufeff").encode()
    number, end = 1, 0
    for element in msgspec.json.decode(content, type=list[msgspec.Raw]):
        source = bytes(element)
        begin = content.index(source, end)
        number += content.count(b"\n", end, begin)
        yield number, source.decode()
        end = begin + len(source)
        number += source.count(b"\n")


def _start(text: str) -> str:
    return text[:1000].lstrip("\ufeff \t\r\n")


def name_given_twice(line: str) -> str | None:
    """A name that stands twice in an object of valid JSON, or None. Decoders silently keep the last of its values."""
    twice: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        if len(pairs) > len(dict(pairs)):
            twice.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)

    json.loads(line, object_pairs_hook=look)
    return twice[0] if twice else None


def decoded(content: bytes) -> str:
    """The text that a file holds. Raises NotText."""
    if len(content) > MAX_BYTES:
        raise NotText(f"it is larger than {MAX_BYTES // 2**20} MiB")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:2]:
        raise NotText("it is UTF-16 text, as Excel's “Unicode text” and PowerShell's > write it")
    if content.startswith((b"PK\3\4", b"\x1f\x8b")):
        kind = "a zip archive, as Excel's workbooks are" if content.startswith(b"PK") else "compressed by gzip"
        raise NotText(f"it is {kind}")
    try:
        return content.decode()
    except UnicodeDecodeError as caught:
        line = content.count(b"\n", 0, caught.start) + 1
        byte = content[caught.start : caught.start + 1]
        why = f"it is not UTF-8 text: the byte 0x{byte.hex()} in line {line} is {byte.decode('latin-1')!r} in Latin-1"
        raise NotText(why) from None
