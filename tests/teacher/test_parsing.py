from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from gpusched.core.planning import with_remedy
from gpusched.teacher import tables
from gpusched.teacher.bars import NAIVE
from gpusched.teacher.parsing import parse as parse_csv
from gpusched.teacher.rows import Reading
from gpusched.workload import BadData
from tests.teacher.parsing import ONE, TWO, bars_of, parse, values
from tests.teacher.support import HEADER, write_csv

#: spellings of an instant
TIMESTAMPS = {
    "2024-01-01 09:15": "2024-01-01T09:15:00",
    "2024-1-1 9:15": "2024-01-01T09:15:00",
    "2024/01/01": "2024-01-01T00:00:00",
    "2024/1/1 09:15:00": "2024-01-01T09:15:00",
    "2024.01.01 09:15": "2024-01-01T09:15:00",
    "20240101": "2024-01-01T00:00:00",
    "20240101T091500Z": "2024-01-01T09:15:00+00:00",
    "20240101 09:15:00": "2024-01-01T09:15:00",
    "202401010915": "2024-01-01T09:15:00",
    "20240101091500": "2024-01-01T09:15:00",
    "2024-01-01T09:15:00.000Z": "2024-01-01T09:15:00+00:00",
    "2024-01-01T09:15:00.123456789+00:00": "2024-01-01T09:15:00.123456+00:00",
    "2024-01-01 09:15:00 UTC": "2024-01-01T09:15:00+00:00",
    "2024-01-01 09:15:00 -0500": "2024-01-01T09:15:00-05:00",
    "2024-01-01T09": "2024-01-01T09:00:00",
    "1704100500": "2024-01-01T09:15:00+00:00",
    "1704100500.0": "2024-01-01T09:15:00+00:00",
    "1704100500.25": "2024-01-01T09:15:00.250000+00:00",
    "1704100500000": "2024-01-01T09:15:00+00:00",
    "1704100500000000": "2024-01-01T09:15:00+00:00",
    "1704100500000000000": "2024-01-01T09:15:00+00:00",
}
#: headers, each with a row of 2024-01-01 at 09:15
HEADERS = {
    "time,open,high,low,close,volume": "2024-01-01 09:15,1,2,0.5,1.5,10",
    "Open time,Open,High,Low,Close,Volume": "2024-01-01 09:15,1,2,0.5,1.5,10",
    "ticker,volume,open,close,high,low,window_start": "ABC,10,1,1.5,2,0.5,2024-01-01 09:15",
    ",open,high,low,close,volume": "2024-01-01 09:15,1,2,0.5,1.5,10",
    "Date,Time,Open,High,Low,Close,Volume": "2024-01-01,09:15:00,1,2,0.5,1.5,10",
    "date,time,open,high,low,close,volume": "2024.01.01,9:15,1,2,0.5,1.5,10",
    "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>": (
        "2024.01.01\t09:15:00\t1\t2\t0.5\t1.5\t7\t10\t3"
    ),
    "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>": (
        "ABC,5,20240101,091500,1,2,0.5,1.5,10,0"
    ),
    "date,time,open,high,low,close,volume,x": "2024-01-01 09:15:00,09:15:00,1,2,0.5,1.5,10,x",
}
YFINANCE = """\
Price,Close,High,Low,Open,Volume
Ticker,ABC,ABC,ABC,ABC,ABC
Date,,,,,
2024-01-01,1.5,2,0.5,1,10
"""
TWO_SYMBOLS = """\
,Close,Close,High,High,Low,Low,Open,Open,Volume,Volume
,XYZ,ABC,XYZ,ABC,XYZ,ABC,XYZ,ABC,XYZ,ABC
Date,,,,,,,,,,
2024-01-01,9,1.5,9,2,9,0.5,9,1,9,10
"""


