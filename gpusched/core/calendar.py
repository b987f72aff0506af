"""The days for which each symbol has data, and the days that a symbol lacks while most others have them. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

import msgspec

from gpusched.core.wording import counted

#: a symbol that has less than this share of a weekday's trading days does not trade on that weekday …
NO_TRADING = 0.1
#: … provided that it has at least this share of some other weekday's
TRADING = 0.5
#: missing days that a note names, besides the last one
NAMED_DAYS = 3

_WEEK = 7


class Days(msgspec.Struct, frozen=True):
    """A set of calendar days, with one bit for each day of its span: 1 KB for twenty years."""

    #: the first day of the set
    first: dt.date
    #: the n-th day after `first` is in the set if bit n is 1; little-endian, the last byte is not 0
    bits: bytes

    @classmethod
    def of(cls, ordinals: Iterable[int]) -> Self | None:
        """The set of days with these proleptic Gregorian ordinals; None if there are none."""
        numbers = set(ordinals)
        if not numbers:
            return None
        first = min(numbers)
        bits = bytearray((max(numbers) - first) // 8 + 1)
        for number in numbers:
            bits[(number - first) // 8] |= 1 << (number - first) % 8
        return cls(dt.date.fromordinal(first), bytes(bits))

    def union(self, other: Days) -> Days:
        """The days that are in either set."""
        first = min(self.first, other.first)
        bits = _bits(self, first) | _bits(other, first)
        return Days(first, bits.to_bytes((bits.bit_length() + 7) // 8, "little"))

    def lie_within(self, start: dt.date, end: dt.date) -> bool:
        """Whether all days are from `start` to `end`, both included."""
        length = 8 * len(self.bits) - (8 - self.bits[-1].bit_length()) if self.bits else 0
        return start <= self.first and length <= (end - self.first).days + 1


def missing_days(by_symbol: Mapping[str, Days]) -> dict[str, list[dt.date]]:
    """The missing days of each symbol that has any.

    A day is missing if it lies between the symbol's first and last day, the symbol lacks it, and more than half of the
    symbols whose span contains it have it. A weekday on which the symbol does not trade at all (a share among
    currencies) is never missing.

    Days are bits of integers, and so are the counts by day, one integer for each binary digit: the cost grows with the
    number of symbols, and hardly with the number of days.
    """
    if len(by_symbol) < 3:  # one symbol would outvote the other
        return {}
    epoch = min(days.first for days in by_symbol.values())
    has = {symbol: _bits(days, epoch) for symbol, days in by_symbol.items()}
    spans = {symbol: _span(days, epoch) for symbol, days in by_symbol.items()}
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
    return f"{counted(len(missing), 'day')} missing that most others have: {named}{last}"


def _bits(days: Days, epoch: dt.date) -> int:
    return int.from_bytes(days.bits, "little") << (days.first - epoch).days


def _span(days: Days, epoch: dt.date) -> int:
    """All days from the first to the last one, as bits."""
    length = int.from_bytes(days.bits, "little").bit_length()
    return ((1 << length) - 1) << (days.first - epoch).days


def _majority(has: Iterable[int], spans: Iterable[int]) -> int:
    """The days that more than half of the symbols have, among those whose span contains the day."""
    present, spanning = _count(has), _count(spans)
    # Compare twice the number of symbols that have a day with the number that span it, from the highest digit down.
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
    """The weekdays on which a symbol does not trade, though most others do."""
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
