"""The head of a file: the character that separates its fields, and the role of each column.

Names are compared without case, blanks and the angle brackets of MetaTrader. A role that the names leave open is never
guessed: the user sets `data.columns`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from gpusched.core.wording import first_few
from gpusched.errors import did_you_mean
from gpusched.teacher.bars import PRICES, VALUES
from gpusched.workload import BadData

#: names of the column of timestamps, the preferred first; a first column without a name counts too, as pandas writes it
TIMESTAMPS = ("timestamp", "datetime", "date", "dtyyyymmdd", "time", "open_time", "window_start")
#: the timestamp may be in two columns: a date with one of these names, and `time` with the time of day
_DATES = ("date", "dtyyyymmdd")
SYMBOLS = ("symbol", "ticker", "ts_code", "tic", "instrument")
#: names of columns with the interval of each bar
_INTERVALS = ("interval", "timeframe", "per", "resolution", "granularity", "frequency", "freq", "bar_size", "tf")
#: names that may mean the volume
_VOLUME_LIKE = re.compile(r"vol|qty|quantity|amount|turnover|shares|size|^v$")
#: role → names that a column for it may have, for a hint
_LIKE = {
    "timestamp": (r"date|time|day|datum|fecha|^ts|^t$|begin|start",),
    "open": (r"open|^o$",),
    "high": (r"high|max|^h$",),
    "low": (r"low|min|^l$",),
    "close": (r"close|last|^c$", r"^price$|settle"),
    "volume": (r"vol|^v$", r"qty|quantity|shares|size", r"amount|turnover"),
}
#: parts of names that mean another thing although they are like a role's, and of names that are the second choice
_NOT_LIKE = re.compile(r"prev|interest|52|change|chg|%|expir|matur|spread")
_SECOND_BEST = re.compile(r"adj|bid|ask")
#: most names of columns in an error message
_SHOWN = 20
#: characters that may separate fields, the likeliest first
_SEPARATORS = (",", ";", "\t", "|")
_ANGLE = re.compile(r"<(.*)>")


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of the columns in the rows of a file, by role."""

    #: of all columns, as they are written
    names: tuple[str, ...]
    separator: str
    #: lines before the first row of data
    lines: int
    timestamp: int
    #: the column of the time of day, if the timestamp is only a date
    time: int | None
    #: open, high, low, close
    prices: tuple[int, int, int, int]
    volume: int | None
    symbol: int | None
    interval: int | None
    #: the symbol that the headings name, if they name one only
    heading: str = ""

    @property
    def unused(self) -> list[int]:
        used = {self.timestamp, self.time, *self.prices, self.volume, self.symbol}
        return [column for column in range(len(self.names)) if column not in used]


def read_layout(path: Path, head: Sequence[str], symbol: str, columns: Mapping[str, str]) -> Layout | None:
    """Find the layout of a file with these first lines; None if they are blank or comments. Raises BadData.

    Comments and blank lines above the header are skipped. Excel's `sep=` line is understood, and so are the two or
    three rows of headings that pandas writes, for columns with two levels as in yfinance's data.
    """
    separator = comment = ""
    for number, line in enumerate(head, start=1):
        if line.startswith("sep=") and len(line.strip()) == 5:
            separator = line[4]
        elif line.strip(" ,;\t") and not line.lstrip().startswith("#"):
            place = f"{path}:{number}"
            separator = separator or _separator(line)
            rows = [_fields(place, text, separator) for text in head[number - 1 : number + 2]]
            levels = _levels(rows)
            names = joined_names(rows[:levels], symbol) if levels > 1 else rows[0]
            if levels == 1:
                _require_names(place, names, line, separator, comment)
            layout = layout_of(place, names, columns, separator=separator, lines=number - 1 + levels)
            return msgspec.structs.replace(layout, heading=heading_symbol(rows[:levels]))
        elif line.lstrip().startswith("#"):
            comment = f" (line {number} starts with #, which makes it a comment: if it is the header, remove the #)"
    return None