@pytest.mark.parametrize(
    ("text", "timestamps"),
    [
        (HEADER + ONE + TWO, ["2024-01-01T09:15:00+05:30", "2024-01-01T09:20:00+05:30"]),
        (HEADER + ONE + TWO.rstrip("\n"), ["2024-01-01T09:15:00+05:30", "2024-01-01T09:20:00+05:30"]),
        (HEADER + TWO + ONE, ["2024-01-01T09:15:00+05:30", "2024-01-01T09:20:00+05:30"]),
        (HEADER + ONE.replace("T", " "), ["2024-01-01T09:15:00+05:30"]),
        (HEADER + ONE.replace("+05:30", "-04:00"), ["2024-01-01T09:15:00-04:00"]),
        (HEADER + ONE.replace("+05:30", ""), ["2024-01-01T09:15:00"]),
        (HEADER + ONE.replace("T09:15:00+05:30", ""), ["2024-01-01T00:00:00"]),
        (HEADER + ONE.replace("+05:30", "Z"), ["2024-01-01T09:15:00+00:00"]),
        (HEADER + ONE.replace("00+05:30", "00.25+05:30"), ["2024-01-01T09:15:00.250000+05:30"]),
        ("\ufeff" + HEADER + ONE, ["2024-01-01T09:15:00+05:30"]),
        ((HEADER + ONE).replace("\n", "\r\n"), ["2024-01-01T09:15:00+05:30"]),
        ((HEADER + ONE).replace(",", '","').replace("\n", '"\n').replace("t", '"t', 1).replace("202", '"202'), None),
        (HEADER + "\n" + ONE + "\n\n", ["2024-01-01T09:15:00+05:30"]),
        (HEADER + ONE.replace(",", " , "), ["2024-01-01T09:15:00+05:30"]),
        ("Volume,Adj Close,Close,Low,High,Open,Date\n10,9,1.5,0.5,2,1,2024-01-01\n", ["2024-01-01T00:00:00"]),
        ("date,Datetime,Open,High,Low,Close,Volume\n?,2024-01-01,1,2,0.5,1.5,10\n", ["2024-01-01T00:00:00"]),
        *((HEADER + f"{text},1,2,0.5,1.5,10\n", [timestamp]) for text, timestamp in TIMESTAMPS.items()),
        *((f"{names}\n{row}\n", ["2024-01-01T09:15:00"]) for names, row in HEADERS.items()),
        ("# by fetch.py\n\n# of X\n" + HEADER + ONE, None),
        ("sep=;\n" + (HEADER + ONE).replace(",", ";"), None),
        ((HEADER + ONE).replace(",", "\t"), None),
        ((HEADER + ONE).replace(",", "|"), None),
        ((HEADER + ONE).replace("\n", "\r"), None),
        (HEADER + ONE + HEADER, None),
        ("\ufeff" + HEADER + ONE + "\ufeff" + HEADER, None),
        ("".join(f'"{line}"\n' for line in (HEADER + ONE + HEADER).replace(",", '","').splitlines()), None),
        (HEADER + ONE.replace(",1,", ',"1",'), None),
        ("note," + HEADER + '"a ""b"", c\nd",' + ONE, None),
        ("timestamp," + HEADER.replace("timestamp", "note") + ONE.replace(",", ",é,", 1), None),
        (f"{','.join(f'column_{number:04}' for number in range(2000))}," + HEADER + "," * 2000 + ONE, None),
        (YFINANCE, ["2024-01-01T00:00:00"]),
        (YFINANCE.replace(",ABC", ",OTHER"), ["2024-01-01T00:00:00"]),
        (TWO_SYMBOLS, ["2024-01-01T00:00:00"]),
    ],
)
def test_forms_that_are_understood(tmp_path: Path, text: str, timestamps: list[str] | None) -> None:
    bars = parse(tmp_path, text)
    assert bars.timestamps(slice(None)) == (timestamps or ["2024-01-01T09:15:00+05:30"])
    assert values(bars)[0] == (1, 2, 0.5, 1.5, 10)
    assert bars.quality() == {"invalid_rows": 0, "duplicate_rows": 0, "conflicting_rows": 0}


def test_order_is_by_instant_and_the_date_is_the_local_one(tmp_path: Path) -> None:
    # The clock goes back an hour at 02:00 in New York; the second 01:30 is an hour after the first.
    text = HEADER + (
        "2024-11-03T01:30:00-05:00,2,2,2,2,2\n2024-11-03T01:30:00-04:00,1,1,1,1,1\n2024-11-02T23:00:00-04:00,3,3,3,3,3\n"
    )
    bars = parse(tmp_path, text)
    assert bars.open.tolist() == [3, 1, 2]
    # 03:00 and 05:30 UTC on the 3rd are the 2nd and the 3rd at the exchange.
    assert bars.window(dt.date(2024, 11, 2), dt.date(2024, 11, 2)).open.tolist() == [3]
    assert bars.window(dt.date(2024, 11, 3), dt.date(2024, 11, 3)).open.tolist() == [1, 2]
    assert len(bars.window(dt.date.min, dt.date.max)) == len(bars)  # no date comes after the last one
    assert bars.dates() == (dt.date(2024, 11, 2), dt.date(2024, 11, 3))


