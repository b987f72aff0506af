"""Refusals of rows that can be read, and notes on bars that can be trained on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bars import symbols, trading_days, write_symbol
from gpusched.core.planning import with_remedy
from gpusched.sample import SYMBOLS, write_sample
from gpusched.teacher.bars import History
from gpusched.teacher.history import load_history
from gpusched.teacher.schema import Settings
from gpusched.workload import BadData
from tests.teacher.support import HEADER, write_csv

ROWS = 200


def row(when: str, close: float = 10, *, high: float | None = None, low: float | None = None, volume: float = 5) -> str:
    return (
        f"{when},{close},{close + 1 if high is None else high},{close - 1 if low is None else low},{close},{volume}\n"
    )


def daily(count: int = ROWS, start: dt.date = dt.date(2024, 1, 1)) -> list[str]:
    return [row(f"{start + dt.timedelta(days=day)}") for day in range(count)]


def intraday(minutes: int, count: int = ROWS) -> list[str]:
    start = dt.datetime(2024, 1, 1, 9, 15)
    return [row((start + dt.timedelta(minutes=minutes * bar)).isoformat(sep=" ")) for bar in range(count)]


def load(root: Path, lines: Iterable[str] | None = None, header: str = HEADER, **settings: object) -> History:
    if lines is not None:
        write_csv(root / "ABC.csv", header + "".join(lines))
    return load_history(str(root), str(root / "cache"), "ABC", Settings(**settings))  # type: ignore[arg-type]


def told(root: Path, lines: Iterable[str] | None = None, header: str = HEADER, **settings: object) -> dict[str, str]:
    notes = load(root, lines, header, **settings).notes
    assert len({note.kind for note in notes}) == len(notes)
    return {note.kind: note.text for note in notes}


def refused(root: Path, lines: Iterable[str] | None = None, header: str = HEADER, **settings: object) -> str:
    with pytest.raises(BadData) as raised:
        load(root, lines, header, **settings)
    return with_remedy(str(raised.value), raised.value.remedy).replace(f"{root}/", "")


# -- one instant -------------------------------------------------------------------------------------------------------


def test_equal_rows_are_duplicates(tmp_path: Path) -> None:
    assert told(tmp_path, daily() * 2) == {"duplicates": "200 rows are there twice (first 2024-01-01)"}


def test_a_few_conflicts_are_told(tmp_path: Path) -> None:
    lines = [*daily(), row("2024-03-01", 11), row("2024-03-02", 11)]
    assert told(tmp_path, lines) == {
        "conflicts": "2 conflicting rows differ from another one of the same instant; the last is kept: 2024-03-01,"
        " 2024-03-02"
    }
    assert load(tmp_path).bars.window(dt.date(2024, 3, 1), dt.date(2024, 3, 1)).close.tolist() == [11]


def test_more_are_refused(tmp_path: Path) -> None:
    lines = [*daily(), *(row(f"2024-03-0{day}", 11) for day in range(1, 4))]
    assert refused(tmp_path, lines) == (
        "ABC.csv:202: 3 of 203 rows differ from another one of the same instant: lines 62 and 202 are both of"
        " 2024-03-01"
    )


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("SERIES", ("EQ", "BE", "N1"), "column SERIES has 3 values: BE, EQ, N1"),
        ("hour", ("09:15", "10:15", "11:15"), 'hour is a column of its own: set data.columns = {time = "hour"}'),
        ("Hour", ("9", "10", "11"), "Hour is a column of its own: write it into the timestamps"),
        ("Name", ("ABC", "DEF", "GHI"), 'column Name has 3 values: set data.columns = {symbol = "Name"}'),
    ],
)
def test_the_reason_is_found_in_another_column(
    tmp_path: Path, column: str, values: tuple[str, ...], reason: str
) -> None:
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=day) for day in range(40)]
    lines = [f"{value},{row(str(day), 10 + number)}" for day in days for number, value in enumerate(values)]
    assert refused(tmp_path, lines, f"{column},{HEADER}") == (
        f"ABC.csv:3: 80 of 120 rows differ from another one of the same instant: {reason}"
    ).replace(":3:", ":4:")


def test_two_files_that_overlap_and_differ(tmp_path: Path) -> None:
    directory = tmp_path / "ABC" / "1d"
    write_csv(directory / "a.csv", HEADER + "".join(daily(100)))
    write_csv(directory / "b.csv", HEADER + "".join(daily(100, dt.date(2024, 4, 1))).replace(",10,", ",10.5,"))
    assert refused(tmp_path) == (
        "ABC/1d: 9 of 200 rows differ from another one of the same instant: two files overlap and differ: a.csv, b.csv"
        " (first at 2024-04-01): keep one of them"
    )


def test_two_bars_of_one_day(tmp_path: Path) -> None:
    twice = [row(f"2024-03-0{day} 15:30", 11) for day in range(1, 6)]
    assert "5 of 205 rows differ from another one of the same day" in refused(tmp_path, [*daily(), *twice])
    assert set(told(tmp_path, [*daily(), *twice[:2]])) == {"conflicts"}
    assert set(told(tmp_path, [*daily(), row("2024-03-01 15:30")])) == {"duplicates"}
    assert len(load(tmp_path).bars) == ROWS


# -- the interval ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "asked", "found", "wanted", "give"),
    [
        (daily(), "5minute", "1 day", "5 minutes", "1d"),
        (intraday(15), "1d", "15 minutes", "1 day", "15m"),
        (intraday(15), "5min", "15 minutes", "5 minutes", "15m"),
        (intraday(5), "15min", "5 minutes", "15 minutes", "5m"),
        (
            [row(f"{dt.date(2024, 1, 5) + dt.timedelta(days=7 * week)}") for week in range(40)],
            "1d",
            "7 days",
            "1 day",
            "7d",
        ),
    ],
)
def test_bars_of_another_interval(
    tmp_path: Path, lines: list[str], asked: str, found: str, wanted: str, give: str
) -> None:
    assert refused(tmp_path, lines, interval=asked) == (
        f"ABC.csv: the bars are {found} apart, but the interval {asked} means {wanted}; give --interval {give},"
        " or put them where they belong"
    )


def test_a_file_of_another_interval_among_others(tmp_path: Path) -> None:
    directory = tmp_path / "ABC" / "15min"
    write_csv(directory / "a.csv", HEADER + "".join(intraday(15, 400)))
    write_csv(directory / "daily.csv", HEADER + "".join(daily(5)))
    assert refused(tmp_path).startswith("ABC/15min/daily.csv: the bars are 1 day apart, but the interval 15min")


def test_an_interval_that_was_not_asked_for(tmp_path: Path) -> None:
    assert (load(tmp_path, daily()).interval, told(tmp_path)) == ("1d", {})
    assert (load(tmp_path, intraday(15)).interval, told(tmp_path)) == (
        "15m",
        {"interval": "the bars are 15 minutes apart, --interval was not given"},
    )
    assert (load(tmp_path, daily(3)).interval, told(tmp_path)) == ("1d", {})


@pytest.mark.parametrize("asked", ["1d", "daily", "bars"])
def test_bars_that_are_what_they_are_called(tmp_path: Path, asked: str) -> None:
    assert (load(tmp_path, daily(), interval=asked).interval, told(tmp_path)) == (asked, {})


def test_thin_bars_are_of_their_interval(tmp_path: Path) -> None:
    """Many minutes without a trade: most distances are longer than a minute, and no other is as common."""
    lines = [line for bar, line in enumerate(intraday(1, 600)) if bar % 7 in (0, 1, 3)]
    assert told(tmp_path, lines, interval="1m") == {}


def test_bars_at_no_common_distance_contradict_nothing(tmp_path: Path) -> None:
    """As of a thinly traded share: there is no distance that would tell of another interval."""
    minutes = set(np.random.default_rng(5).integers(0, 9000, ROWS).tolist())
    lines = [line for bar, line in enumerate(intraday(1, 9000)) if bar in minutes]
    assert told(tmp_path, lines, interval="1m") == {}
    assert told(tmp_path) == {"interval": "the bars are at no common distance, --interval was not given"}


def test_a_day_with_few_trades_is_no_file_of_another_interval(tmp_path: Path) -> None:
    directory = tmp_path / "ABC" / "5min"
    write_csv(directory / "a.csv", HEADER + "".join(intraday(5)))
    late = [row(f"2024-01-03 {time}") for time in ("09:15", "10:00", "11:30", "15:25", "15:30")]
    write_csv(directory / "b.csv", HEADER + "".join(late))
    assert set(told(tmp_path)) == {"interval"}


# -- told --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "kind", "text"),
    [
        (
            [row("2024-07-19", 0, low=-1)],
            "prices",
            "1 of 201 rows dropped: a price is zero or negative (first on 2024-07-19)",
        ),
        ([row("2024-07-19", volume=-7)], "dropped", "1 of 201 rows dropped: volume is negative (first on 2024-07-19)"),
        (["2024-07-19,1,,,1,1\n"], "dropped", "1 of 201 rows dropped: high and low are missing (first on 2024-07-19)"),
        (["2024-07-19,1,inf,1,1,1\n"], "dropped", "1 of 201 rows dropped: a price or the volume is infinite (first on"),
        ([row("2024-07-19", volume=-1)], "volume", "volume is -1 in 1 of 201 rows: it is read as 0"),
        ([row("2024-07-19", 2.5)], "jumps", "close ÷ 4 on 2024-07-19: a split?"),
        (
            [row("2024-07-19", 40), row("2024-07-20", 10)],
            "jumps",
            "close × 4 on 2024-07-19, ÷ 4 on 2024-07-20: splits?",
        ),
        (
            [row("2024-07-19", high=9, low=8)],
            "ohlc",
            "high and low do not enclose open and close in 1 of 201 rows (first on 2024-07-19)",
        ),
        (
            [row("2024-07-19", high=9, low=11)],
            "ohlc",
            "high and low do not enclose open and close in 1 of 201 rows, in 1 of them the high is below the low",
        ),
    ],
)
def test_what_is_told(tmp_path: Path, lines: list[str], kind: str, text: str) -> None:
    (found,) = told(tmp_path, [*daily(), *lines]).items()
    assert found[0] == kind
    assert found[1].startswith(text)


def test_many_jumps_are_counted(tmp_path: Path) -> None:
    lines = [row(f"{dt.date(2024, 7, 19) + dt.timedelta(days=day)}", 10 if day % 2 else 20) for day in range(7)]
    assert told(tmp_path, [*daily(), *lines]) == {
        "jumps": "close × 2 on 2024-07-19, ÷ 2 on 2024-07-20, × 2 on 2024-07-21 and 4 more: splits?"
    }


def test_rounding_is_no_crossing(tmp_path: Path) -> None:
    lines = ["2024-07-19,10.0000001,10,9.99,10,1\n"]
    assert told(tmp_path, [*daily(), *lines]) == {}


def test_no_volumes(tmp_path: Path) -> None:
    empty = [line.rpartition(",")[0] + ",\n" for line in daily()]
    assert told(tmp_path, empty) == {"volume": "none of the 200 rows has a volume: it is read as 0"}
    without = [line.rpartition(",")[0] + "\n" for line in daily()]
    header = "timestamp,open,high,low,close\n"
    assert told(tmp_path, without, header) == {"volume": "there is no column of volumes: they are read as 0"}
    assert load(tmp_path).bars.volume.tolist() == [0] * ROWS


def test_volumes_that_are_all_zero(tmp_path: Path) -> None:
    lines = [row(f"{dt.date(2024, 1, 1) + dt.timedelta(days=day)}", volume=0) for day in range(ROWS)]
    assert told(tmp_path, lines) == {"volume": "volume is 0 in all 200 rows"}


def test_where_nothing_is_left_the_reasons_are_told(tmp_path: Path) -> None:
    lines = [row(f"2024-01-{day:02}", volume=-7) for day in range(1, 21)]
    assert refused(tmp_path, lines) == "ABC.csv: no bars: 20 rows, all dropped: volume is negative"


def test_daily_bars_in_the_evening_of_utc(tmp_path: Path) -> None:
    lines = [line.replace(",", " 18:30:00+00:00,", 1) for line in daily()]
    assert "the daily bars stand at 18:30 UTC" in told(tmp_path, lines)["timezone"]
    assert (told(tmp_path, timezone="Asia/Kolkata"), load(tmp_path, timezone="Asia/Kolkata").bars.dates()) == (
        {},
        (dt.date(2024, 1, 2), dt.date(2024, 7, 19)),
    )
    assert told(tmp_path, [line.replace(",", " 05:00:00+00:00,", 1) for line in daily()]) == {}


def test_strict_data_have_nothing_to_tell(tmp_path: Path) -> None:
    assert load(tmp_path, daily(), strict=True).notes == ()
    lines = [*daily(), row("2024-07-19", 2.5), row("2024-07-20", volume=-7)]
    assert refused(tmp_path, lines, strict=True).endswith(
        ": data.strict refuses ABC: 1 of 202 rows dropped: volume is negative (first on 2024-07-20); close ÷ 4 on"
        " 2024-07-19: a split?; mend the data, or set data.strict = false"
    )


# -- the exchange's zone -----------------------------------------------------------------------------------------------


def test_naive_bars_get_the_offset_of_their_zone(tmp_path: Path) -> None:
    bars = load(tmp_path, daily(), timezone="America/New_York").bars
    assert bars.timestamps(slice(69, 71)) == ["2024-03-10T00:00:00-05:00", "2024-03-11T00:00:00-04:00"]


def test_an_hour_that_occurs_twice(tmp_path: Path) -> None:
    night = [row(f"2023-11-05 {hour:02}:00", 10 + number) for number, hour in enumerate((0, 1, 1, 2, 3))]
    assert set(told(tmp_path, [*night, *intraday(60)], interval="1h")) == {"conflicts"}
    assert told(tmp_path, interval="1h", timezone="America/New_York") == {}
    bars = load(tmp_path, interval="1h", timezone="America/New_York").bars
    assert (bars.close[:4].tolist(), bars.offset[:4].tolist()) == ([10, 11, 12, 13], [-14400, -14400, -18000, -18000])


def test_files_with_and_without_offsets(tmp_path: Path) -> None:
    directory = tmp_path / "ABC" / "1d"
    write_csv(directory / "a.csv", HEADER + "".join(daily(20)))
    later = daily(20, dt.date(2024, 1, 21))
    write_csv(directory / "b.csv", HEADER + "".join(line.replace(",", " 00:00:00+05:30,", 1) for line in later))
    assert refused(tmp_path) == (
        "ABC/1d/b.csv:2: the timestamp has a UTC offset, and that of ABC/1d/a.csv:2 has none; set data.timezone to the"
        ' zone of the exchange, such as "Asia/Kolkata"'
    )
    assert (len(load(tmp_path, timezone="Asia/Kolkata").bars), told(tmp_path, timezone="Asia/Kolkata")) == (40, {})


# -- no false alarm ----------------------------------------------------------------------------------------------------


def test_what_is_told_of_the_demo(tmp_path: Path) -> None:
    write_sample(tmp_path)
    found = {
        symbol: [
            note.text
            for note in load_history(str(tmp_path / "data"), str(tmp_path / "cache"), symbol, Settings()).notes
        ]
        for symbol in SYMBOLS
    }
    assert {symbol: texts for symbol, texts in found.items() if texts} == {
        "AAPL": ["close ÷ 1.82 on 2000-06-21, ÷ 2.08 on 2000-09-29, ÷ 1.98 on 2005-02-28: splits?"],
        "MSFT": ["close ÷ 1.94 on 2003-02-18: a split?"],
    }


@pytest.mark.parametrize("bars_per_day", [1, pytest.param(75, marks=pytest.mark.thorough)])
def test_nothing_is_told_of_the_bars_of_the_benchmarks(tmp_path: Path, bars_per_day: int) -> None:
    interval = "1d" if bars_per_day == 1 else "5min"
    days = trading_days(dt.date(2022, 1, 1), dt.date(2024, 12, 31))[: 2000 // bars_per_day]
    for symbol in symbols(45):
        write_symbol(tmp_path / "data", symbol, days, interval=interval, bars_per_day=bars_per_day)
        history = load_history(str(tmp_path / "data"), str(tmp_path / "cache"), symbol, Settings(interval=interval))
        assert (history.notes, len(history.bars)) == ((), len(days) * bars_per_day)
