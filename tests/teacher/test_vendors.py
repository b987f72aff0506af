"""Forms of vendors' files: read as they are meant, or refused with a hint that helps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest

from gpusched.core.planning import with_remedy
from gpusched.teacher.bars import History
from gpusched.teacher.history import load_history
from gpusched.teacher.schema import parse_settings
from gpusched.workload import BadData, NoData
from tests.teacher.support import HEADER, walk, write_csv

START = dt.datetime(2023, 1, 2)
#: the last days of trade of months, which are 28 to 33 days apart
MONTH_ENDS = [stamp.to_pydatetime() for stamp in pd.date_range("2018-01-31", periods=60, freq="BME")]


def days(count: int, start: dt.datetime = START) -> list[dt.datetime]:
    return [start + dt.timedelta(days=number) for number in range(count)]


def hours(count: int) -> list[dt.datetime]:
    """Seven bars a day, at half past nine to half past three."""
    return [day + dt.timedelta(hours=9.5 + hour) for day in days(count) for hour in range(7)]


def table(instants: list[dt.datetime], spell: Callable[[dt.datetime], str] = str, *, header: str = HEADER) -> str:
    """A file of bars at these instants; `spell` may give several fields."""
    rows = zip(instants, walk(len(instants)), strict=True)
    return header + "".join(f"{spell(instant)},{','.join(map(repr, row))}\n" for instant, row in rows)


def load(root: Path, files: Mapping[str, str], **settings: object) -> History:
    for name, text in files.items():
        write_csv(root / "data" / name, text)
    return load_history(str(root / "data"), str(root / "cache"), "AAPL", parse_settings(settings))


def refusal(root: Path, files: Mapping[str, str], **settings: object) -> str:
    try:
        history = load(root, files, **settings)
    except (BadData, NoData) as error:
        return with_remedy(str(error), error.remedy)
    raise AssertionError(f"{len(history.bars)} bars were read")


def stamps(history: History) -> list[str]:
    return history.bars.timestamps(slice(None))


# -- timestamps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["%Y%m%d.0", "%Y%m%d%H%M.0", "%Y%m%d%H%M%S.0"])
def test_dates_that_became_floats(tmp_path: Path, form: str) -> None:
    history = load(tmp_path, {"AAPL.csv": table(days(5), lambda day: day.strftime(form))})
    assert stamps(history) == [day.isoformat() for day in days(5)]


@pytest.mark.parametrize("form", ["%-H%M", "%-H%M%S"])
def test_times_of_day_that_lost_their_zeros_as_numbers(tmp_path: Path, form: str) -> None:
    instants = [dt.datetime(2023, 1, 2), *hours(5)]
    header = HEADER.replace("timestamp", "date,time")
    text = table(instants, lambda at: f"{at:%Y%m%d},{int(at.strftime(form))}", header=header)
    assert stamps(load(tmp_path, {"AAPL.csv": text})) == [at.isoformat() for at in instants]


@pytest.mark.parametrize("clock", [lambda at: at.hour * 60 + at.minute, lambda at: at.hour * 3600 + at.minute * 60])
def test_minutes_and_seconds_of_the_day_are_no_such_times(tmp_path: Path, clock: Callable[[dt.datetime], int]) -> None:
    text = table(hours(5), lambda at: f"{at:%Y%m%d},{clock(at)}", header=HEADER.replace("timestamp", "date,time"))
    assert "is not a timestamp" in refusal(tmp_path, {"AAPL.csv": text})


def test_a_date_with_an_hour_is_no_time_in_2034(tmp_path: Path) -> None:
    files = {"AAPL.csv": table(hours(5), lambda at: f"{at:%Y%m%d%H}")}
    assert 'data.date_format = "%Y%m%d%H"' in refusal(tmp_path, files)
    history = load(tmp_path, files, date_format="%Y%m%d%H")
    assert stamps(history) == [at.replace(minute=0).isoformat() for at in hours(5)]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2023-01-02 09:30:00 AM", 'data.date_format = "%Y-%m-%d %I:%M:%S %p"'),
        ("2023-01-02 09:30:00 IST", 'data.timezone = the zone of the exchange, such as "Asia/Kolkata"'),
        ("2-January-2023", 'data.date_format = "%d-%B-%Y"'),
        ("0 days 00:00:00", "set data.date_format if it is another form"),
    ],
)
def test_hints_for_timestamps_are_right(tmp_path: Path, text: str, hint: str) -> None:
    assert hint in refusal(tmp_path, {"AAPL.csv": table(days(1), lambda _: text)})


def test_midnight_of_utc_west_of_it_is_told(tmp_path: Path) -> None:
    text = table(days(60), lambda day: f"{day.isoformat()}Z")
    history = load(tmp_path, {"AAPL.csv": text}, timezone="America/New_York")
    assert [note.kind for note in history.notes] == ["timezone"]
    assert "leave data.timezone out" in history.notes[0].text


def test_evenings_of_utc_are_told_where_summer_time_moves_most_bars_past_midnight(tmp_path: Path) -> None:
    # Ten o'clock in Sydney is 23:00 UTC in summer, and midnight in winter.
    instants = [day - dt.timedelta(hours=1 if number < 20 else 0) for number, day in enumerate(days(60))]
    history = load(tmp_path, {"AAPL.csv": table(instants, lambda at: f"{at.isoformat()}Z")})
    assert "23:00 UTC" in history.notes[0].text


# -- columns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (
            "Date,Open Price,High Price,Low Price,Close Price,WAP,No.of Shares",
            'open = "Open Price", high = "High Price", low = "Low Price", close = "Close Price",'
            ' volume = "No.of Shares"',
        ),
        (
            "Date,Prev Close,Open Price,52W High,High Price,52W Low,Low Price,Close Price,Turnover,Traded Quantity",
            'open = "Open Price", high = "High Price", low = "Low Price", close = "Close Price",'
            ' volume = "Traded Quantity"',
        ),
        ("ts_event,open,high,low,close,volume", 'timestamp = "ts_event"'),
        ("open,close,high,low,volume,begin,end", 'timestamp = "begin"'),
        ("Date,Open,High,Low,Adj Close,Open Interest", 'close = "Adj Close"'),
        ("Date,open_IBM,open_AAPL,high,low,close", 'open = "…"'),
        ("Date,Spread High-Low,High Price,open,low,close", 'high = "High Price"'),
        ("Date,Change %,WAP,Open Interest,High,Low,Close", 'open = "…"'),
    ],
)
def test_a_hint_names_the_column_that_is_meant(tmp_path: Path, names: str, hint: str) -> None:
    assert f"{{{hint}}}" in refusal(tmp_path, {"AAPL.csv": f"{names}\n"})


def test_a_header_behind_a_number_sign_is_named(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"AAPL.csv": "# " + table(days(5))})
    assert "AAPL.csv:2: there is no header" in said
    assert "line 1 starts with #" in said


def test_thousands_are_not_taken_for_a_decimal_comma(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"AAPL.csv": HEADER + '2023-01-02,1.5,2,1,1.5,"13,432"\n'})
    assert "write it without a thousands separator" in said


# -- several symbols, several intervals --------------------------------------------------------------------------------


def test_files_of_two_symbols_are_not_one_series(tmp_path: Path) -> None:
    header = HEADER.replace("timestamp", "symbol,timestamp")
    files = {
        "AAPL/1d/a.csv": table(days(30), lambda day: f"AAPL,{day}", header=header),
        "AAPL/1d/b.csv": table(days(30, START + dt.timedelta(days=30)), lambda day: f"TSLA,{day}", header="x" + header)
        .replace("xsymbol", "ticker")
        .replace("volume", "volume "),
    }
    assert "b.csv: the symbol is TSLA, and AAPL in" in refusal(tmp_path, files)


HEADINGS = "Price,Open,High,Low,Close,Volume\nTicker,{0},{0},{0},{0},{0}\nDate,,,,,\n"


def test_headings_of_another_symbol_are_told(tmp_path: Path) -> None:
    history = load(tmp_path, {"AAPL.csv": table(days(30), header=HEADINGS.format("MSFT"))})
    assert [note.text for note in history.notes] == ["the headings say MSFT"]
    assert load(tmp_path, {"AAPL.csv": table(days(31), header=HEADINGS.format("AAPL"))}).notes == ()


def test_headings_of_two_symbols_are_not_one_series(tmp_path: Path) -> None:
    files = {
        "AAPL/1d/a.csv": table(days(30), header=HEADINGS.format("AAPL")),
        "AAPL/1d/b.csv": table(days(30, START + dt.timedelta(days=30)), header=HEADINGS.format("MSFT")),
    }
    assert "b.csv: the symbol is MSFT, and AAPL in" in refusal(tmp_path, files)


def test_contracts_that_expire_are_told_apart(tmp_path: Path) -> None:
    header = HEADER.replace("timestamp", "expiry,timestamp")
    one = table(days(30), lambda day: f"2023-03-17,{day}", header=header)
    other = table(days(30), lambda day: f"2023-06-16,{day}", header="").replace(".", ".1")
    assert "column expiry has 2 values: 2023-03-17, 2023-06-16" in refusal(tmp_path, {"AAPL.csv": one + other})


@pytest.mark.parametrize("forms", [("%Y%m%d", "%Y-%m-%d"), ("%Y-%m-%d", "%Y%m%d"), ("%Y%m%d%H%M", "%Y/%m/%d %H:%M")])
def test_files_may_write_dates_in_different_forms(tmp_path: Path, forms: tuple[str, str]) -> None:
    one, other = (lambda instant, form=form: instant.strftime(form) for form in forms)
    files = {"AAPL/1d/a.csv": table(days(30), one), "AAPL/1d/b.csv": table(days(30, START + dt.timedelta(30)), other)}
    assert stamps(load(tmp_path, files)) == [instant.isoformat() for instant in days(60)]


@pytest.mark.parametrize("latest_first", [False, True])
def test_the_hour_that_occurs_twice(tmp_path: Path, latest_first: bool) -> None:
    instants = pd.date_range("2023-11-04", "2023-11-06", freq="30min", tz="America/New_York").to_pydatetime().tolist()
    header, *lines = table(instants, lambda instant: instant.strftime("%Y-%m-%d %H:%M")).splitlines()
    text = "\n".join([header, *(reversed(lines) if latest_first else lines), ""])
    history = load(tmp_path, {"AAPL/30min/bars.csv": text}, timezone="America/New_York", interval="30min")
    assert stamps(history) == [instant.isoformat() for instant in instants]
    assert [f"{close!r}" for close in history.bars.close.tolist()] == [line.split(",")[4] for line in lines]


def test_a_date_format_may_have_an_offset(tmp_path: Path) -> None:
    text = table(days(5), lambda day: f"{day:%d.%m.%Y %H:%M:%S}.000 GMT+0530")
    history = load(tmp_path, {"AAPL.csv": text}, date_format="%d.%m.%Y %H:%M:%S.%f GMT%z")
    assert stamps(history)[0] == "2023-01-02T00:00:00+05:30"


def test_a_column_of_intervals_has_one(tmp_path: Path) -> None:
    header = HEADER.replace("timestamp", "interval,timestamp")
    hourly = table(hours(30), lambda at: f"1h,{at}", header=header)
    assert len(load(tmp_path, {"AAPL.csv": hourly}).bars) == 210
    daily = table(days(30), lambda day: f"1d,{day}", header="")  # at midnight: no instant has two bars
    assert "column 'interval' has 2 values: 1d, 1h" in refusal(tmp_path, {"AAPL.csv": hourly + daily})


def test_months_that_end_on_days_of_trade_are_no_days(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"AAPL/1d/a.csv": table(MONTH_ENDS)})
    assert "the bars are 1 month apart, but the interval 1d means 1 day" in said
    assert "--interval 1mo" in said


def test_months_hide_in_no_directory_of_days(tmp_path: Path) -> None:
    daily = table(days(300, dt.datetime(2023, 2, 1)))
    assert "m.csv: the bars are 1 month apart" in refusal(
        tmp_path, {"AAPL/1d/d.csv": daily, "AAPL/1d/m.csv": table(MONTH_ENDS)}
    )


def test_months_are_found_under_their_names(tmp_path: Path) -> None:
    assert load(tmp_path, {"AAPL/1mo/a.csv": table(MONTH_ENDS)}, interval="MN1").notes == ()


def test_the_distance_of_bars_is_told_where_the_name_of_the_interval_says_none(tmp_path: Path) -> None:
    history = load(tmp_path, {"AAPL/bars/a.csv": table(hours(30))})
    assert "the bars of bars are 1 hour apart" in [note.text for note in history.notes]
    assert len(load(tmp_path, {"AAPL/bars/a.csv": table(days(30))}).notes) == 1


# -- files that are not read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["2024.csv.xz", "2024.csv.bz2", "2024.pq", "2024.csv.part", "2024/a.csv", "x.csv (1)"])
def test_files_beside_those_that_are_read_are_told(tmp_path: Path, name: str) -> None:
    history = load(tmp_path, {"AAPL/1d/2023.csv": table(days(30)), f"AAPL/1d/{name}": "x"})
    assert [note.kind for note in history.notes] == ["unread"]
    assert name.partition("/")[0] in history.notes[0].text


@pytest.mark.parametrize("name", ["_delta_log/0.json", "SHA256SUMS", "notes.md", ".x.csv"])
def test_what_holds_no_bars_is_not_told(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, {"AAPL/1d/2023.csv": table(days(30)), f"AAPL/1d/{name}": "x"}).notes == ()


@pytest.mark.parametrize("name", ["2024.csv", "bars/2024.csv"])
def test_files_in_the_directory_of_a_symbol_that_is_a_file_are_told(tmp_path: Path, name: str) -> None:
    history = load(tmp_path, {"AAPL.csv": table(days(30)), f"AAPL/{name}": table(days(5))})
    assert [note.text for note in history.notes] == [
        f"AAPL.csv is read; there, but not read: AAPL/{name.partition('/')[0]}"
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("AAPL.csv.zip", "unpack it, or save it as CSV"), ("AAPL.csv.GZ", "write its suffix in lower case")],
)
def test_the_nearest_file_comes_with_the_right_remedy(tmp_path: Path, name: str, hint: str) -> None:
    assert hint in refusal(tmp_path, {name: "x"})


def test_a_link_to_itself_hides_no_interval(tmp_path: Path) -> None:
    files = {"AAPL/5m/a.csv": table(days(5)), "AAPL.csv": table(days(30))}
    (tmp_path / "data" / "AAPL").mkdir(parents=True)
    (tmp_path / "data" / "AAPL" / "1d").symlink_to("1d")
    assert "1d: is a broken link, to 1d" in refusal(tmp_path, files)