def test_rows_that_are_dropped_are_counted_in_their_window(tmp_path: Path) -> None:
    text = HEADER + (
        "2024-01-01,1,2,1,1,10\n"
        "2024-01-02,nan,2,1,1,10\n"
        "2024-01-03,1,2,1,0,10\n"
        "2024-01-04,1,2,1,-1,10\n"
        "2024-01-05,1,inf,1,1,10\n"
        "2024-01-06,1,2,1,1,-10\n"
        "2024-01-07,1,2,1,1,nan\n"
        "2024-01-08,1,2,1,1,0\n"
        "2024-01-08,1,2,1,1,0\n"
        "2024-01-09,1,2,1,1,10\n"
        "2024-01-09,3,4,3,3,30\n"
        "2024-01-09,nan,4,3,3,30\n"
    )
    bars = parse(tmp_path, text)
    assert values(bars) == [(1, 2, 1, 1, 10), (1, 2, 1, 1, 0), (3, 4, 3, 3, 30)]
    assert bars.quality() == {"invalid_rows": 7, "duplicate_rows": 1, "conflicting_rows": 1}
    part = bars.window(dt.date(2024, 1, 2), dt.date(2024, 1, 8))
    assert (len(part), part.quality()) == (1, {"invalid_rows": 6, "duplicate_rows": 1, "conflicting_rows": 0})


def test_the_last_file_wins(tmp_path: Path) -> None:
    bars = parse(tmp_path, HEADER + ONE, HEADER + ONE.replace("1.5", "1.25"), HEADER + ONE.replace("1.5", "1.25"))
    assert (bars.close.tolist(), bars.quality()["conflicting_rows"], bars.quality()["duplicate_rows"]) == ([1.25], 1, 1)


@pytest.mark.parametrize("text", ["", "\n", HEADER, HEADER + "\n\n", HEADER.rstrip("\n"), "\ufeff"])
def test_a_file_may_have_no_bars(tmp_path: Path, text: str) -> None:
    bars = parse(tmp_path, text)
    assert (len(bars), bars.timestamps(slice(None)), bars.dates()) == (0, [], None)
    assert parse(tmp_path, text, HEADER + ONE).timestamps(slice(None)) == ["2024-01-01T09:15:00+05:30"]


@pytest.mark.parametrize(
    "text", ["", "nan", "NaN", "-nan", "-nan(ind)", "-1.#IND", "null", "None", "N/A", "#N/A N/A", "<NA>", " "]
)
def test_missing_values_drop_their_row(tmp_path: Path, text: str) -> None:
    bars = parse(tmp_path, HEADER + ONE.replace("1.5", text) + TWO)
    assert (bars.close.tolist(), bars.quality()["invalid_rows"]) == ([2.5], 1)


