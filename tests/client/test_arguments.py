"""What numpy, pandas and notebooks hand to `gpusched.submit`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpusched.client.arguments import BadArgument, id_of, instant_of, of_type, params_of, plain, symbols_of

DAY = dt.date(2008, 1, 31)


class Arrow:
    """A scalar as pyarrow has it."""

    def as_py(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.int64(7), 7),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("dart"), "dart"),
        (np.arange(7, 32, 8), [7, 15, 23, 31]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Index(["A"]), ["A"]),
        (pd.Timestamp("2008-01-31"), DAY),
        (np.datetime64("2008-01-31"), DAY),
        (np.datetime64("2008-01-31T00:00", "s"), DAY),
        (dt.datetime(2008, 1, 31), DAY),
        (dt.datetime(2008, 1, 31, 12), dt.datetime(2008, 1, 31, 12)),
        (Arrow(), 7),
        ({np.str_("a"): (np.int8(1), [np.float32(0.5)])}, {"a": [1, [0.5]]}),
        (None, None),
        (Path("a"), Path("a")),
        (pd.NaT, pd.NaT),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_libraries_are_pythons_own(given: Any, expected: Any) -> None:
    found = plain(given)
    assert found is expected or (found == expected and type(found) is type(expected))


@pytest.mark.parametrize(
    "given",
    [np.array(["B", "A"]), pd.Series(["B", "A"]), ("B", "A"), iter(["B", "A"]), pd.unique(pd.Series(["B", "A", "B"]))],
    ids=lambda given: type(given).__name__,
)
def test_symbols_in_anything_that_lists_them(given: Any) -> None:
    found = symbols_of(given)
    assert found == ["B", "A"]
    assert [type(symbol) for symbol in found] == [str, str]


def test_a_set_of_symbols_has_one_order() -> None:
    """Its own is another in each process, and the same call would be another batch."""
    assert symbols_of({"D", "B", "A", "C"}) == ["A", "B", "C", "D"]
    assert symbols_of("A,B") == "A,B"
    assert symbols_of(Path("file")) == Path("file")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "symbols: expected a list of symbols, .*, got None"),
        (pd.DataFrame({"symbol": ["A"]}), "got a DataFrame"),
        ({"A": 1}, "symbols: expected a list"),
        (b"A", "symbols: expected a list"),
        (np.array("A"), "symbols: expected a list"),
        ([1, 2], r"symbols\[0\]: expected a symbol as text, got 1"),
        (np.array([["A", "B"]]), r"symbols\[0\]: expected a symbol as text, got \['A', 'B'\]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_lists_no_symbols(given: Any, told: str) -> None:
    with pytest.raises(BadArgument, match=told):
        symbols_of(given)


def test_a_sweep() -> None:
    assert params_of({"lightgbm.num_leaves": np.array([7, 15]), "b": range(2)}) == {
        "lightgbm.num_leaves": [7, 15],
        "b": [0, 1],
    }
    assert params_of(()) == []
    assert params_of(pd.DataFrame({"a": [7, 15]}).to_dict("records")) == [{"a": 7}, {"a": 15}]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"lightgbm.boosting": "dart"}, r"params\['lightgbm.boosting'\]: expected a list of values .*, got 'dart'"),
        ({"a": 7}, "expected a list of values"),
        ({"a": []}, "expected one value at least, got an empty list"),
        ({"a": [0.1, np.nan]}, r"params\['a'\]: expected numbers, got nan"),
        ([{"a": float("inf")}], r"params\[0\]\['a'\]: expected numbers, got inf"),
        ([7, 15], r"params\[0\]: expected a point such as .*, got 7"),
        (pd.DataFrame({"a": [7]}), "got a DataFrame"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_sweep(given: Any, told: str) -> None:
    with pytest.raises(BadArgument, match=told):
        params_of(given)


def test_an_instant() -> None:
    noon = dt.datetime(2008, 1, 31, 12)
    assert instant_of(None) == 0.0
    assert instant_of(noon) == instant_of(np.datetime64(noon)) == noon.timestamp()
    midnight = dt.datetime(2008, 1, 31)
    assert instant_of(DAY) == instant_of(midnight) == midnight.timestamp()
    there = dt.datetime(2008, 1, 31, tzinfo=dt.timezone(dt.timedelta(hours=9)))
    assert instant_of(there) == there.timestamp()


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (lambda: instant_of("18:00"), "not_before: expected a datetime, got '18:00'"),
        (lambda: instant_of(pd.NaT), "not_before: expected a datetime, got NaT"),
        (lambda: id_of(3), "a batch: expected its id, .*, got 3"),
        (lambda: of_type("priority", True, int, "a whole number"), "priority: expected a whole number, got True"),
        (lambda: of_type("name", 7, str, "a text"), "name: expected a text, got 7"),
    ],
)
def test_what_is_of_another_type(check: Callable[[], object], told: str) -> None:
    with pytest.raises(BadArgument, match=told):
        check()
