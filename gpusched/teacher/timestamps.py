"""Parse instants from characters: ISO 8601 in its usual spellings, dates with the year first, numbers since 1970.

Texts of one shape (digits where the others have digits) are parsed together. An ambiguous form is refused: the user
sets `data.date_format`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gpusched.teacher import timestamp_hints
from gpusched.teacher.bars import DAY_US, NAIVE, Integers
from gpusched.teacher.tables import Characters, Table, as_bytes
from gpusched.workload import BadData

#: wall clock in microseconds since 1970-01-01, and seconds east of UTC or `NAIVE`
Instants = tuple[Integers, npt.NDArray[np.int32]]

#: patterns of shapes, which have a zero for each digit
_TIME = r"(?P<hour>0{1,2})(?:(?P<colon>:?)(?P<minute>00)(?:(?P=colon)(?P<second>00)(?:[.,](?P<fraction>0+))?)?)?"
_OFFSET = r"(?: ?(?P<offset>[Zz]|UTC|GMT|(?P<sign>[+-])(?P<offset_hour>00)(?::?(?P<offset_minute>00))?))?"
_MOMENT = re.compile(
    r"(?P<year>0000)(?P<dash>[-/.]?)(?P<month>0{1,2})(?P=dash)(?P<day>0{1,2})"
    + rf"(?:(?:[Tt]| {{1,2}}){_TIME}{_OFFSET})?"
)
_COMPACT = re.compile(r"(?P<year>0000)(?P<month>00)(?P<day>00)(?P<hour>00)(?P<minute>00)(?P<second>00)?")
_TIME_OF_DAY = re.compile(_TIME + _OFFSET)
_NUMBER = re.compile(r"-?0+(?:\.0*)?")
#: lengths of YYYYMMDD, YYYYMMDDHHMM and YYYYMMDDHHMMSS: numbers that all have one of these are taken to be dates
_COMPACT_DIGITS = (8, 12, 14)
#: their lengths if `.0` follows
_FLOAT_DIGITS = (10, 14, 16)
#: numbers that can be seconds since 1970 (from 2033 to 2038) as well as YYYYMMDDHH (from 1990 to 2050)
_HOURS = (1_990_010_100, 2_050_123_123)

_ZERO, _DOT, _MINUS = b"0.-"
_EPOCH = dt.datetime(1970, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)
#: unit → units in a second
_UNITS = {"seconds": 1, "milliseconds": 1000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
#: seconds since 1970 between which (1973 to 2099) a number's magnitude tells its unit
_FIRST_S, _LAST_S = 100_000_000, 4_102_444_800
#: the days from 1954 to 2064 as spreadsheets count them
_EXCEL_DAYS = (20_000, 60_000)


class _NotRead(Exception):
    """A row is no timestamp; `cause` is the reason, if it is known already."""

    def __init__(self, row: int, cause: str = "") -> None:
        super().__init__(row, cause)
        self.row = row
        self.cause = cause


def instants(table: Table, column: int, time: int | None, date_format: str) -> Instants:
    """Parse the instant of each row, from its timestamp and the time of day, if a column has that. Raises BadData."""
    if date_format:
        texts = table.fields(column) if time is None else _texts(table, column, time)
        return _formatted(table, texts, date_format)
    if time is None:
        return _read(table, column, lambda: table.fields(column))
    return _joined(table, column, _read(table, column, lambda: _texts(table, column, time)), time)


def _read(table: Table, column: int, texts: Callable[[], list[str]]) -> Instants:
    """Parse the instants of a column. `texts` gives its complete texts, with times of day, to explain an error."""
    characters = table.characters(column)
    try:
        return _numbers(characters) or _in_groups(characters, _moments)
    except _NotRead as error:
        cause, remedy = (error.cause, "") if error.cause else timestamp_hints.cause_and_remedy(texts(), error.row)
        text = table.shown(error.row, column)
        raise BadData(f"{table.place(error.row)}: {text} is not a timestamp{cause}", remedy=remedy) from None


def _texts(table: Table, column: int, time: int) -> list[str]:
    """Join each date and its time of day to one text."""
    return [f"{date} {clock}" for date, clock in zip(table.fields(column), table.fields(time), strict=True)]


def _joined(table: Table, column: int, dates: Instants, time: int) -> Instants:
    """Add the times of day of another column to dates. Raises BadData if either column has both, and they differ."""
    characters = table.characters(time)
    if (empty := ~(characters != 0).any(axis=0)).any():
        row = int(empty.argmax())
        raise BadData(f"{table.place(row)}: the time of day beside {table.shown(row, column)} is empty")
    try:
        clock, offset = _in_groups(_whole_clocks(characters), _times_of_day)
    except _NotRead as error:
        clock, offset = _read(table, time, lambda: _texts(table, column, time))
        if not (clock // DAY_US == dates[0] // DAY_US).all():
            text = table.shown(error.row, time)
            raise BadData(
                f"{table.place(error.row)}: {text} is not a time of day",
                remedy="say which column is the timestamp with data.columns",
            ) from None
        return clock, offset
    date = dates[0] // DAY_US * DAY_US
    rest = dates[0] - date
    if (rest == clock).all():
        return dates
    if rest.any():
        row = int((rest != clock).argmax())
        raise BadData(
            f"{table.place(row)}: {table.shown(row, column)} and the time {table.shown(row, time)} beside it differ",
            remedy="say which column is the timestamp with data.columns",
        )
    return date + clock, np.where(offset == NAIVE, dates[1], offset)


def _whole_clocks(characters: Characters) -> Characters:
    """Times of day with the zeros in front that they lose as numbers: 930 beside 1530, 93000 beside 153000."""
    widths = (characters != 0).sum(axis=0)
    longest = len(characters)
    if longest not in (4, 6) or widths.min() == longest or not (_digits(characters) | (characters == 0)).all():
        return characters
    whole = np.full_like(characters, _ZERO)
    for width in np.flatnonzero(np.bincount(widths)).tolist():
        members = np.flatnonzero(widths == width)
        whole[longest - width :, members] = characters[:width, members]
    return whole


def _formatted(table: Table, texts: list[str], date_format: str) -> Instants:
    pairs_by_text: dict[str, tuple[int, int]] = {}
    for row, text in enumerate(texts):
        if text in pairs_by_text:
            continue
        try:
            pairs_by_text[text] = _pair(dt.datetime.strptime(text, date_format))
        except ValueError:
            raise BadData(
                f"{table.place(row)}: {text!r} is not a timestamp of the form data.date_format = {date_format!r}"
            ) from None
    pairs = np.array([pairs_by_text[text] for text in texts], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1].astype(np.int32)


def _pair(instant: dt.datetime) -> tuple[int, int]:
    offset = instant.utcoffset()
    local = (instant.replace(tzinfo=None) - _EPOCH) // _MICROSECOND
    return local, NAIVE if offset is None else round(offset.total_seconds())


# -- texts -------------------------------------------------------------------------------------------------------------


def _in_groups(characters: Characters, read: Callable[[Characters, str], Instants]) -> Instants:
    """Apply `read` to the texts of each shape. Raises _NotRead for the first row that it refuses."""
    rows = characters.shape[1]
    shapes = np.where(_digits(characters), np.uint8(_ZERO), characters)
    if rows and (shapes == shapes[:, :1]).all():
        return read(characters, _shape(shapes[:, 0]))
    local, offset = np.zeros(rows, np.int64), np.zeros(rows, np.int32)
    if not rows:
        return local, offset
    kinds, kind = np.unique(as_bytes(shapes), return_inverse=True)
    failures = []
    for number in range(len(kinds)):
        members = np.flatnonzero(kind == number)
        try:
            local[members], offset[members] = read(characters[:, members], _shape(shapes[:, members[0]]))
        except _NotRead as error:
            failures.append(_NotRead(int(members[error.row]), error.cause))
    if failures:
        raise min(failures, key=lambda failure: failure.row)
    return local, offset


def _shape(characters: npt.NDArray[np.uint8]) -> str:
    return bytes(characters).rstrip(b"\0").decode(errors="replace")


def _moments(characters: Characters, shape: str) -> Instants:
    match = _MOMENT.fullmatch(shape) or _COMPACT.fullmatch(shape)
    if match is None or (not match.groupdict().get("dash") and len(match["month"] + match["day"]) < 4):
        raise _NotRead(0)
    year, month, day = (_field(characters, match, name) for name in ("year", "month", "day"))
    months = (year - 1970) * np.int64(12) + month - 1
    days = months.astype("M8[M]").astype("M8[D]").astype(np.int64) + day - 1
    wrong = (year < 1) | (month < 1) | (month > 12) | (days.astype("M8[D]").astype("M8[M]").astype(np.int64) != months)
    if wrong.any():
        raise _NotRead(int(wrong.argmax()))
    clock, offset = _clock(characters, match)
    return days * DAY_US + clock, offset


def _times_of_day(characters: Characters, shape: str) -> Instants:
    match = _TIME_OF_DAY.fullmatch(shape)
    if match is None or match["minute"] is None:
        raise _NotRead(0)
    return _clock(characters, match)


def _clock(characters: Characters, match: re.Match[str]) -> Instants:
    """Microseconds since midnight, and the offset in seconds."""
    groups = match.groupdict()
    if groups.get("hour") and len(groups["hour"]) == 1 and groups.get("colon") != ":":
        raise _NotRead(0)
    hour, minute, second = (_field(characters, match, name) for name in ("hour", "minute", "second"))
    east_h, east_m = (_field(characters, match, name) for name in ("offset_hour", "offset_minute"))
    wrong = (hour > 23) | (minute > 59) | (second > 59) | (east_h > 23) | (east_m > 59)
    if wrong.any():
        raise _NotRead(int(wrong.argmax()))
    digits = min(len(groups.get("fraction") or ""), 6)
    fraction = _field(characters, match, "fraction", digits) * 10 ** (6 - digits)
    clock = ((hour * 60 + minute) * 60 + second) * np.int64(1_000_000) + fraction
    if not groups.get("offset"):
        return clock, np.full(len(clock), NAIVE, np.int32)
    east = (east_h * 60 + east_m) * 60
    return clock, (-east if groups.get("sign") == "-" else east).astype(np.int32)


def _field(characters: Characters, match: re.Match[str], name: str, most: int = 6) -> npt.NDArray[np.int32]:
    """The digits of a group as numbers, zero if the shape lacks it."""
    number = np.zeros(characters.shape[1], np.int32)
    if match.groupdict().get(name):
        start, end = match.span(name)
        for position in characters[start : min(end, start + most)]:
            number *= 10
            number += position - np.uint8(_ZERO)
    return number


# -- numbers since 1970 ------------------------------------------------------------------------------------------------


def _numbers(characters: Characters) -> Instants | None:
    """Parse numbers of seconds, milliseconds and so on since 1970, told apart by magnitude; None for other texts."""
    if not characters.shape[1]:
        return None
    first = characters[:, 0]
    if not _NUMBER.fullmatch(_shape(np.where(_digits(first), np.uint8(_ZERO), first))):
        return None
    characters = _without_fraction(characters)
    widths = (characters != 0).sum(axis=0)
    if not widths.min():
        raise _NotRead(int(widths.argmin()))
    if int(widths.min()) == int(widths.max()) in _COMPACT_DIGITS:
        try:
            return _in_groups(characters, _moments)
        except _NotRead:
            if widths[0] != 12:  # milliseconds until 2001 have 12 digits, too
                raise
    allowed = _digits(characters) | (characters == _DOT) | (characters == 0)
    allowed[0] |= characters[0] == _MINUS
    number = allowed.all(axis=0)
    if not number.all():
        return _mixed(characters, number)
    if (characters == _DOT).any() or (characters[0] == _MINUS).any():
        return _from_floats(characters)
    if len(characters) > 19:  # more digits than nanoseconds have; numbers beyond 64 bits turn negative
        raise _NotRead(int(widths.argmax()))
    integers = np.zeros(characters.shape[1], np.int64)
    for position in characters:
        integers = np.where(position != 0, integers * 10 + (position - np.uint8(_ZERO)), integers)
    per_second = _UNITS[_unit(integers)]
    local = integers * (1_000_000 // per_second) if per_second <= 1_000_000 else integers // (per_second // 1_000_000)
    return local, np.zeros(len(local), np.int32)


def _mixed(characters: Characters, number: npt.NDArray[np.bool_]) -> Instants:
    """Parse dates in several forms, one of them numbers (20240131); refuse dates among numbers since 1970."""
    digits = _digits(characters[:, number]).sum(axis=0)
    if np.isin(digits, _COMPACT_DIGITS).all() and (digits == (characters[:, number] != 0).sum(axis=0)).all():
        return _in_groups(characters, _moments)
    other = int((~number).argmax())
    try:
        _in_groups(characters[:, other : other + 1], _moments)
    except _NotRead:
        raise _NotRead(other) from None
    raise _NotRead(other, " in numbers, like the others: write all timestamps in one form")


def _without_fraction(characters: Characters) -> Characters:
    """Dates such as 20240131.0 as whole numbers; pandas makes floats of a column in which one is missing."""
    if len(characters) not in _FLOAT_DIGITS or (characters == 0).any():
        return characters
    are_whole = (characters[-2] == _DOT).all() and (characters[-1] == _ZERO).all()
    return characters[:-2] if are_whole else characters


def _from_floats(characters: Characters) -> Instants:
    try:
        numbers = as_bytes(characters).astype(np.float64)
    except ValueError:
        raise _NotRead(0) from None
    local = np.round(numbers * (1_000_000 / _UNITS[_unit(numbers)])).astype(np.int64)
    return local, np.zeros(len(local), np.int32)


def _digits(characters: Characters) -> npt.NDArray[np.bool_]:
    return characters - np.uint8(_ZERO) < 10


def _unit(numbers: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> str:
    """The unit of all numbers, which the largest shows: in the first years after 1970 they are small in any unit."""
    largest = int(numbers.argmax())
    units = [name for name in _UNITS if _plausible(numbers[largest : largest + 1], name)[0]]
    if not units and _EXCEL_DAYS[0] <= numbers[largest] <= _EXCEL_DAYS[1]:
        raise _NotRead(largest, ": it seems to be a spreadsheet's number of a day: format the column as a date")
    if not units:
        raise _NotRead(largest, ": read as a time since 1970, in any unit, it is not between 1973 and 2099")
    (unit,) = units
    if unit == "seconds" and ((numbers >= _HOURS[0]) & (numbers <= _HOURS[1]) & (numbers % 100 < 24)).all():
        raise _NotRead(largest, ': it seems to be a date and an hour; if so, set data.date_format = "%Y%m%d%H"')
    if (early := numbers < -_LAST_S * _UNITS[unit]).any():
        raise _NotRead(int(early.argmax()), f": in {unit}, like the others, it is a time before 1840")
    for other, per_second in _UNITS.items():
        if per_second < _UNITS[unit] and (of_other := _plausible(numbers, other)).any():
            raise _NotRead(int(of_other.argmax()), f" in {unit}, like the others: it seems to be in {other}")
    return unit


def _plausible(numbers: npt.NDArray[np.int64] | npt.NDArray[np.float64], unit: str) -> npt.NDArray[np.bool_]:
    plausible: npt.NDArray[np.bool_] = (numbers >= _FIRST_S * _UNITS[unit]) & (numbers <= _LAST_S * _UNITS[unit])
    return plausible
