from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gpusched.teacher.sources import find_sources
from gpusched.workload import BadData, NoData
from tests.teacher.support import HEADER, write_csv


def found(root: Path, symbol: str, interval: str = "") -> list[str]:
    return [str(path.relative_to(root)) for path in find_sources(str(root), symbol, interval).paths]


def told(root: Path, symbol: str, interval: str = "") -> list[tuple[str, str]]:
    return [(note.kind, note.text) for note in find_sources(str(root), symbol, interval).notes]


def refused(root: Path, symbol: str, interval: str = "") -> str:
    with pytest.raises(BadData) as raised:
        find_sources(str(root), symbol, interval)
    return str(raised.value).replace(f"{root}/", "")


def missing(root: Path, symbol: str, interval: str = "") -> tuple[str, str]:
    with pytest.raises(NoData) as raised:
        find_sources(str(root), symbol, interval)
    return str(raised.value).replace(f"{root}/", ""), raised.value.remedy.replace(f"{root}/", "")


@pytest.mark.parametrize("symbol", ["M&M", "BAJAJ-AUTO", "^NSEI", "BRK.B", "EURUSD=X"])
def test_symbols_that_name_files(tmp_path: Path, symbol: str) -> None:
    write_csv(tmp_path / symbol / "1d" / "a.csv", HEADER)
    write_csv(tmp_path / f"{symbol}.csv", HEADER)
    assert found(tmp_path, symbol) == [f"{symbol}/1d/a.csv"]


@pytest.mark.parametrize("symbol", ["", "..", ".", "../x", "a/b", "/etc", "a\0b", "a\nb", ".hidden", "a b"])
def test_symbols_that_could_leave_the_root(tmp_path: Path, symbol: str) -> None:
    with pytest.raises(BadData, match="cannot be a symbol") as raised:
        find_sources(str(tmp_path), symbol, "1d")
    assert not isinstance(raised.value, NoData)


@pytest.mark.parametrize("name", ["A.csv", "A.CSV", "A.csv.gz", "A.txt", "A.parquet"])
def test_a_file_that_stands_for_a_symbol(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path / name, HEADER)
    assert found(tmp_path, "A") == found(tmp_path, "A", "5m") == [name]
    assert find_sources(str(tmp_path), "A", "").interval is None
    assert find_sources(str(tmp_path), "A", "5m").interval == "5m"


def test_a_file_that_has_two_spellings_is_one_file(tmp_path: Path) -> None:
    """So it is where case is ignored; a hard link is found in the same way."""
    write_csv(tmp_path / "A.csv", HEADER)
    (tmp_path / "A.CSV").hardlink_to(tmp_path / "A.csv")
    assert (found(tmp_path, "A"), told(tmp_path, "A")) == (["A.csv"], [])


def test_of_several_files_the_others_are_told(tmp_path: Path) -> None:
    for name in ("A.csv", "A.parquet", "A.txt"):
        write_csv(tmp_path / name, HEADER)
    assert (found(tmp_path, "A"), told(tmp_path, "A")) == (
        ["A.csv"],
        [("unread", "A.csv is read; there, but not read: A.txt, A.parquet")],
    )


@pytest.mark.parametrize(
    ("asked", "directory"),
    [
        ("1d", "1day"),
        ("daily", "1D"),
        ("5m", "5minute"),
        ("5min", "M5"),
        ("60min", "1h"),
        ("1M", "monthly"),
        ("x", "x"),
    ],
)
def test_an_interval_by_any_name(tmp_path: Path, asked: str, directory: str) -> None:
    write_csv(tmp_path / "A" / directory / "a.csv", HEADER)
    write_csv(tmp_path / "A" / "7h" / "a.csv", HEADER)
    assert found(tmp_path, "A", asked) == [f"A/{directory}/a.csv"]
    assert (find_sources(str(tmp_path), "A", asked).interval, told(tmp_path, "A", asked)) == (directory, [])


