"""Causes and remedies, for timestamps that are not understood."""

from __future__ import annotations

import re

_DAY_AND_MONTH = re.compile(r"(\d{1,2})([-/.])(\d{1,2})[-/.](\d{4}|\d\d)\b(.*)")
_MONTH = r"((?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6})"
_MONTH_NAME = re.compile(rf"(\d{{1,2}})([- /]?){_MONTH}([- /]?)(\d{{4}}|\d\d)\b(.*)")
_AMERICAN_NAME = re.compile(rf"{_MONTH} (\d{{1,2}}), (\d{{4}})\b(.*)")
_TWELVE_HOURS = re.compile(r"\d{4}([-/.])\d{1,2}\1\d{1,2}( .*[AaPp][Mm])")
_NAMED_ZONE = re.compile(
    r"(\d{8}|\d{4}-\d\d-\d\d)([ T-]{1,2})(\d\d:\d\d:\d\d) (?![AaPp][Mm])([A-Z][A-Za-z]*(?:/[A-Za-z_]+)?)"
)
_ROUNDED = re.compile(r"\d(\.\d+)?[eE]\+?\d+")
#: times of day, and how `data.date_format` spells them
_CLOCKS = {
    r"": "",
    r"\d{1,2}:\d\d": "%H:%M",
    r"\d{1,2}:\d\d:\d\d": "%H:%M:%S",
    r"\d{1,2}:\d\d:\d\d\.\d{1,6}": "%H:%M:%S.%f",
    r"\d{1,2}:\d\d [AaPp][Mm]": "%I:%M %p",
    r"\d{1,2}:\d\d:\d\d [AaPp][Mm]": "%I:%M:%S %p",
}


def cause_and_remedy(texts: list[str], row: int) -> tuple[str, str]:
    """The reason why a text of a column is no timestamp, and a remedy."""
    text = texts[row]
    if not text:
        return ": it is empty", ""
    if match := _DAY_AND_MONTH.fullmatch(text):
        return _day_or_month(match, texts)
    if match := _MONTH_NAME.fullmatch(text):
        month = "%b" if len(match[3]) == 3 else "%B"
        form = f"%d{match[2]}{month}{match[4]}{_year(match[5])}{_clock(match[6])}"
        return ": a month written as a name is not read", f'set data.date_format = "{form}"'
    if match := _AMERICAN_NAME.fullmatch(text):
        month = "%b" if len(match[1]) == 3 else "%B"
        form = f"{month} %d, %Y{_clock(match[4])}"
        return ": a month written as a name is not read", f'set data.date_format = "{form}"'
    if match := _NAMED_ZONE.fullmatch(text):
        zone, date = match[4], "%Y-%m-%d" if "-" in match[1] else "%Y%m%d"
        form = f"{date}{match[2]}%H:%M:%S {zone}"
        exchange = f'"{zone}"' if "/" in zone else 'the zone of the exchange, such as "Asia/Kolkata"'
        return (
            ": a time zone written as a name is not read",
            f'set data.date_format = "{form}" and data.timezone = {exchange}',
        )
    if _ROUNDED.fullmatch(text):
        return ": it is a rounded number, likely a spreadsheet's", "export it as text"
    if match := _TWELVE_HOURS.fullmatch(text):
        form = f"%Y{match[1]}%m{match[1]}%d{_clock(match[2])}"
        return ": a 12-hour clock is not read", f'set data.date_format = "{form}"'
    return (
        " such as 2024-01-31T09:15:00+05:30, 2024-01-31 09:15 or 20240131",
        "set data.date_format if it is another form",
    )


def _day_or_month(match: re.Match[str], texts: list[str]) -> tuple[str, str]:
    """The cause and the remedy for dates with day or month first: never guessed, but the column may show which."""
    dash, year, clock = match[2], _year(match[4]), _clock(match[5])
    forms = {
        "day": f"%d{dash}%m{dash}{year}{clock}",
        "month": f"%m{dash}%d{dash}{year}{clock}",
    }
    pairs = [(int(date[1]), int(date[3])) for text in texts if (date := _DAY_AND_MONTH.fullmatch(text))]
    days_first = any(first > 12 for first, _ in pairs)
    months_first = any(second > 12 for _, second in pairs)
    cause = ": whether the day or the month comes first is not known"
    if days_first != months_first:
        which = "day" if days_first else "month"
        return f"{cause} (other rows tell that it is the {which})", f'set data.date_format = "{forms[which]}"'
    return cause, f'set data.date_format = "{forms["day"]}" or "{forms["month"]}"'


def _year(text: str) -> str:
    return "%Y" if len(text) == 4 else "%y"


def _clock(text: str) -> str:
    for pattern, form in _CLOCKS.items():
        if re.fullmatch(pattern, text.strip()):
            return f"{text[: len(text) - len(text.lstrip())]}{form}"
    return text
