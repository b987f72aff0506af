"""Files mutated at random: `parsing` reads them as the csv module, datetime and float do, or both refuse."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gpusched.teacher.bars import NAIVE
from gpusched.teacher.parsing import parse as parse_csv
from gpusched.teacher.rows import Reading, require_one_clock
from gpusched.workload import BadData
from tests.teacher import reference
from tests.teacher.reference import Row
from tests.teacher.support import HEADER, walk

READING = Reading(symbol="ABC")
BODY = """\
2024-01-01T09:15:00+05:30,100.5,101.25,99.75,100.9,1200
2024-01-01T09:20:00+05:30,100.9,101,100,100.1234567890123,0
2024-01-01T09:25:00+05:30,"100.1",101.5,1e2,nan,77
2024-01-01T09:30:00+05:30,.5,1.,0.25,1,
"""
#: characters that break files: separators, quotes, line ends, blanks, digits, letters that numbers and timestamps have
_PIECES = [
    *(
        ",",
        '"',
        '""',
        "\n",
        "\r\n",
        "\r",
        " ",
        "\t",
        "-",
        "+",
        ".",
        ":",
        ";",
        "0",
        "9",
        "1" * 20,
        "e",
        "E5",
        "_",
        "T",
        "Z",
    ),
    *("nan", "inf", "null", " UTC", "é", "\0", "\ufeff", "timestamp", HEADER, "2024-01-01", "x" * 70),
]
_MUTATION = st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(["", *_PIECES]))


def parsed(paths: list[Path]) -> list[Row] | None:
    try:
        rows = parse_csv(paths, READING)
        require_one_clock(paths, rows)
    except BadData:
        return None
    values = rows.values.T.tolist()
    return list(zip(rows.local.tolist(), rows.offset.tolist(), values, rows.line.tolist(), strict=True))


def same(one: list[Row] | None, other: list[Row] | None) -> bool:
    if one is None or other is None:
        return one is other
    return repr(one) == repr(other)  # of floats the shortest that gives them, and nan


def mutate(text: str, mutations: list[tuple[float, int, str]]) -> str:
    for where, removed, inserted in mutations:
        at = round(where * len(text))
        text = text[:at] + inserted + text[at + removed :]
    return text


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations=st.lists(_MUTATION, max_size=4))
@example(mutations=[(0.1, 0, ","), (0.9, 1, "")])
@example(mutations=[(0.2, 0, '"')])
@example(mutations=[(0.7109375, 1, "\n")])  # within quotes
@example(mutations=[(0.34375, 1, ""), (0.3359375, 3, "")])  # T0900
@example(mutations=[(0.7734375, 0, "-")])  # -nan, as printf in C writes
@example(mutations=[(0.0, 0, HEADER), (0.0, 0, "\ufeff")])
def test_one_file(tmp_path: Path, mutations: list[tuple[float, int, str]]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + mutate(BODY, mutations) + "\n", newline="")
    assert same(parsed([path]), reference.read(path))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations=st.lists(st.lists(_MUTATION, max_size=1), min_size=2, max_size=4))
def test_files_together_are_files_one_by_one(tmp_path: Path, mutations: list[list[tuple[float, int, str]]]) -> None:
    """No file is read differently for its neighbours."""
    paths = [tmp_path / f"{number}.csv" for number in range(len(mutations))]
    for path, of_path in zip(paths, mutations, strict=True):
        path.write_text(HEADER + mutate(BODY, of_path) + "\n", newline="")
    read = [reference.read(path) for path in paths]
    together = [row for rows in read for row in rows or []]
    naive = {row[1] == NAIVE for row in together}
    expected = None if None in read or len(naive) > 1 else together
    assert same(parsed(paths), expected)


@pytest.mark.parametrize("zone", [None, "Asia/Kolkata", "America/New_York", "UTC"])
@pytest.mark.parametrize("freq", ["1D", "5min"])
def test_what_pandas_writes(tmp_path: Path, zone: str | None, freq: str) -> None:
    """Sound files are read as pandas reads them, whatever it was asked to write."""
    index = pd.date_range("2023-10-20", periods=600, freq=freq, tz=zone, name="Date")
    names = ["Open", "High", "Low", "Close", "Volume"]
    frame = pd.DataFrame(walk(len(index)), index=index, columns=pd.Index(names))
    path = tmp_path / "a.csv"
    wall = index.tz_localize(None).as_unit("us").asi8
    offset = (wall - index.as_unit("us").asi8) // 1_000_000
    forms: list[tuple[str, Literal[0, 1, 2], str | None, str]] = [
        (",", csv.QUOTE_MINIMAL, None, "Date"),
        (";", csv.QUOTE_MINIMAL, "%.3f", "Date"),
        (",", csv.QUOTE_ALL, None, "Date"),
        (",", csv.QUOTE_NONNUMERIC, "%.2f", ""),
    ]
    for separator, quoting, float_format, label in forms:
        frame.to_csv(path, sep=separator, quoting=quoting, float_format=float_format, index_label=label)
        again = pd.read_csv(path, sep=separator, dtype=str)
        rows = parse_csv([path], READING)
        assert rows.values.T.tolist() == again[names].astype(float).to_numpy().tolist()
        assert rows.local.tolist() == wall.tolist()
        if zone is not None:
            assert rows.offset.tolist() == offset.tolist()
    assert not any(math.isnan(value) for value in rows.values.ravel().tolist())
