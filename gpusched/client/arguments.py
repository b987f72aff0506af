"""The arguments of a program: values that numpy, pandas and notebooks hand to `gpusched.submit`, as Python's own.

None of the libraries is imported: their values tell by themselves what they stand for.
"""

from __future__ import annotations

import datetime as dt
import math
import os
from collections.abc import Iterable, Mapping, Set
from typing import Any, TypeVar

from gpusched.client.sweep import Params
from gpusched.errors import UsageError

Kind = TypeVar("Kind")


class BadArgument(UsageError):
    problem = "{name}: expected {wanted}, got {given}"
    remedy = "`help(gpusched.submit)` has an example"


def plain(value: Any) -> Any:
    """A value, or those in it, as Python's own: numbers and arrays of numpy, columns of pandas, a day without a time.

    What it does not know it leaves to whoever checks the value.
    """
    match value:
        case str():
            return str(value)  # `numpy.str_` is one, and so is a member of an enumeration
        case None | bool():
            return value
        case dt.datetime() if value == value and value.time() == dt.time():  # NaT is no time, and not itself
            return value.date()
        case Mapping():
            return {plain(key): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
    for name in ("tolist", "to_list", "as_py"):  # of numpy and pandas, Polars, Arrow
        if callable(convert := getattr(value, name, None)):
            return plain(convert())
    return value


def symbols_of(given: Any) -> str | os.PathLike[str] | list[str]:
    """The symbols of a program: a text, a file, or a list. Raises BadArgument."""
    if isinstance(given, str):
        return str(given)
    if isinstance(given, os.PathLike):
        return given
    symbols = _listed(given, "symbols", 'a list of symbols, a text such as "AAPL,MSFT" or the Path of a file')
    for number, symbol in enumerate(symbols):
        if not isinstance(symbol, str):
            raise BadArgument(name=f"symbols[{number}]", wanted="a symbol as text", given=_shown(symbol))
    return symbols


def of_type(name: str, given: Any, kind: type[Kind], wanted: str) -> Kind | None:
    """An argument that may be None. Raises BadArgument if it is neither that nor of the type."""
    if given is not None and (not isinstance(given, kind) or isinstance(given, bool)):
        raise BadArgument(name=name, wanted=wanted, given=_shown(given))
    return given


def require_one_of(name: str, given: Any, known: tuple[str, ...]) -> None:
    """Raise BadArgument unless an argument is one of the known."""
    if given not in known:
        raise BadArgument(name=name, wanted=" or ".join(map(repr, known)), given=_shown(given))


def id_of(given: Any) -> str:
    """The id of a batch. Raises BadArgument."""
    if not isinstance(given, str):
        raise BadArgument(name="a batch", wanted="its id, as `gpusched status` lists them", given=_shown(given))
    return str(given)


def params_of(given: Any) -> Params:
    """A sweep: values by setting, or points one by one. Raises BadArgument."""
    if isinstance(given, Mapping):
        return {plain(key): _values(f"params[{key!r}]", values) for key, values in given.items()}
    points = _listed(given, "params", "lists of values by setting, or a list of points")
    for number, point in enumerate(points):
        if not isinstance(point, dict):
            wanted = "a point such as {'labels.horizon': 5}"
            raise BadArgument(name=f"params[{number}]", wanted=wanted, given=_shown(point))
        for key, value in point.items():
            _refuse_nan(f"params[{number}][{key!r}]", value)
    return points


def _values(name: str, given: Any) -> list[Any]:
    values = _listed(given, name, "a list of values such as [15, 31]")
    if not values:
        raise BadArgument(name=name, wanted="one value at least", given="an empty list")
    for value in values:
        _refuse_nan(name, value)
    return values


def _refuse_nan(name: str, value: Any) -> None:
    """Raise BadArgument for a number that JSON does not have, where it would become null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise BadArgument(name=name, wanted="numbers", given=value)


def _listed(given: Any, name: str, wanted: str) -> list[Any]:
    """The elements of a list, an array or a column.

    A text would be its characters, a table the names of its columns, and a set another order in each process.
    """
    is_table = isinstance(given, Mapping) or hasattr(given, "columns")
    if isinstance(given, str | bytes) or is_table or not isinstance(given, Iterable):
        raise BadArgument(name=name, wanted=wanted, given=_shown(given))
    if isinstance(given, Set):
        given = sorted(given, key=repr)
    values = plain(given if hasattr(given, "tolist") else list(given))
    if not isinstance(values, list):  # an array without a dimension
        raise BadArgument(name=name, wanted=wanted, given=_shown(values))
    return values


def instant_of(given: Any) -> float:
    """Unix time of `not_before`; 0: at once. Raises BadArgument."""
    value = plain(given)
    if value is None:
        return 0.0
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = given if isinstance(given, dt.datetime) else dt.datetime.combine(value, dt.time())
    try:
        return float(value.timestamp())
    except (AttributeError, ValueError, OverflowError):
        raise BadArgument(name="not_before", wanted="a datetime", given=_shown(given)) from None


def _shown(given: Any) -> str:
    """A value in few words: of a large one its type."""
    text = repr(given)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(given).__name__}"
