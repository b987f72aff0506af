from __future__ import annotations

import datetime as dt
import errno
import os
from pathlib import Path

import numpy as np
import pytest

from gpusched.teacher import parsing
from gpusched.teacher.bars import NAIVE, Bars
from gpusched.teacher.parsing import parse_csv
from gpusched.teacher.sources import find_sources
from gpusched.workload import BadData, NoData
from tests.teacher.support import HEADER, write_csv

ONE = "2024-01-01T09:15:00+05:30,1,2,0.5,1.5,10\n"
TWO = "2024-01-01T09:20:00+05:30,2,3,1.5,2.5,20\n"


def parse(tmp_path: Path, *texts: str) -> Bars:
    return parse_csv([write_csv(tmp_path / f"{number}.csv", text) for number, text in enumerate(texts)])


def values(bars: Bars) -> list[tuple[float, ...]]:
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.fixture(params=["together", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of parsing must give the same bars."""
    if request.param == "one by one":
        monkeypatch.setattr(parsing, "_parse_alike", lambda contents: None)


@pytest.mark.usefixtures("way")
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
    ],
)
def test_forms_that_are_understood(tmp_path: Path, text: str, timestamps: list[str] | None) -> None:
    bars = parse(tmp_path, text)
    assert bars.timestamps(slice(None)) == (timestamps or ["2024-01-01T09:15:00+05:30"])
    assert values(bars)[0] == (1, 2, 0.5, 1.5, 10)
    assert bars.quality() == {"invalid_rows": 0, "duplicate_rows": 0, "conflicting_rows": 0}


@pytest.mark.usefixtures("way")
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
    assert bars.dates() == (dt.date(2024, 11, 2), dt.date(2024, 11, 3))


@pytest.mark.usefixtures("way")
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


@pytest.mark.usefixtures("way")
def test_the_last_file_wins(tmp_path: Path) -> None:
    bars = parse(tmp_path, HEADER + ONE, HEADER + ONE.replace("1.5", "1.25"), HEADER + ONE.replace("1.5", "1.25"))
    assert (bars.close.tolist(), bars.quality()["conflicting_rows"], bars.quality()["duplicate_rows"]) == ([1.25], 1, 1)


@pytest.mark.parametrize("text", ["", "\n", HEADER, HEADER + "\n\n", HEADER.rstrip("\n"), "\ufeff"])
def test_a_file_may_have_no_bars(tmp_path: Path, text: str) -> None:
    bars = parse(tmp_path, text)
    assert (len(bars), bars.timestamps(slice(None)), bars.dates()) == (0, [], None)
    assert parse(tmp_path, text, HEADER + ONE).timestamps(slice(None)) == ["2024-01-01T09:15:00+05:30"]


@pytest.mark.parametrize("text", ["", "nan", "NaN", "null", "None", "N/A", " "])
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
            "timestamp,open,high,low,close\n",
            ":1: there is no column 'volume' (there are: timestamp, open, high, low, close)",
        ),
        (
            "\nopen,high,low,close,volume\n",
            ":2: there is no column 'timestamp' (there are: open, high, low, close, volume)",
        ),
        (ONE + TWO, ":1: there is no column 'timestamp' (there are: 2024-01-01T09:15:00+05:30, 1, 2, 0.5, 1.5, 10)"),
        (HEADER + ONE + TWO.replace("2.5", "2,5"), ":3: 7 fields, where the header has 6"),
        (HEADER + ONE + "2024-01-01T09:20:00+05:30,2\n", ":3: 2 fields, where the header has 6"),
        (HEADER + ONE + TWO.replace("2.5", "2.5x"), ":3: close '2.5x' is not a number"),
        (HEADER + ONE + TWO.replace("2.5", "2_5"), ":3: close '2_5' is not a number"),
        (HEADER + ONE + TWO.replace(",20\n", ",many\n"), ":3: volume 'many' is not a number"),
        (HEADER + ONE + TWO.replace("01-01", "13-01"), ":3: '2024-13-01T09:20:00+05:30' is not an ISO-8601 timestamp"),
        (HEADER + ONE + TWO.replace("09:20", "24:20"), ":3: '2024-01-01T24:20:00+05:30' is not an ISO-8601 timestamp"),
        (HEADER + ONE + TWO.replace("+05:30", "+24:30"), ":3: '2024-01-01T09:20:00+24:30' is not an ISO-8601"),
        (HEADER + "1704067200,1,2,0.5,1.5,10\n", ":2: '1704067200' is not an ISO-8601 timestamp"),
        (HEADER + "NaT,1,2,0.5,1.5,10\n", ":2: 'NaT' is not an ISO-8601 timestamp"),
        (HEADER + "today,1,2,0.5,1.5,10\n", ":2: 'today' is not an ISO-8601 timestamp"),
        (HEADER + "01/02/2024,1,2,0.5,1.5,10\n", ":2: '01/02/2024' is not an ISO-8601 timestamp"),
        (
            HEADER + ONE + TWO.replace("+05:30", ""),
            ":3: the timestamp '2024-01-01T09:20:00' has no UTC offset, and that of",
        ),
        (HEADER + ONE + '"' + TWO, ":3: "),
        (HEADER + ONE + "2024-01-01T09:20:00+05:30,2,3,1.5,\udcff,20\n", ":3: not UTF-8 text"),
    ],
)
def test_broken_files_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadData) as raised:
        parse_csv([path])
    assert str(raised.value).startswith(f"{path}{message}")


def test_offsets_in_some_files_only(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"1\.csv:2: the timestamp .* has no UTC offset, and that of .*0\.csv:2 has one"):
        parse(tmp_path, HEADER + ONE, HEADER + TWO.replace("+05:30", ""))
    with pytest.raises(BadData, match=r"1\.csv:2: the timestamp .* has a UTC offset, and that of .*0\.csv:2 has none"):
        parse(tmp_path, HEADER + ONE.replace("+05:30", ""), HEADER + TWO)


def test_a_file_that_must_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    path = write_csv(tmp_path / "a.csv", HEADER)
    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(BadData, match="Permission denied"):
        parse_csv([path])


def test_usual_files_are_parsed_together(tmp_path: Path) -> None:
    paths = [write_csv(tmp_path / f"{number}.csv", HEADER + ONE + TWO) for number in range(3)]
    assert parsing._parse_alike([path.read_bytes() for path in paths]) is not None


def test_naive_bars_have_no_offset(tmp_path: Path) -> None:
    bars = parse(tmp_path, HEADER + "2024-01-01,1,2,0.5,1.5,10\n")
    assert bars.offset.tolist() == [NAIVE]
    assert bars.local.dtype == np.int64


# -- finding them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", ["M&M", "BAJAJ-AUTO", "^NSEI", "BRK.B", "EURUSD=X"])
def test_symbols_that_name_files(tmp_path: Path, symbol: str) -> None:
    write_csv(tmp_path / symbol / "1d" / "a.csv", HEADER)
    write_csv(tmp_path / f"{symbol}.csv", HEADER)
    assert find_sources(str(tmp_path), symbol, "1d").paths == [tmp_path / symbol / "1d" / "a.csv"]
    assert find_sources(str(tmp_path), symbol, "5m").paths == [tmp_path / f"{symbol}.csv"]


@pytest.mark.parametrize("symbol", ["", "..", ".", "../x", "a/b", "/etc", "a\0b", "a\nb", ".hidden", "a b"])
def test_symbols_that_could_leave_the_root(tmp_path: Path, symbol: str) -> None:
    with pytest.raises(BadData, match="cannot be a symbol") as raised:
        find_sources(str(tmp_path), symbol, "1d")
    assert not isinstance(raised.value, NoData)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "A" / "1d").mkdir(parents=True)
    (tmp_path / "A" / "5m").mkdir()
    (tmp_path / "B").mkdir()
    expected = {
        ("A", "1d"): f"no data: {tmp_path}/A/1d has no .csv files",
        ("A", "1h"): f"no data: {tmp_path}/A has no interval 1h (there are: 1d, 5m)",
        ("B", "1d"): f"no data: {tmp_path}/B has no interval 1d (it is empty)",
        ("C", "1d"): f"no data: neither {tmp_path}/C/1d nor C.csv or C.parquet is in {tmp_path}",
    }
    for (symbol, interval), message in expected.items():
        with pytest.raises(NoData) as raised:
            find_sources(str(tmp_path), symbol, interval)
        assert str(raised.value) == message
    with pytest.raises(NoData, match="is not a directory"):
        find_sources(str(tmp_path / "nowhere"), "A", "1d")


def test_only_visible_csv_files_are_read_by_name(tmp_path: Path) -> None:
    for name in ("b.csv", "a.CSV", ".a.csv", "notes.txt"):
        write_csv(tmp_path / "A" / "1d" / name, HEADER)
    (tmp_path / "A" / "1d" / "c.csv").mkdir()
    assert [path.name for path in find_sources(str(tmp_path), "A", "1d").paths] == ["a.CSV", "b.csv"]
