from __future__ import annotations

import gzip
import os
import socket
from pathlib import Path

import pytest

from gpusched.teacher import contents
from gpusched.teacher.contents import read_file
from gpusched.teacher.parsing import parse as parse_csv
from gpusched.teacher.rows import Reading
from gpusched.workload import BadData
from tests.teacher.support import HEADER

ROW = "2024-01-01,1,2,0.5,1.5,10\n"


def refused(path: Path) -> str:
    with pytest.raises(BadData) as raised:
        parse_csv([path], Reading(symbol="ABC"))
    assert str(raised.value).startswith(f"{path}:")
    return str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            gzip.compress((HEADER + ROW).encode(), mtime=0),
            "is compressed with gzip: unpack it, or rename it to end with .csv.gz",
        ),
        (b"PK\x03\x04\x14\x00", "is a ZIP archive or an Excel workbook"),
        (b"BZh91AY", "is compressed with bzip2"),
        (b"\xfd7zXZ\x00", "is compressed with xz"),
        (b"\x28\xb5\x2f\xfd\x04", "is compressed with zstd"),
        (b"PAR1\x15\x04", "is a Parquet file: rename it to end with .parquet"),
        ((HEADER + ROW).encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
        ((HEADER + ROW).encode("utf-16-le"), "is UTF-16 text: save it as UTF-8"),
        ((HEADER + ROW).encode("utf-16-be"), "is UTF-16 text: save it as UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n<html>", "is an HTML page"),
        (b"<HTML><head>", "is an HTML page"),
        (b"<?xml version='1.0'?>", "is an XML document"),
        (b'{"Note": "slow down"}', 'is a JSON document, likely an error message of an API: {"Note": "slow down"}'),
        (b"[[1, 2]]", "is a JSON document"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert words in refused(path)


def test_packed_files(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress((HEADER + ROW).encode()))
    assert parse_csv([path], Reading(symbol="ABC")).values[3].tolist() == [1.5]
    path.write_bytes(path.read_bytes()[:-10])
    assert "ends in the middle of its gzip data" in refused(path)
    path.write_bytes(gzip.compress(HEADER.encode())[:14] + b"x" * 9)
    assert "gzip data" in refused(path)
    path.write_text(HEADER)
    assert "is not sound gzip data, as its name says" in refused(path)


def test_no_file_takes_all_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse, packed = tmp_path / "A.csv", tmp_path / "A.csv.gz"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadData, match=r"A\.csv: has more than 2 GiB: give"):
        read_file(sparse)
    packed.write_bytes(gzip.compress(b"0" * 101))
    assert len(read_file(packed)) == 101
    monkeypatch.setattr(contents, "MOST_BYTES", 100)
    with pytest.raises(BadData, match=r"A\.csv\.gz: unpacks to more than 2 GiB: give"):
        read_file(packed)


def test_opening_never_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "b.csv"))
    (tmp_path / "c.csv").symlink_to("/dev/zero")
    (tmp_path / "d.csv").mkdir()
    kinds = {"a.csv": "a FIFO", "b.csv": "a socket", "c.csv": "a device", "d.csv": "a directory"}
    for name, what in kinds.items():
        with pytest.raises(BadData, match=f"is {what}, not a file of bars"):
            read_file(tmp_path / name)


def test_only_a_file_that_must_not_be_read_is_a_matter_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(error: OSError) -> None:
        def open_(*args: object) -> int:
            raise error

        monkeypatch.setattr(os, "open", open_)  # root may read everything

    path = tmp_path / "a.csv"
    refuse(PermissionError(13, "Permission denied"))
    assert refused(path) == f"{path}: Permission denied"
    refuse(OSError(5, "Input/output error"))
    with pytest.raises(OSError, match="Input/output error"):
        read_file(path)
