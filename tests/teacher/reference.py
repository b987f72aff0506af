"""Rows as Python's own modules read them, one by one: slow, plainly right, and the measure of `parsing`."""

from __future__ import annotations

import csv
import datetime as dt
import io
import math
import re
from pathlib import Path

from gpusched.teacher.bars import NAIVE

Row = tuple[int, int, list[float], int]

_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)"
    r"(?:[Tt ](\d\d?)(?:(?P<colon>:?)(\d\d)(?:(?P=colon)(\d\d)(?:[.,](\d+))?)?)?"
    r"(?: ?([Zz]|UTC|GMT|[+-]\d\d:?(?:\d\d)?))?)?",
    re.ASCII,
)
_MISSING = {"", "nan", "null", "none", "na", "n/a", "#n/a", "nat", "-", "--", "-nan", "+nan"}
_EPOCH = dt.datetime(1970, 1, 1)


def read(path: Path) -> list[Row] | None:
    """Wall clock in microseconds, offset in seconds, values and line of each row of a file with the usual header and
    ISO timestamps; None where one is broken."""
    try:
        text = path.read_bytes().decode()
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader)
        rows = []
        before = reader.line_num
        for fields in reader:
            line, before = before + 1, reader.line_num
            fields = [field.strip(" \t") for field in fields]
            # Files that were written together, one behind the other, have marks and headings in the middle.
            if any(fields) and [fields[0].lstrip("\ufeff"), *fields[1:]] != header:
                rows.append((*_instant(fields[0]), _values(fields[1:], len(header) - 1), line))
    except (ValueError, csv.Error):
        return None
    if "\0" in text or len({offset == NAIVE for _, offset, _, _ in rows}) > 1:
        return None
    return rows


def _instant(text: str) -> tuple[int, int]:
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError(text)
    hour, minute, second, fraction, zone = (match[group] for group in (4, 6, 7, 8, 9))
    if hour and len(hour) == 1 and not minute:
        raise ValueError(text)
    date = dt.datetime(int(match[1]), int(match[2]), int(match[3]))
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    instant = date.replace(hour=int(hour or 0), minute=int(minute or 0), second=int(second or 0), microsecond=micros)
    local = (instant - _EPOCH) // dt.timedelta(microseconds=1)
    if zone is None:
        return local, NAIVE
    if not zone[1:2].isdigit():
        return local, 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    east = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    if int(digits[:2]) > 23 or int(digits[2:]) > 59 or zone.endswith(":"):
        raise ValueError(text)
    return local, round(east.total_seconds()) * (-1 if zone[0] == "-" else 1)


def _values(fields: list[str], count: int) -> list[float]:
    if len(fields) != count:
        raise ValueError(fields)
    return [_number(text) for text in fields]


def _number(text: str) -> float:
    if text.lower() in _MISSING:
        return math.nan
    if not text.isascii() or "_" in text or text != text.strip():
        raise ValueError(text)
    return float(text)