def layout_of(
    place: str, names: Sequence[str], columns: Mapping[str, str], *, separator: str = ",", lines: int = 0
) -> Layout:
    """Find the layout of rows whose columns have these names; `columns` names a role's column where the names do not.

    Raises BadData, which lists all missing columns at once.
    """
    finder = _Finder(place, names, columns)
    timestamp, time = finder.timestamp()
    prices = tuple(finder.column(name) for name in PRICES)
    volume = finder.volume()
    symbol = finder.given("symbol") if "symbol" in columns else finder.first(SYMBOLS)
    finder.require_complete(separator)
    open_, high, low, close = (price or 0 for price in prices)
    return Layout(
        names=tuple(names),
        separator=separator,
        lines=lines,
        timestamp=timestamp or 0,
        time=time,
        prices=(open_, high, low, close),
        volume=volume,
        symbol=symbol,
        interval=finder.first(_INTERVALS),
    )


class _Finder:
    """Finds columns by name, and remembers the roles for which there was none."""

    def __init__(self, place: str, names: Sequence[str], columns: Mapping[str, str]) -> None:
        self._place = place
        self._written = [name.strip() for name in names]
        self._names = [_plain(name) for name in names]
        self._columns = columns
        self._missing: list[str] = []

    def given(self, role: str) -> int | None:
        """The column that `data.columns` names for a role; None if that name is empty: there is none."""
        name = self._columns[role].strip()
        if not name and role in ("volume", "symbol", "time"):
            return None
        exact = [at for at, written in enumerate(self._written) if written == name]
        alike = [at for at, plain in enumerate(self._names) if plain == _plain(name)]
        if not exact and not alike:
            raise BadData(
                f"{self._place}: there is no column {name!r}, which data.columns names for {role}"
                f"{did_you_mean(name, self._written)} (there are: {first_few(self._written, _SHOWN)})"
            )
        return self._only(name, exact or alike)

    def first(self, candidates: Sequence[str]) -> int | None:
        for name in candidates:
            if name in self._names:
                return self._only(name, [at for at, plain in enumerate(self._names) if plain == name])
        return None

    def _only(self, name: str, places: list[int]) -> int:
        if len(places) > 1:
            times = "twice" if len(places) == 2 else f"{len(places)} times"
            raise BadData(f"{self._place}: the column {name!r} is there {times}: remove or rename all but one")
        return places[0]

    def column(self, name: str) -> int | None:
        position = self.given(name) if name in self._columns else self.first((name, f"{name}/last"))  # Nasdaq's close
        if position is None:
            self._missing.append(name)
        return position

    def timestamp(self) -> tuple[int | None, int | None]:
        """The column of timestamps, and that of the times of day if it is separate."""
        time = self.given("time") if "time" in self._columns else None
        if "timestamp" in self._columns:
            return self.given("timestamp"), time
        name = next((name for name in TIMESTAMPS if name in self._names), None)
        if name is None and self._names[:1] == [""]:
            return 0, time
        if name is None:
            self._missing.append(TIMESTAMPS[0])
            return None, time
        if name in _DATES and "time" not in self._columns:
            time = self.first(("time",))
        return self.first((name,)), time

    def volume(self) -> int | None:
        """The column of volumes; None if there clearly is none."""
        if "volume" in self._columns:
            return self.given("volume")
        angled = [at for at, written in enumerate(self._written) if written.lower() == "<vol>"]
        position = self.first(("volume",))
        if position is None and angled:
            return self._only("<VOL>", angled)
        if position is None and any(_VOLUME_LIKE.search(name) for name in self._names):
            self._missing.append("volume")
        return position

    def require_complete(self, separator: str) -> None:
        if not self._missing:
            return
        hints = ", ".join(f'{name} = "{guess}"' for name, guess in self._guesses().items())
        is_no = "is no column" if len(self._missing) == 1 else "are no columns"
        separated = f", separated by {separator!r}" if separator != "," else ""
        none = ' (volume = "": there is none)' if "volume" in self._missing else ""
        raise BadData(
            f"{self._place}: there {is_no} {', '.join(map(repr, self._missing))} (there are:"
            f" {first_few(self._written, _SHOWN)}{separated})",
            remedy=f"name them with data.columns = {{{hints}}}{none}, or move a file that holds no bars",
        )

    def _guesses(self) -> dict[str, str]:
        """Names that the missing columns may have, each of them once; dots where none is likely."""
        guesses: dict[str, str] = {}
        for role in self._missing:
            guesses[role] = next(filter(None, (self._only_like(pattern, guesses) for pattern in _LIKE[role])), "…")
        return guesses

    def _only_like(self, pattern: str, guesses: Mapping[str, str]) -> str:
        """The name that is like a pattern; empty if none is; dots if several are: only the user knows the right one."""
        names = [name for name in self._written if re.search(pattern, name.lower()) and name not in guesses.values()]
        names = [name for name in names if not _NOT_LIKE.search(name.lower())]
        best = [name for name in names if not _SECOND_BEST.search(name.lower())] or names
        return best[0] if len(best) == 1 else "…" if best else ""


