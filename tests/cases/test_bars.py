"""Bars as people have them, in the layouts of some 25 sources, sound and broken:
bars that are read, bars that are refused, and the words for it. A wrong model is never planned without a word.

Each directory of `bars/` has `symbols.txt`, `data/`, `command.txt` and `expected.txt`, a line with the right answer.
`EXPECTED` is that line for a machine.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from tests.cases.support import look

BARS = Path(__file__).with_name("bars")


class Expected(msgspec.Struct, frozen=True):
    #: the first window of each symbol, or `refused`
    actions: tuple[str, ...]
    #: regular expressions that the output matches, in any case
    words: tuple[str, ...] = ()
    #: bars of the first window; None: as many as may be
    bars: int | None = None


def trains(bars: int, *words: str) -> Expected:
    return Expected(("train",), words, bars)


def fails(*words: str) -> Expected:
    return Expected(("fail",), words)


def skips(*words: str) -> Expected:
    return Expected(("skip",), words)


EXPECTED = {
    "alphavantage-rate-limit-body": fails("JSON"),
    "binance-futures-header": fails(r"volume '38534\.0\.5' is not a number"),  # its times, in milliseconds, are read
    "broken-symlink": trains(100, r"2023-Q2\.csv"),
    "ccxt-epoch-ms": trains(129),
    "commas-compensate": fails(r"AAPL\.csv:11"),
    "comment-lines-above": trains(129),
    "compact-dates": trains(129),
    "csv-is-a-directory": fails("directory"),
    "date-and-time-columns": trains(200),
    "dst-naive-fall-back": trains(215, "conflict"),
    "dukascopy-gmt-time": fails(r"02\.01\.2023|Gmt time", r"data\.(date_format|columns)"),
    "duplicate-column-names": fails("close", "twice"),
    "duplicates-at-session-change": trains(216, "conflict"),
    "empty-open-column": Expected(("fail",), ("129", "open")),
    "excel-lock-file": trains(129),
    "excel-semicolon-decimal-comma": fails(r"data\.decimal"),
    "firstrate-headerless": fails("header"),
    "gzip-content-named-csv": fails("gzip"),
    "gzip-flat": trains(129),
    "high-below-low": trains(129, "129 rows"),
    "html-error-page": fails("HTML"),
    "ib-tws-dates": fails("20230102 09:15:00 US/Eastern", r"data\.date_format"),
    "index-file-in-directory": fails(r"index\.csv"),
    "interval-1day-default-1d": trains(129, "1day"),
    "interval-fallback-flat": fails("5minute", "1 day|daily"),
    "interval-mixed-in-one-dir": fails(r"15min\.csv"),
    "long-format-many-symbols": trains(75, "symbol"),
    "lower-case-on-disk": skips(r"aapl\.csv"),
    "mixed-naive-and-offset-files": fails(r"a\.csv", r"b\.csv"),
    "mostly-invalid": trains(65, "64 of 129"),
    "mt4-date-time": trains(200),
    "nasdaq-dollar-signs": fails("06/29/2023|day|month"),
    "negative-prices": trains(126, "3 of 129"),
    "no-interval-directory": skips(r"\.csv"),
    "no-volume-column-fx-index": trains(129, "volume"),
    "nse-bhavcopy-all-symbols": fails("volume"),
    "nul-tail": fails("zero bytes"),
    "overlap-adjusted-differently": fails("20", r"2023-01_04\.csv", r"2023-03_06\.csv"),
    "partial-last-line": trains(128, "last line"),
    "partial-last-volume": trains(129, "last line|newline"),
    "pq-directory": trains(129),
    "pq-epoch-ms-index": fails("1672617600000", "index", "timestamp"),
    "pq-long-symbol-column": trains(129, "symbol"),
    "pq-nulls": trains(125, "4 of 129"),
    "pq-rangeindex-time-column": trains(129),
    "pq-yfinance-multiindex": trains(129),
    "price-dot-thousands": fails(r"1\.505,32", r"data\.decimal"),
    "root-is-symbol-dir": skips("--data-root"),
    "slash-iso-dates": trains(129),
    "symbol-with-slash": Expected(("refused",), (r"symbols\.txt:2", "its file is called", "BTC_USDT")),
    "tradingview-export-iso": trains(129),
    "tushare": fails("vol"),
    "txt-extension": trains(129),
    "unnamed-index": trains(129),
    "us-dates": fails("01/02/2023", "day|month"),
    "utc-midnight-ist-daily": trains(129, "18:30"),
    "volume-all-empty": trains(129, "volume"),
    "volume-in-K-M": fails(r"38\.53K"),
    "yfinance-download": trains(129),
    "zero-open-high-low": trains(99, "30 of 129"),
}


def test_every_case_is_expected_to_come_to_something() -> None:
    assert sorted(path.name for path in BARS.iterdir()) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_bars(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("pq-"):
        pytest.importorskip("pyarrow", reason="Parquet is read with pyarrow")
    monkeypatch.chdir(BARS / name)
    expected, seen = EXPECTED[name], look(BARS / name, tmp_path)
    assert seen.actions == expected.actions, seen
    assert expected.bars in (None, seen.bars[0] if seen.bars else None), seen
    for words in expected.words:
        assert re.search(words, seen.said, re.IGNORECASE), f"{words!r} is not said: {seen.said}"
