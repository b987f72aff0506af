"""Bars whose columns, timestamps, decimals or symbols have another form."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpusched.teacher.bars import VALUES
from gpusched.teacher.parsing import parse as parse_csv
from gpusched.teacher.rows import Reading
from gpusched.workload import BadData
from tests.teacher.parsing import ONE, TWO, bars_of, parse, values
from tests.teacher.support import HEADER, write_csv


def test_offsets_in_some_files_only(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"1\.csv:2: the timestamp has no UTC offset, and that of .*0\.csv:2 has one"):
        parse(tmp_path, HEADER + ONE, HEADER + TWO.replace("+05:30", ""))
    with pytest.raises(BadData, match=r"1\.csv:2: the timestamp has a UTC offset, and that of .*0\.csv:2 has none"):
        parse(tmp_path, HEADER + ONE.replace("+05:30", ""), HEADER + TWO)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("Gmt time,Open,High,Low,Close,Vol\n", {"timestamp": "Gmt time", "volume": "vol"}),
        ("day,hour,open,high,low,close,volume\n", {"timestamp": "day", "time": "hour"}),
        ("a,b,c,d,e,f\n", dict(zip(("timestamp", *VALUES), "abcdef", strict=True))),
    ],
)
def test_columns_by_other_names(tmp_path: Path, text: str, columns: dict[str, str]) -> None:
    row = "2024-01-01,09:15,1,2,0.5,1.5,10\n" if "hour" in text else "2024-01-01 09:15,1,2,0.5,1.5,10\n"
    bars = bars_of([write_csv(tmp_path / "a.csv", text + row)], Reading(symbol="ABC", columns=columns))
    assert (bars.timestamps(slice(None)), values(bars)) == (["2024-01-01T09:15:00"], [(1, 2, 0.5, 1.5, 10)])


@pytest.mark.parametrize(
    ("header", "fields", "role", "expected"),
    [
        ("timestamp,open,high,low,close,volume", "2024-01-01,1,2,0.5,1.5,10", "volume", (1, 2, 0.5, 1.5, 0)),
        ("symbol,timestamp,open,high,low,close,volume", "CL,2024-01-01,1,2,0.5,1.5,10", "symbol", (1, 2, 0.5, 1.5, 10)),
        ("date,time,open,high,low,close,volume", "2024-01-01,late,1,2,0.5,1.5,10", "time", (1, 2, 0.5, 1.5, 10)),
    ],
)  # fmt: skip
def test_a_column_that_is_no_column_of_that_role(
    tmp_path: Path, header: str, fields: str, role: str, expected: tuple[float, ...]
) -> None:
    path = write_csv(tmp_path / "a.csv", f"{header}\n{fields}\n")
    bars = bars_of([path], Reading(symbol="ABC", columns={role: ""}))
    assert (bars.timestamps(slice(None)), values(bars)) == (["2024-01-01T00:00:00"], [expected])


@pytest.mark.parametrize("role", ["timestamp", "open", "high", "low", "close"])
def test_a_column_that_bars_need_cannot_be_left_out(tmp_path: Path, role: str) -> None:
    path = write_csv(tmp_path / "a.csv", HEADER + ONE)
    with pytest.raises(BadData, match=f"there is no column '', which data.columns names for {role}"):
        bars_of([path], Reading(symbol="ABC", columns={role: ""}))


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", HEADER)
    with pytest.raises(
        BadData, match=r"no column 'volum', which data\.columns names for volume; did you mean 'volume'"
    ):
        bars_of([path], Reading(symbol="ABC", columns={"volume": "volum"}))


@pytest.mark.parametrize(
    ("text", "date_format", "timestamp"),
    [
        ("01/02/2024 09:15", "%d/%m/%Y %H:%M", "2024-02-01T09:15:00"),
        ("01/02/2024 09:15", "%m/%d/%Y %H:%M", "2024-01-02T09:15:00"),
        ("01-Feb-2024", "%d-%b-%Y", "2024-02-01T00:00:00"),
        ("2024-02-01 9:15 PM", "%Y-%m-%d %I:%M %p", "2024-02-01T21:15:00"),
        ("01.02.2024 09:15:00 +0530", "%d.%m.%Y %H:%M:%S %z", "2024-02-01T09:15:00+05:30"),
    ],
)
def test_timestamps_of_another_form(tmp_path: Path, text: str, date_format: str, timestamp: str) -> None:
    path = write_csv(tmp_path / "a.csv", HEADER + f"{text},1,2,0.5,1.5,10\n")
    bars = bars_of([path], Reading(symbol="ABC", date_format=date_format))
    assert bars.timestamps(slice(None)) == [timestamp]
    path.write_text(HEADER + "2024,1,2,0.5,1.5,10\n")
    with pytest.raises(BadData, match=r"a\.csv:2: '2024' is not a timestamp of the form data\.date_format = "):
        bars_of([path], Reading(symbol="ABC", date_format=date_format))


def test_decimal_commas(tmp_path: Path) -> None:
    text = (HEADER + ONE).replace(",", ";").replace("0.5", "0,5").replace("1.5", "1,5000000000000000001")
    bars = bars_of([write_csv(tmp_path / "a.csv", text)], Reading(symbol="ABC", decimal=","))
    assert values(bars) == [(1, 2, 0.5, 1.5, 10)]
    path = write_csv(tmp_path / "b.csv", text.replace(";2;", ";1.234,5;"))
    with pytest.raises(BadData, match=r"b\.csv:2: high '1\.234,5' has a dot, and data\.decimal is a comma"):
        bars_of([path], Reading(symbol="ABC", decimal=","))


def test_a_symbol_has_its_own_rows(tmp_path: Path) -> None:
    text = "symbol," + HEADER + "AAA," + ONE.replace("1.5", "9") + "ABC," + ONE + "BBB," + ONE.replace("1.5", "8")
    rows = parse_csv([write_csv(tmp_path / "a.csv", text)], Reading(symbol="ABC"))
    assert (rows.values[3].tolist(), rows.line.tolist()) == ([1.5], [3])
    assert [note.text for note in rows.notes] == ["column 'symbol' has 3 values: the 1 rows of ABC are read, of 3"]
    rows = parse_csv([tmp_path / "a.csv"], Reading(symbol="bbb"))
    assert rows.values[3].tolist() == [8]


def test_a_symbol_that_only_its_first_row_names_is_not_guessed(tmp_path: Path) -> None:
    text = "symbol," + HEADER + "ABC," + ONE + "," + TWO + '"",' + TWO.replace("09:20", "09:25")
    path = write_csv(tmp_path / "a.csv", text)
    with pytest.raises(BadData, match=r"a\.csv:3: column 'symbol' is empty here, and in 1 more of 3 rows"):
        parse_csv([path], Reading(symbol="ABC"))
    path = write_csv(tmp_path / "a.csv", text.replace("ABC,", ","))
    assert len(parse_csv([path], Reading(symbol="ABC"))) == 3