def test_the_only_interval_is_used_and_told(tmp_path: Path) -> None:
    write_csv(tmp_path / "A" / "5m" / "a.csv", HEADER)
    assert told(tmp_path, "A") == [("interval", "the interval 5m is used, --interval was not given")]
    (tmp_path / "A" / "15m").mkdir()
    assert missing(tmp_path, "A") == ("no data: A has no interval 1d (there are: 15m, 5m)", "give --interval 15m")
    write_csv(tmp_path / "A" / "1day" / "a.csv", HEADER)
    assert found(tmp_path, "A") == ["A/1day/a.csv"]
    (tmp_path / "A" / "daily").mkdir()
    assert refused(tmp_path, "A") == "A: 1day and daily are the same interval: choose with --interval"
    assert found(tmp_path, "A", "1day") == ["A/1day/a.csv"]


def test_no_file_stands_in_for_an_interval_that_is_missing(tmp_path: Path) -> None:
    write_csv(tmp_path / "A" / "1d" / "a.csv", HEADER)
    write_csv(tmp_path / "A.csv", HEADER)
    assert missing(tmp_path, "A", "5m") == ("no data: A has no interval 5m (there is: 1d)", "give --interval 1d")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "A" / "1d").mkdir(parents=True)
    write_csv(tmp_path / "A" / "1d" / "a.xlsx", "")
    (tmp_path / "B").mkdir()
    assert missing(tmp_path, "A", "1d")[0] == (
        "no data: A/1d has no .csv, .csv.gz, .txt, .parquet files (there is: a.xlsx)"
    )
    assert missing(tmp_path, "B") == ("no data: B has no interval 1d (it is empty)", "put files into B/1d")
    assert missing(tmp_path, "C", "1h") == (
        f"no data: neither C/1h nor C.csv or the like is in {tmp_path}",
        "give another --data-root",
    )
    assert missing(tmp_path / "nowhere", "A")[0] == f"no data: the data root {tmp_path}/nowhere is not a directory"


@pytest.mark.parametrize(
    ("there", "symbol", "near", "remedy"),
    [
        ("aapl.csv", "AAPL", "aapl.csv is there", "write the symbol as its file is called"),
        ("BTC_USDT.csv", "BTC-USDT", "BTC_USDT.csv is there", "write the symbol as its file is called"),
        ("RELIANCE.NS.csv", "RELIANCE", "RELIANCE.NS.csv is there", "write the symbol as its file is called"),
        ("AAPL.Csv", "AAPL", "AAPL.Csv is there", "write its suffix in lower case"),
        ("AAPL.xlsx", "AAPL", "AAPL.xlsx is there, in a format that is not read", "save it as CSV or Parquet"),
        ("AAPL.csv", "AAPL.csv", "AAPL.csv is there", "leave .csv out of the symbol"),
        ("AAPL", "AAPL", "AAPL is there, a file without a suffix", "rename it to end with .csv"),
        ("1d/AAPL.csv", "AAPL", "1d/AAPL.csv is there", "give --data-root 1d"),
        (
            "1d/2023.csv",
            "AAPL",
            "it has 1d itself, as a symbol's own directory does",
            "give the --data-root above that",
        ),
        ("symbol=AAPL/a.parquet", "AAPL", "symbol=AAPL is there", "move its files to AAPL/1d"),
        ("AAPL/2023.csv", "AAPL", "there is 1 .csv file directly in it, not read", "move them to AAPL/1d"),
    ],
)
def test_the_nearest_thing_is_named(tmp_path: Path, there: str, symbol: str, near: str, remedy: str) -> None:
    write_csv(tmp_path / there, HEADER)
    why, what_helps = missing(tmp_path, symbol)
    assert f"({near})" in why
    assert what_helps == remedy


def test_only_visible_files_of_bars_are_read_by_name(tmp_path: Path) -> None:
    for name in ("b.csv", "a.CSV", "c.csv.gz", ".a.csv", "~$b.csv", "notes.txt", "README.md", "d.parquet"):
        write_csv(tmp_path / "A" / "1d" / name, HEADER)
    (tmp_path / "A" / "1d" / "c.csv").mkdir()
    assert found(tmp_path, "A") == ["A/1d/a.CSV", "A/1d/b.csv", "A/1d/c.csv.gz", "A/1d/d.parquet"]
    assert told(tmp_path, "A") == [("unread", "there, but not read: c.csv (a directory), notes.txt")]


