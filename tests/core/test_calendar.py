"""Days that a symbol lacks and most others have."""

from __future__ import annotations

import datetime as dt

import hypothesis.strategies as st
from hypothesis import given

from benchmarks.bars import trading_days
from gpusched.core.calendar import Days, missing_days, sentence

START = dt.date(2022, 1, 3)  # a Monday
FRIDAY = dt.date(2022, 1, 7)


def days(dates: list[dt.date]) -> Days:
    found = Days.of(date.toordinal() for date in dates)
    assert found is not None
    return found


def weekdays(weeks: int) -> list[dt.date]:
    return trading_days(START, START + dt.timedelta(weeks=weeks))


def every_day(weeks: int) -> list[dt.date]:
    return [START + dt.timedelta(days=number) for number in range(7 * weeks)]


def test_a_set_of_days_is_small() -> None:
    twenty_years = days(trading_days(dt.date(2000, 1, 1), dt.date(2019, 12, 31)))
    assert len(twenty_years.bits) < 1000
    assert Days.of([]) is None
    assert days([START]) == Days(START, b"\1")


@given(st.sets(st.dates(START, dt.date(2023, 1, 1)), min_size=1), st.sets(st.dates(START, FRIDAY), min_size=1))
def test_a_union_has_the_days_of_both(one: set[dt.date], other: set[dt.date]) -> None:
    assert days(list(one)).union(days(list(other))) == days(list(one | other))


def test_a_union_begins_with_the_earlier_of_both() -> None:
    assert days([FRIDAY]).union(days([START])) == days([START, FRIDAY])
    assert days([START]).union(days([FRIDAY])) == days([START, FRIDAY])


def test_days_lie_within_a_range_or_do_not() -> None:
    found = days([START, START + dt.timedelta(days=9)])
    last = START + dt.timedelta(days=9)
    assert found.lie_within(START, last)
    assert not found.lie_within(START, last - dt.timedelta(days=1))
    assert not found.lie_within(START + dt.timedelta(days=1), last)
    assert not Days(dt.date.max, b"\xff" * 1000).lie_within(START, dt.date.max)


def test_a_gap_is_what_most_others_have() -> None:
    whole = weekdays(20)
    holes = {*whole[30:33], whole[50]}
    with_holes = [day for day in whole if day not in holes]
    found = missing_days({"A": days(whole), "B": days(with_holes), "C": days(whole)})
    assert found == {"B": sorted(holes)}
    assert sentence(found["B"]) == (
        f"4 days missing that most others have: {whole[30]}, {whole[31]}, {whole[32]}, … {whole[50]}"
    )
    assert sentence(found["B"][:1]) == f"1 day missing that most others have: {whole[30]}"


def test_two_cannot_outvote_one_nor_one_of_two() -> None:
    whole = weekdays(10)
    assert missing_days({"A": days(whole), "B": days(whole[:5] + whole[6:])}) == {}
    # Two of four have the day: that is not most of them.
    some = days(whole[:5] + whole[6:])
    assert missing_days({"A": days(whole), "B": some, "C": days(whole), "D": some}) == {}


def test_a_symbol_is_asked_for_its_own_span_only() -> None:
    """One that is listed later or delisted earlier lacks nothing, and does not vote on days that it does not span."""
    whole = weekdays(30)
    late, early = days(whole[80:]), days(whole[:40])
    assert missing_days({"A": days(whole), "B": days(whole), "late": late, "early": early}) == {}
    hole = days(whole[:90] + whole[91:])
    assert missing_days({"A": days(whole), "B": hole, "C": days(whole), "early": early}) == {"B": [whole[90]]}


def test_shares_beside_currencies_trade_on_no_weekend() -> None:
    currencies = {name: days(every_day(40)) for name in ("BTC", "ETH", "SOL")}
    assert missing_days(currencies | {"AAPL": days(weekdays(40))}) == {}
    # Even where it had a session on one Saturday, as exchanges have now and then.
    saturday = days(sorted([*weekdays(40), dt.date(2022, 1, 15)]))
    assert missing_days(currencies | {"AAPL": saturday}) == {}


def test_a_symbol_with_few_days_lacks_the_others() -> None:
    whole = weekdays(30)
    monthly = whole[::20]
    found = missing_days({"A": days(whole), "B": days(whole), "C": days(monthly)})
    assert set(found["C"]) == {day for day in whole if day < monthly[-1]} - set(monthly)


def test_holidays_of_all_are_nobodys_gap() -> None:
    open_days = [day for day in weekdays(20) if day.isoformat() not in ("2022-02-21", "2022-04-15")]
    assert missing_days({name: days(open_days) for name in "ABCDE"}) == {}


calendars = st.dictionaries(st.sampled_from("ABCDEFG"), st.sets(st.integers(0, 40), min_size=1), min_size=3)


@given(calendars)
def test_the_counting_by_bits_is_counting(found: dict[str, set[int]]) -> None:
    """Weekdays apart: here, every symbol is asked for each day, so those of the rule are a part of these."""
    ordinal = START.toordinal()
    counted = {}
    for symbol, own in found.items():
        lacking = []
        for day in range(min(own), max(own) + 1):
            spanning = [other for other in found.values() if min(other) <= day <= max(other)]
            if day not in own and 2 * sum(day in other for other in spanning) > len(spanning):
                lacking.append(START + dt.timedelta(days=day))
        counted[symbol] = lacking
    told = missing_days(
        {symbol: days([dt.date.fromordinal(ordinal + n) for n in own]) for symbol, own in found.items()}
    )
    for symbol, lacking in counted.items():
        named = told.get(symbol, [])
        assert set(named) <= set(lacking)
        exempt = {day.weekday() for day in lacking} - {day.weekday() for day in named}
        assert named == [day for day in lacking if day.weekday() not in exempt]
