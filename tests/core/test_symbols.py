"""The symbols that a file names, and lines that cannot be one."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gpusched.core.symbols import (
    MAX_SYMBOL_LENGTH,
    SymbolLine,
    Symbols,
    listed_symbols,
    parse_symbols,
    symbol_problem,
)


def symbols(text: str) -> tuple[str, ...]:
    found = parse_symbols(text)
    assert found.refused == ()
    return found.symbols


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("\ufeff", ""),
        ("\ufeffSBIN\nTCS", "SBIN TCS"),
        ("SBIN\r\nTCS\r\n", "SBIN TCS"),
        ("SBIN\rTCS", "SBIN TCS"),
        ("# all\n\n  SBIN  # a bank\n\t\nTCS\t#it\n#", "SBIN TCS"),
        ("M&M\nBAJAJ-AUTO\nNIFTY50\nL&T.NS\n^NSEI", "M&M BAJAJ-AUTO NIFTY50 L&T.NS ^NSEI"),
        ("z\na\nm", "z a m"),
        ("sbin\nSBIN", "sbin SBIN"),
        ("ÅÄÖ", "ÅÄÖ"),
    ],
)
def test_symbols_file(text: str, expected: str) -> None:
    assert symbols(text) == tuple(expected.split())


def test_duplicates_are_named_by_line_and_kept_once() -> None:
    found = parse_symbols("A\nB\n# B\nA # again\r\nB\nA")
    assert found.symbols == ("A", "B")
    assert [(d.symbol, d.line) for d in found.duplicates] == [("A", 4), ("B", 5), ("A", 6)]


@pytest.mark.parametrize(
    ("symbol", "reason"),
    [
        ("..", "dot"),
        (".", "dot"),
        (".hidden", "dot"),
        ("a/b", "separator"),
        ("/etc", "separator"),
        ("../x", "dot"),
        ("a\\b", "separator"),
        ("a b", "white space"),
        ("a\tb", "white space"),
        ("a\u2028b", "white space"),
        ("a\x0cb", "white space"),
        ("a\x00b", "control"),
        ("a\x1bb", "control"),
        ("a\x7f", "control"),
        ("a\u202eb", "control"),
        ("a\udc80", "control"),
        ("x" * (MAX_SYMBOL_LENGTH + 1), "longer"),
        ("AAPL,MSFT", "a comma (one symbol a line; this looks like a CSV table: its column Symbol?)"),
        ("AAPL,", "a comma"),
        ("NSE:AAPL,NSE:MSFT," * 20, "a comma"),
        ("AAPL;MSFT", "a semicolon"),
        ('"AAPL"', "a quotation mark"),
        ("'AAPL'", "a quotation mark"),
        ("“AAPL”", "a quotation mark"),
        ("AAPL|Apple", "a vertical bar"),
        ("<html>", "an angle bracket (is this an HTML page?)"),
        ("*", "a wildcard"),
        ("AAP?", "a wildcard"),
        ("BTC/USDT", "write it as its file is called: BTC_USDT or BTCUSDT?"),
        ("AAPL/", "write it as its file is called: AAPL?"),
        ("AAPL\u200b", "U+200B ZERO WIDTH SPACE at its end, which cannot be seen"),
        ("A\x07APL", "U+0007 as character 2, which cannot be seen"),
    ],
)
def test_what_cannot_be_a_symbol(symbol: str, reason: str) -> None:
    assert reason in (symbol_problem(symbol) or "")
    found = parse_symbols(f"OK\n{symbol}\nFINE")
    assert found.symbols == ("OK", "FINE")
    (refused,) = found.refused
    assert (refused.line, refused.text) == (2, symbol if len(symbol) <= 80 else symbol[:80] + "…")
    assert reason in refused.why


def test_a_comment_begins_behind_a_blank() -> None:
    """EURUSD# is another symbol than EURUSD."""
    found = parse_symbols("EURUSD#\nTCS#it\nGBPUSD #\n##A,B")
    assert found.symbols == ("GBPUSD",)
    assert [(line.line, line.text) for line in found.refused] == [(1, "EURUSD#"), (2, "TCS#it")]
    assert "# stands right behind it" in found.refused[0].why
    assert found.comments == 1


def test_what_may_be_meant_otherwise() -> None:
    assert parse_symbols("AAPL\nSymbol").doubts == ()
    (heading,) = parse_symbols("# mine\nTicker\nAAPL").doubts
    assert heading == "'Ticker' in line 2 is taken as a symbol, but looks like a heading"
    (apart,) = parse_symbols("AAPL\nO\u0308BB\nÖBB").doubts
    assert apart == "O\u0308BB in line 2 has accents as separate characters, as macOS writes file names"
    (suffix,) = parse_symbols("AAPL.csv\nMSFT.CSV").doubts
    assert suffix.startswith("AAPL.csv and 1 more look like names of files: leave the suffix out (AAPL)")


def test_a_list_of_symbols() -> None:
    found = listed_symbols(" AAPL, MSFT,,BRK.B EURUSD# AAPL,")
    assert found.symbols == ("AAPL", "MSFT", "BRK.B", "EURUSD#")
    assert found.duplicates == (SymbolLine("AAPL", 5),)
    assert [line.text for line in listed_symbols("A,../B").refused] == ["../B"]


def test_the_longest_and_the_empty_symbol() -> None:
    assert symbol_problem("x" * MAX_SYMBOL_LENGTH) is None
    assert symbol_problem("") == "it is empty"
    assert symbol_problem("L'OREAL") is None


@given(st.text(max_size=200))
def test_whatever_stands_in_a_file_no_symbol_leaves_its_directory(text: str) -> None:
    found: Symbols = parse_symbols(text)
    assert len(set(found.symbols)) == len(found.symbols)
    for symbol in found.symbols:
        assert symbol_problem(symbol) is None
        assert not {"/", "\\", "\0", "\n", "\r"} & set(symbol)
        assert symbol not in ("", ".", "..")