def test_text_files_where_there_are_no_others(tmp_path: Path) -> None:
    write_csv(tmp_path / "A" / "1d" / "a.txt", HEADER)
    assert (found(tmp_path, "A"), told(tmp_path, "A")) == (["A/1d/a.txt"], [])


def test_a_directory_of_parquet_files_is_its_parts(tmp_path: Path) -> None:
    for name in ("part.0.parquet", "year=2023/part.1.parquet", "_SUCCESS", "_metadata", ".part.2.parquet.crc"):
        write_csv(tmp_path / "A.parquet" / name, name)
    before = find_sources(str(tmp_path), "A", "")
    assert found(tmp_path, "A") == ["A.parquet/part.0.parquet", "A.parquet/year=2023/part.1.parquet"]
    write_csv(tmp_path / "A.parquet" / "year=2023" / "part.1.parquet", "another")
    assert find_sources(str(tmp_path), "A", "").digest() != before.digest()


def test_broken_links_are_told(tmp_path: Path) -> None:
    write_csv(tmp_path / "A" / "1d" / "a.csv", HEADER)
    (tmp_path / "A" / "1d" / "b.csv").symlink_to("/nowhere/b.csv")
    (tmp_path / "A" / "1d" / "c.csv").symlink_to("c.csv")
    assert told(tmp_path, "A") == [("links", "2 of 3 files are broken links and not read: b.csv, c.csv")]
    (tmp_path / "A" / "1d" / "a.csv").unlink()
    assert refused(tmp_path, "A") == "A/1d: has nothing but broken links: b.csv, c.csv"
    (tmp_path / "L").symlink_to("/nowhere/L")
    assert refused(tmp_path, "L") == "L: is a broken link, to /nowhere/L"
    (tmp_path / "I").mkdir()
    (tmp_path / "I" / "1d").symlink_to("/nowhere/1d")
    assert refused(tmp_path, "I") == "I/1d: is a broken link, to /nowhere/1d"
    (tmp_path / "P.parquet").mkdir()
    (tmp_path / "P.parquet" / "0.parquet").symlink_to("/nowhere/0.parquet")
    assert refused(tmp_path, "P") == "P.parquet/0.parquet: is a broken link, to /nowhere/0.parquet"
    (tmp_path / "B.csv").symlink_to("/nowhere/B.csv")
    assert refused(tmp_path, "B") == "B.csv: is a broken link, to /nowhere/B.csv"


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "F.csv")
    (tmp_path / "D.csv").mkdir()
    (tmp_path / "A" / "1d").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "A" / "1d" / "s.csv"))
    (tmp_path / "Z.csv").symlink_to("/dev/zero")
    assert refused(tmp_path, "F") == "F.csv: is a FIFO, not a file of bars"
    assert refused(tmp_path, "D") == "D.csv: is a directory, not a file of bars"
    assert refused(tmp_path, "A") == "A/1d/s.csv: is a socket, not a file of bars: remove it from there"
    assert refused(tmp_path, "Z") == "Z.csv: is a device, not a file of bars"


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert missing(tmp_path, "한" * 64)[0].startswith("no data: neither ")  # with its suffix 196 bytes
    assert refused(tmp_path, "\U0001d538" * 64).endswith("cannot be a symbol: no file can have so long a name")


def test_an_error_of_the_file_system_says_nothing_about_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "A.csv", HEADER)

    def fail(self: Path, *, follow_symlinks: bool = True) -> None:
        raise OSError(116, os.strerror(116))  # ESTALE, of a network file system

    monkeypatch.setattr(Path, "stat", fail)
    with pytest.raises(OSError, match="Stale"):
        find_sources(str(tmp_path), "A", "")