def _plain(name: str) -> str:
    name = name.strip()
    if angled := _ANGLE.fullmatch(name):
        name = angled[1]
    return re.sub(r"\s+", "_", name.strip().lower())


def _separator(line: str) -> str:
    """The character that separates the fields of a header: the candidate that occurs most often."""
    unquoted = re.sub(r'"[^"]*"', "", line)
    return max(_SEPARATORS, key=lambda character: (unquoted.count(character), -_SEPARATORS.index(character)))


def _fields(place: str, line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error as error:
        raise BadData(f"{place}: {error}") from None


def _levels(rows: list[list[str]]) -> int:
    """The number of rows of headings: more than one if the last of them names only the index."""
    for number in (1, 2):
        if len(rows) > number and _plain(rows[number][0] if rows[number] else "x") in TIMESTAMPS:
            others = rows[number][1:]
            if others and not any(field.strip() for field in others):
                return number + 1
    return 1


def heading_symbol(rows: Sequence[Sequence[str]]) -> str:
    """The symbol in headings of two levels; empty if they name none or several."""
    *levels, _ = rows
    distinct = set(_fields_and_symbols(levels)[1]) if len(levels) > 1 else set()
    return distinct.pop() if len(distinct) == 1 else ""


def _fields_and_symbols(levels: Sequence[Sequence[str]]) -> tuple[Sequence[str], Sequence[str]]:
    one, other = (level[1:] for level in levels)
    return (one, other) if {"close", "open"} <= {_plain(name) for name in one} else (other, one)


def joined_names(rows: list[list[str]], symbol: str) -> list[str]:
    """Join the levels of headings to one name per column.

    With two levels, columns of the symbol (or of the only symbol) get the bare name of their field; in the names of all
    others, their own symbol comes first.
    """
    *levels, index = rows
    if len(levels) == 1:
        return [index[0], *levels[0][1:]]
    fields, symbols = _fields_and_symbols(levels)
    distinct = set(symbols)
    mine = symbol if symbol in distinct else next(iter(distinct)) if len(distinct) == 1 else None
    return [index[0], *(name if of == mine else f"{of} {name}" for name, of in zip(fields, symbols, strict=False))]


def _require_names(place: str, names: list[str], line: str, separator: str, comment: str) -> None:
    """Raise BadData if the line that should be the header is already data, or is no row of a table.

    `comment` tells of a comment above it.
    """
    filled = [name.strip() for name in names if name.strip()]
    numbers = [name for name in filled if re.fullmatch(r"[-+$]?[\d.,:/TZ +-]+(e[+-]?\d+)?", name, re.IGNORECASE)]
    if len(filled) > 1 and len(numbers) > len(filled) / 2:
        epoch = ""
        if re.fullmatch(r"1\d{9}|1\d{12}|1\d{15}|1\d{18}", filled[0]):
            unit = {10: "seconds", 13: "milliseconds", 16: "microseconds", 19: "nanoseconds"}[len(filled[0])]
            epoch = f" ({filled[0]} is a time in {unit} since 1970)"
        header = separator.join(("timestamp", *VALUES))
        more = " and a name for each other column" if len(names) > 6 else ""
        raise BadData(
            f"{place}: there is no header, this line is data already{epoch}: put a line with the names of the columns"
            f" above it, such as {header}{more}{comment}"
        )
    if len(names) == 1:
        excerpt = " ".join(line.split())[:60]
        why = "has one field, whether separated by comma, semicolon or tab; remove what stands above the header"
        if excerpt.startswith(("/", "../", "./")):
            why = "seems to be the path in a link, which was copied without the file that it points to"
        raise BadData(f"{place}: {excerpt!r} is not the header of a table: it {why}")