def test_files_may_differ(tmp_path: Path) -> None:
    other = "Close,Low,High,Open,Volume,Datetime\n2.5,1.5,3,2,20,2024-01-01 09:20:00+05:30\n"
    assert values(parse(tmp_path, HEADER + ONE, other)) == [(1, 2, 0.5, 1.5, 10), (2, 3, 1.5, 2.5, 20)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\nopen,high,low,close,volume\n",
            ":2: there is no column 'timestamp' (there are: open, high, low, close, volume); name them with data",
        ),
        (
            "ts,o,h,low,close,vol\n",
            ":1: there are no columns 'timestamp', 'open', 'high', 'volume' (there are: ts, o, h, low, close, vol);"
            ' name them with data.columns = {timestamp = "ts", open = "o", high = "h", volume = "vol"}',
        ),
        (
            ONE + TWO,
            ":1: there is no header, this line is data already: put a line with the names of the columns above",
        ),
        (
            "1704067200000,1,2,0.5,1.5,10\n",
            ":1: there is no header, this line is data already (1704067200000 is a time in",
        ),
        ("Open,High,Low,Close,Volume,Date,close\n", ":1: the column 'close' is there twice"),
        ("nothing\n", ":1: 'nothing' is not the header of a table: it has one field"),
        ("../other/ABC.csv", ":1: '../other/ABC.csv' is not the header of a table: it seems to be the path in a link"),
        (
            HEADER + ONE + TWO.replace("2.5", "2,5"),
            ":3: 7 fields, where the header has 6: quote a field that contains the separator",
        ),
        (HEADER + ONE + "2024-01-01T09:20:00+05:30,2\n", ":3: 2 fields, where the header has 6"),
        (HEADER + ONE + ONE.replace(",10", "") + TWO.replace("20\n", "20,1\n"), ":3: 5 fields, where the header has 6"),
        (HEADER + ONE + "Source: X\n", ":3: 1 field, where the header has 6"),
        (HEADER + ONE + TWO.replace("2.5", "2.5x"), ":3: close '2.5x' is not a number"),
        (HEADER + ONE + TWO.replace("2.5", "2_5"), ":3: close '2_5' is not a number"),
        (HEADER + ONE + TWO.replace("2.5", "٢"), ":3: close '٢' is not a number"),
        (HEADER + ONE + TWO.replace("2.5", "1" * 70 + "x"), ":3: close '1111"),
        (HEADER + ONE + TWO.replace(",20\n", ",many\n"), ":3: volume 'many' is not a number"),
        (HEADER + ONE + TWO.replace(",20\n", ",7.2K\n"), ":3: volume '7.2K' is not a number; write it in full"),
        (HEADER + ONE.replace("1.5", "$1.5"), ":2: close '$1.5' is not a number; write prices without a currency"),
        (
            HEADER + ONE.replace("1.5", '"1,234.5"'),
            ":2: close '1,234.5' is not a number; write numbers without thousands",
        ),
        (
            (HEADER + ONE).replace(",", ";").replace("1.5", "1,5"),
            ":2: close '1,5' is not a number (fields are separated by ';'); set data.decimal = \",\" if"
            " that is a decimal comma",
        ),
        (HEADER + ONE + TWO.replace("01-01", "13-01"), ":3: '2024-13-01T09:20:00+05:30' is not a timestamp such as"),
        (HEADER + ONE + TWO.replace("01-01", "02-30"), ":3: '2024-02-30T09:20:00+05:30' is not a timestamp such as"),
        (HEADER + ONE + TWO.replace("2024", "0000"), ":3: '0000-01-01T09:20:00+05:30' is not a timestamp such as"),
        (HEADER + ONE + TWO.replace("09:20", "24:20"), ":3: '2024-01-01T24:20:00+05:30' is not a timestamp such as"),
        (HEADER + ONE + TWO.replace("+05:30", "+24:30"), ":3: '2024-01-01T09:20:00+24:30' is not a timestamp such as"),
        (HEADER + ONE + TWO.replace("2024-01-01T09:20:00+05:30", ""), ":3: '' is not a timestamp: it is empty"),
        (
            HEADER + "45292,1,2,0.5,1.5,10\n",
            ":2: '45292' is not a timestamp: it seems to be a spreadsheet's number of a day",
        ),
        (HEADER + "17040,1,2,0.5,1.5,10\n", ":2: '17040' is not a timestamp: read as a time since 1970"),
        (HEADER + "1.7041005E+12,1,2,0.5,1.5,10\n", ":2: '1.7041005E+12' is not a timestamp: it is a rounded number"),
        (
            HEADER + "1704100500,1,2,0.5,1.5,10\n1704100500000,1,2,0.5,1.5,10\n",
            ":2: '1704100500' is not a timestamp in milliseconds, like the others: it seems to be in seconds",
        ),
        (HEADER + "1704100500,1,2,0.5,1.5,10\n,1,2,0.5,1.5,10\n", ":3: '' is not a timestamp: it is empty"),
        (HEADER + "20240102,1,2,0.5,1.5,10\n,1,2,0.5,1.5,10\n", ":3: '' is not a timestamp: it is empty"),
        (HEADER + "1704100500.5,1,2,0.5,1.5,10\n,1,2,0.5,1.5,10\n", ":3: '' is not a timestamp: it is empty"),
        (HEADER + "1704100500.5,1,2,0.5,1.5,10\nTotal,1,2,0.5,1.5,10\n", ":3: 'Total' is not a timestamp such as"),
        (HEADER + "20240102,1,2,0.5,1.5,10\nTotal,1,2,0.5,1.5,10\n", ":3: 'Total' is not a timestamp such as"),
        (HEADER + "20240132,1,2,0.5,1.5,10\n2024-01-03,1,2,0.5,1.5,10\n", ":2: '20240132' is not a timestamp such as"),
        (
            HEADER + "1704100500,1,2,0.5,1.5,10\n2024-01-03,1,2,0.5,1.5,10\n",
            ":3: '2024-01-03' is not a timestamp in numbers, like the others: write all timestamps in one form",
        ),
        (HEADER + "1704100500,1,2,0.5,1.5,10\n-inf,1,2,0.5,1.5,10\n", ":3: '-inf' is not a timestamp"),
        (
            HEADER + "1704100500,1,2,0.5,1.5,10\n-99999999999999999999999999.0,1,2,0.5,1.5,10\n",
            ":3: '-99999999999999999999999999.0' is not a timestamp: in seconds, like the others, it is a time",
        ),
        (HEADER + "9999999999999999999,1,2,0.5,1.5,10\n", ":2: '9999999999999999999' is not a timestamp"),
        (HEADER + "1" * 30 + ",1,2,0.5,1.5,10\n", ":2: '111111111111111111111111111111' is not a timestamp"),
        (HEADER + "1704100500,1,2,0.5,1.5,10\n-nan,1,2,0.5,1.5,10\n", ":3: '-nan' is not a timestamp"),
        (HEADER + "NaT,1,2,0.5,1.5,10\n", ":2: 'NaT' is not a timestamp such as"),
        (HEADER + "today,1,2,0.5,1.5,10\n", ":2: 'today' is not a timestamp such as"),
        (
            HEADER + "01/02/2024,1,2,0.5,1.5,10\n",
            ":2: '01/02/2024' is not a timestamp: whether the day or the month comes first is not known; set"
            ' data.date_format = "%d/%m/%Y" or "%m/%d/%Y"',
        ),
        (
            HEADER + "01.02.24 09:15,1,2,0.5,1.5,10\n31.02.24 09:15,1,2,0.5,1.5,10\n",
            ":2: '01.02.24 09:15' is not a timestamp: whether the day or the month comes first is not known (other rows"
            ' tell that it is the day); set data.date_format = "%d.%m.%y %H:%M"',
        ),
        (
            HEADER + "01-Feb-2024,1,2,0.5,1.5,10\n",
            ":2: '01-Feb-2024' is not a timestamp: a month written as a name is not read;",
        ),
        (HEADER + '"Feb 1, 2024",1,2,0.5,1.5,10\n', ":2: 'Feb 1, 2024' is not a timestamp: a month written as a name"),
        (
            HEADER + "2024-02-01 9:15 AM,1,2,0.5,1.5,10\n",
            ":2: '2024-02-01 9:15 AM' is not a timestamp: a 12-hour clock is not read; set data.date_format ="
            ' "%Y-%m-%d %I:%M %p"',
        ),
        (
            "date,time,open,high,low,close,volume\n2024-01-01,9:15 AM,1,2,0.5,1.5,10\n",
            ":2: '9:15 AM' is not a timestamp: a 12-hour clock is not read; set data.date_format ="
            ' "%Y-%m-%d %I:%M %p"',
        ),
        (
            "date,time,open,high,low,close,volume\n01/13/2024,9:15,1,2,0.5,1.5,10\n",
            ":2: '01/13/2024' is not a timestamp: whether the day or the month comes first is not known (other rows"
            ' tell that it is the month); set data.date_format = "%m/%d/%Y %H:%M"',
        ),
        (
            HEADER + "20240102 09:15:00 US/Eastern,1,2,0.5,1.5,10\n",
            ":2: '20240102 09:15:00 US/Eastern' is not a timestamp: a time zone written as a name is not read; set"
            ' data.date_format = "%Y%m%d %H:%M:%S US/Eastern" and data.timezone = "US/Eastern"',
        ),
        *(
            (
                f"date,time,open,high,low,close,volume\n2024-01-01,{clock},1,2,0.5,1.5,10\n2024-01-02,,1,2,0.5,1.5,10\n",
                ":3: the time of day beside '2024-01-02' is empty",
            )
            for clock in ("09:15", "0930", "153000", "2024-01-01 09:15")
        ),
        (
            "date,time,open,high,low,close,volume\n2024-01-01 09:15,10:15,1,2,0.5,1.5,10\n",
            ":2: '2024-01-01 09:15' and the time '10:15' beside it differ; say which column",
        ),
        (
            "date,time,open,high,low,close,volume\n2024-01-01,2024-01-02 09:15,1,2,0.5,1.5,10\n",
            ":2: '2024-01-02 09:15' is not a time of day; say which column",
        ),
        (HEADER + ONE + TWO.replace("+05:30", ""), ":3: the timestamp has no UTC offset, and that of"),
        (HEADER + ONE + '"' + TWO, ":3: a quote that neither opens nor closes a field, or is never closed"),
        (HEADER + ONE + TWO.replace("2.5", '2"5'), ":3: a quote that neither opens nor closes a field"),
        (HEADER + ONE + "2024-01-01T09:20:00+05:30,2,3,1.5,\udcff,20\n", ":3: not UTF-8 text"),
        (HEADER + ONE + "\0" * 4096, ":3: 4096 zero bytes"),
        ("\udcff" + HEADER, ":1: not UTF-8 text"),
        ("# x\n" * 60 + HEADER + ONE, ": there is no header in its first 50 lines"),
        (
            "symbol," + HEADER + "AAA," + ONE + "BBB," + ONE,
            ": column 'symbol' has 2 values, and none of them is ABC: AAA, BBB: use such a value as the symbol",
        ),
    ],
)
def test_broken_files_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadData) as raised:
        bars_of([path], Reading(symbol="ABC"))
    assert with_remedy(str(raised.value), raised.value.remedy).startswith(f"{path}{message}")


