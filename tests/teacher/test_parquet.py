"""pandas reads the file (with pyarrow, which the tests do not need); here it is given the content."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path

import pandas as pd
import pytest

from gpusched.teacher import parquet
from gpusched.teacher.history import load_history
from gpusched.teacher.schema import Settings
from gpusched.workload import BadData

COLUMNS = {"Open": [1.0, 2.0], "High": [2.0, 3.0], "Low": [0.5, 1.5], "Close": [1.5, 2.5], "Volume": [10, 20]}
NAIVE = pd.to_datetime(["2024-01-02", "2024-01-01"])


def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: pd.DataFrame | Exception) -> list[str]:
    def read(file: io.BytesIO) -> pd.DataFrame:
        if isinstance(frame, Exception):
            raise frame
        return frame

    monkeypatch.setattr(pd, "read_parquet", read)
    (tmp_path / "ABC.parquet").write_bytes(b"PAR1")
    bars = load_history(str(tmp_path), str(tmp_path / "cache"), "ABC", Settings()).bars
    assert sorted(bars.close.tolist()) == [1.5, 2.5]
    return bars.timestamps(slice(None))


@pytest.mark.parametrize(
    ("frame", "timestamps"),
    [
        (pd.DataFrame({"Date": NAIVE, **COLUMNS}), ["2024-01-01T00:00:00", "2024-01-02T00:00:00"]),
        (pd.DataFrame(COLUMNS, index=NAIVE), ["2024-01-01T00:00:00", "2024-01-02T00:00:00"]),
        (
            pd.DataFrame(COLUMNS, index=NAIVE.tz_localize("America/New_York").rename("when")),
            ["2024-01-01T00:00:00-05:00", "2024-01-02T00:00:00-05:00"],
        ),
        (
            pd.DataFrame({"timestamp": ["2024-01-02T09:15:00+05:30", "2024-01-01 09:15:00+05:30"], **COLUMNS}),
            ["2024-01-01T09:15:00+05:30", "2024-01-02T09:15:00+05:30"],
        ),
        (
            pd.DataFrame(
                {"Date": [20240102.0, 20240101.0], **COLUMNS, "Close": ["1.5", "2.5"], "symbol": [None, None]}
            ),
            ["2024-01-01T00:00:00", "2024-01-02T00:00:00"],
        ),
        (pd.DataFrame({"time": NAIVE, **COLUMNS}), ["2024-01-01T00:00:00", "2024-01-02T00:00:00"]),
        (
            pd.DataFrame({"date": NAIVE.strftime("%Y-%m-%d"), "time": [dt.time(9, 15)] * 2, **COLUMNS}),
            ["2024-01-01T09:15:00", "2024-01-02T09:15:00"],
        ),
        (
            pd.DataFrame(COLUMNS, index=pd.Index([1_704_153_600_000, 1_704_067_200_000], name="timestamp")),
            ["2024-01-01T00:00:00+00:00", "2024-01-02T00:00:00+00:00"],
        ),
        (
            pd.DataFrame(
                pd.DataFrame(COLUMNS).to_numpy()[[0, 1, 1]],
                columns=pd.Index(COLUMNS),
                index=pd.MultiIndex.from_tuples(
                    [("ABC", NAIVE[0]), ("ABC", NAIVE[1]), ("XYZ", NAIVE[0])], names=["symbol", "timestamp"]
                ),
            ),
            ["2024-01-01T00:00:00", "2024-01-02T00:00:00"],
        ),
        (
            pd.DataFrame(
                [[1.5, 9, 2, 9, 0.5, 9, 1, 9, 10, 9], [2.5, 9, 3, 9, 1.5, 9, 2, 9, 20, 9]],
                index=NAIVE[::-1].rename("Date"),
                columns=pd.MultiIndex.from_product(
                    [["Close", "High", "Low", "Open", "Volume"], ["ABC", "XYZ"]], names=["Price", "Ticker"]
                ),
            ),
            ["2024-01-01T00:00:00", "2024-01-02T00:00:00"],
        ),
    ],
)
def test_frames_that_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: pd.DataFrame, timestamps: list[str]
) -> None:
    assert load(tmp_path, monkeypatch, frame) == timestamps


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (ImportError("no engine"), r"ABC\.parquet: reading Parquet needs pyarrow \(pip install pyarrow\)"),
        (ValueError("no magic"), r"ABC\.parquet: cannot be read as Parquet: no magic"),
        (NotImplementedError("128 bits"), r"ABC\.parquet: cannot be read as Parquet: 128 bits"),
        (
            pd.DataFrame({"Date": NAIVE}),
            r"ABC\.parquet: there are no columns 'open', 'high', 'low', 'close' \(there are: Date\)",
        ),
        (pd.DataFrame({"Date": NAIVE, **COLUMNS, "Open": ["1.0", "2_0"]}), "parquet:2: open '2_0' is not a number"),
        (pd.DataFrame({"Date": NAIVE, **COLUMNS, "Open": ["x", "y"]}), "parquet:1: open 'x' is not a number"),
        (pd.DataFrame({"Date": [NAIVE[0], None], **COLUMNS}), "row 2 has no timestamp"),
        (pd.DataFrame({"Date": ["2024-01-01", "soon"], **COLUMNS}), "parquet:2: 'soon' is not a timestamp"),
        (
            pd.DataFrame({"Date": ["2024-01-01", "2024-01-02T00:00Z"], **COLUMNS}),
            "parquet:2: the timestamp has a UTC offset, and that of",
        ),
    ],
)
def test_what_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: pd.DataFrame | Exception, message: str
) -> None:
    with pytest.raises(BadData, match=message):
        load(tmp_path, monkeypatch, frame)


def test_a_partition_names_its_symbol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dates = iter((NAIVE, NAIVE + dt.timedelta(days=2)))
    monkeypatch.setattr(pd, "read_parquet", lambda file: pd.DataFrame({"Date": next(dates), **COLUMNS}))
    for symbol in ("ABC", "XYZ"):
        part = tmp_path / "ABC.parquet" / f"symbol={symbol}" / "part.parquet"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"PAR1")
    with pytest.raises(BadData, match="the symbol is XYZ, and ABC in"):
        load_history(str(tmp_path), str(tmp_path / "cache"), "ABC", Settings())


def test_no_file_takes_all_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(parquet, "MOST_ROWS", 1)
    pd.DataFrame({"Date": NAIVE, **COLUMNS}).to_parquet(tmp_path / "ABC.parquet")
    with pytest.raises(BadData, match=r"ABC\.parquet: has 2 rows, more than 1: give the symbol several smaller files"):
        load_history(str(tmp_path), str(tmp_path / "cache"), "ABC", Settings())


def test_an_empty_time_of_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"date": NAIVE, "time": [dt.time(9, 15), None], **COLUMNS})
    with pytest.raises(BadData, match=r"ABC\.parquet:2: the time of day beside '2024-01-01 00:00:00' is empty"):
        load(tmp_path, monkeypatch, frame)


@pytest.mark.parametrize("none", [None, float("nan"), ""])
def test_a_symbol_that_only_its_first_row_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, none: object) -> None:
    frame = pd.DataFrame({"Date": NAIVE, **COLUMNS, "symbol": pd.Series(["ABC", none], dtype=object)})
    with pytest.raises(BadData, match=r"ABC\.parquet: row 2: column 'symbol' is empty here"):
        load(tmp_path, monkeypatch, frame)


def test_headings_of_another_symbol_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    headings = pd.MultiIndex.from_product([list(COLUMNS), ["XYZ"]])
    frame = pd.DataFrame(pd.DataFrame(COLUMNS).to_numpy(), columns=headings, index=NAIVE.rename("Date"))
    monkeypatch.setattr(pd, "read_parquet", lambda file: frame)
    (tmp_path / "ABC.parquet").write_bytes(b"PAR1")
    history = load_history(str(tmp_path), str(tmp_path / "cache"), "ABC", Settings())
    assert history.notes[0].text == "the headings say XYZ"
