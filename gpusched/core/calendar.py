"""Days that have data, by symbol, and which of them a symbol lacks that most others have. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

import msgspec

#: of a weekday's trading days, a symbol that has less than this share does not trade on that weekday …
NO_TRADING = 0.1
#: … if it has at least this share of another one's
TRADING = 0.5
#: missing days that are named, beside the last one
NAMED_DAYS = 3

_WEEK = 7


class Days(msgspec.Struct, frozen=True):
    """A set of calendar days, in a bit for each day of its span: 1 KB for twenty years."""

    #: the first day of the set
    first: dt.date
    #: day number n after `first` is in the set if bit n is 1; little-endian, the last byte is not 0
    bits: bytes

    @classmethod
    def of(cls, ordinals: Iterable[int]) -> Self | None:
        """The set of days with these proleptic Gregorian ordinals; None if there is none."""
        numbers = set(ordinals)
        if not numbers:
            return None
        first = min(numbers)
        bits = bytearray((max(numbers) - first) // 8 + 1)
        for number in numbers:
            bits[(number - first) // 8] |= 1 << (number - first) % 8
        return cls(dt.date.fromordinal(first), bytes(bits))

    def lie_within(self, start: dt.date, end: dt.date) -> bool:
        """Whether all days are from `start` to `end`, both included."""
        length = 8 * len(self.bits) - (8 - self.bits[-1].bit_length()) if self.bits else 0
        return start <= self.first and length <= (end - self.first).days + 1


def missing_days(found: Mapping[str, Days]) -> dict[str, list[dt.date]]:
    """By symbol, the days between its first and its last one that it lacks, and more than half of the symbols have
    whose own span has them. A symbol that does not trade on some day of the week at all (a share beside currencies)
    lacks none of those.

    Days are bits of whole numbers, and so are the counts by day, one number for each binary digit: what this takes
    grows with the number of symbols, hardly with that of days.
    """
    if len(found) < 3:  # two cannot outvote one
        return {}
    epoch = min(days.first for days in found.values())
    has = {symbol: _bits(days, epoch) for symbol, days in found.items()}
    spans = {symbol: _span(days, epoch) for symbol, days in found.items()}
    trading = _majority(has.values(), spans.values())
    weekdays = [_every_week(trading.bit_length(), offset) for offset in range(_WEEK)]
    missing = {}
    for symbol, days in has.items():
        expected = trading & spans[symbol]
        for weekday in _without_trading(days, expected, weekdays):
            expected &= ~weekday
        if lacking := expected & ~days:
            missing[symbol] = [epoch + dt.timedelta(days=number) for number in _numbers(lacking)]
    return missing


def sentence(missing: list[dt.date]) -> str:
    """`5 days missing that most others have: 2023-03-01, 2023-03-02, 2023-03-03, … 2023-03-09`"""
    named = ", ".join(day.isoformat() for day in missing[:NAMED_DAYS])
    last = f", … {missing[-1].isoformat()}" if len(missing) > NAMED_DAYS else ""
    noun = "day" if len(missing) == 1 else "days"
    return f"{len(missing)} {noun} missing that most others have: {named}{last}"


def _bits(days: Days, epoch: dt.date) -> int:
    return int.from_bytes(days.bits, "little") << (days.first - epoch).days


def _span(days: Days, epoch: dt.date) -> int:
    """All days from the first to the last one."""
    length = int.from_bytes(days.bits, "little").bit_length()
    return ((1 << length) - 1) << (days.first - epoch).days


def _majority(has: Iterable[int], spans: Iterable[int]) -> int:
    """The days that more than half of those have whose spans have them."""
    present, spanning = _count(has), _count(spans)
    # Twice the number of those that have a day, against the number of those that span it: digit by digit from the top.
    more, equal = 0, -1
    for place in reversed(range(max(len(present) + 1, len(spanning)))):
        twice = present[place - 1] if 0 < place <= len(present) else 0
        other = spanning[place] if place < len(spanning) else 0
        more |= equal & twice & ~other
        equal &= ~(twice ^ other)
    return more


def _count(sets: Iterable[int]) -> list[int]:
    """The number of sets that have each day: binary digits, the lowest first, each with a bit for every day."""
    digits: list[int] = []
    for carry in sets:
        place = 0
        while carry:
            if place == len(digits):
                digits.append(0)
            digits[place], carry = digits[place] ^ carry, digits[place] & carry
            place += 1
    return digits


def _without_trading(days: int, expected: int, weekdays: list[int]) -> Iterator[int]:
    """Those of the weekdays on which a symbol does not trade, though most others do."""
    counts = [((expected & weekday).bit_count(), (expected & weekday & days).bit_count()) for weekday in weekdays]
    if not any(own >= TRADING * all_ > 0 for all_, own in counts):
        return
    for weekday, (all_, own) in zip(weekdays, counts, strict=True):
        if own < NO_TRADING * all_:
            yield weekday


def _every_week(length: int, offset: int) -> int:
    """Every seventh bit below `length`, from `offset` on."""
    weeks = max(0, -(-(length - offset) // _WEEK))
    return (((1 << _WEEK * weeks) - 1) // ((1 << _WEEK) - 1)) << offset


def _numbers(bits: int) -> Iterator[int]:
    """The places of the bits that are 1, in order."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