def test_numbers_are_those_of_python(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    texts = [repr(float(number)) for number in np.exp(rng.normal(0, 20, 2000))]
    texts += [
        f"{number:.{digits}f}" for number, digits in zip(rng.random(2000) * 1e5, rng.integers(0, 20, 2000), strict=True)
    ]
    texts += [
        "1",
        "1.",
        ".5",
        "+1",
        "1e5",
        "1E-5",
        "9007199254740993",
        "123456789012345678",
        "0.1",
        "00000000000000001.5",
    ]
    lines = "".join(f"{1_704_100_500 + number},1,2,1,{text},1\n" for number, text in enumerate(texts))
    rows = parse_csv([write_csv(tmp_path / "a.csv", HEADER + lines)], Reading(symbol="ABC"))
    assert rows.values[3].tolist() == [float(text) for text in texts]


def test_rows_are_parsed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"2024-01-0{day},{day},{day}.25,0.{day},{day}e0,1{day}00\n" for day in range(1, 8)]
    whole = parse(tmp_path, HEADER + "".join(rows))
    monkeypatch.setattr(tables, "_BLOCK_ROWS", 3)
    assert values(parse(tmp_path, HEADER + "".join(rows))) == values(whole)
    assert values(whole)[-1] == (7.0, 7.25, 0.7, 7.0, 1700.0)
    with pytest.raises(BadData, match=r":6: low '0\.x' is not a number"):
        parse(tmp_path, HEADER + "".join(rows).replace("0.5", "0.x"))


def test_a_last_line_without_an_end(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", HEADER + ONE + TWO.rstrip("\n"))
    rows = parse_csv([path], Reading(symbol="ABC"))
    assert (len(rows), [note.kind for note in rows.notes]) == (2, ["unfinished"])
    assert rows.notes[0].text == "a.csv:3: the last line has no line end, it may have been cut off"
    path.write_text(HEADER + ONE + TWO[:-6])
    rows = parse_csv([path], Reading(symbol="ABC"))
    assert (len(rows), rows.notes[0].text) == (1, "a.csv:3: the last line is incomplete and not read")


def test_naive_bars_have_no_offset(tmp_path: Path) -> None:
    bars = parse(tmp_path, HEADER + "2024-01-01,1,2,0.5,1.5,10\n")
    assert bars.offset.tolist() == [NAIVE]
    assert bars.local.dtype == np.int64
