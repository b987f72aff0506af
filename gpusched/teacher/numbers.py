"""Parse prices and volumes from characters: the same number as Python's `float`, to the last bit."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from gpusched.teacher.bars import Floats, Integers
from gpusched.teacher.tables import Characters, Table, as_bytes
from gpusched.workload import BadData

#: texts that exports write for a missing number; in the second line, what printf in C writes on several platforms
_MISSING = {"", "nan", "null", "none", "na", "n/a", "#na", "#n/a", "#n/a n/a", "<na>", "nat", "-", "--"}
_MISSING |= {"-nan", "+nan", "-nan(ind)", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}
#: most decimal digits of an integer that a float is sure to hold exactly; powers of ten are exact up to 10^22
_EXACT_DIGITS = 15
_POWERS = 10.0 ** np.arange(23)
_ZERO, _NINE, _DOT, _COMMA, _PLUS, _MINUS = b"09.,+-"
_ONE_NUMBER = re.compile(r"[-+]?([\d.]+([eE][-+]?\d+)?|inf|infinity)", re.ASCII | re.IGNORECASE)
_PLAIN = np.zeros(256, bool)
_PLAIN[list(b"0123456789.+-eE\0")] = True


def floats(table: Table, columns: Sequence[tuple[int, str]], decimal: str) -> Floats:
    """Parse columns of numbers, given by their places and names: (columns, rows), NaN for a missing number.

    Raises BadData with the first field that is something else. All columns are parsed at once: a call of numpy takes as
    long as a thousand characters.
    """
    characters = table.characters(*(column for column, _ in columns))
    if decimal == ",":
        dots = characters == _DOT
        if dots.any():
            which, row = divmod(int(dots.any(axis=0).argmax()), len(table))
            column, name = columns[which]
            raise BadData(
                f"{table.place(row)}: {name} {table.shown(row, column)} has a dot, and data.decimal is a comma",
                remedy="write numbers without thousands separators",
            )
        characters[characters == _COMMA] = _DOT
    numbers, others = _decimals(characters)
    for place in _long(characters, numbers, others).tolist():
        which, row = divmod(place, len(table))
        column, name = columns[which]
        numbers[place] = _number(table, row, column, name, decimal)
    return numbers.reshape(len(columns), len(table))


def _decimals(characters: Characters) -> tuple[Floats, Integers]:
    """Parse plain decimals of at most `_EXACT_DIGITS` digits; also return the rows of all other fields.

    An integer below 2^53 and a power of ten up to 10^22 are exact floats, so their quotient is rounded only once, to
    the nearest float (Clinger, "How to Read Floating Point Numbers Accurately", 1990).
    """
    rows = characters.shape[1]
    integer = np.zeros(rows, np.int64)
    digits = np.zeros(rows, np.int8)
    decimals = np.zeros(rows, np.int8)
    dots = np.zeros(rows, np.int8)
    width = np.zeros(rows, np.int8)
    for position in characters:
        digit = position - np.uint8(_ZERO)
        is_digit = digit < 10
        # Overflows only if there are too many digits; `_long` reads those fields.
        integer = np.where(is_digit, integer * 10 + digit, integer)
        digits += is_digit
        decimals += is_digit & (dots > 0)
        dots += position == _DOT
        width += position != 0
    negative = characters[0] == _MINUS if len(characters) else np.zeros(rows, bool)
    signed = negative | (characters[0] == _PLUS) if len(characters) else negative
    usual = (digits > 0) & (digits <= _EXACT_DIGITS) & (dots <= 1) & (digits + dots + signed == width)
    numbers = np.where(usual, integer, 0) / _POWERS[np.where(usual, decimals, 0)]
    np.negative(numbers, out=numbers, where=negative)
    return numbers, np.flatnonzero(~usual)


def _long(characters: Characters, numbers: Floats, rows: Integers) -> Integers:
    """Fill in the numbers that have many digits or an exponent; return the rows of the fields that are left."""
    others = characters[:, rows]
    plain = _PLAIN[others].all(axis=0) & ((others != 0).sum(axis=0) > 1)
    try:
        if plain.any():
            numbers[rows[plain]] = as_bytes(others[:, plain]).astype(np.float64)
    except ValueError:  # one of them is no number
        return rows
    left: Integers = rows[~plain]
    return left


def _number(table: Table, row: int, column: int, name: str, decimal: str) -> float:
    written = table.field(row, column)
    text = written.replace(",", ".") if decimal == "," else written
    if text.lower() in _MISSING:
        return math.nan
    try:
        # Python also takes 1_000, other scripts' digits and line ends, which would hide a broken file.
        return float(text if _ONE_NUMBER.fullmatch(text) else "?")
    except ValueError:
        separated = f" (fields are separated by {table.separator!r})" if table.separator != "," else ""
        raise BadData(
            f"{table.place(row)}: {name} {table.shown(row, column)} is not a number{separated}", remedy=_remedy(written)
        ) from None


def _remedy(text: str) -> str:
    plain = "".join(text.split())
    if re.fullmatch(r"[-+]?\d{1,3},\d{3}", plain):
        return 'write it without a thousands separator, or set data.decimal = "," if that is a decimal comma'
    if plain.count(",") == 1 and "." not in plain and plain.replace(",", "").isdigit():
        return 'set data.decimal = "," if that is a decimal comma'
    if "," in plain or "'" in plain or (plain != text and plain.replace(".", "").isdigit()):
        return "write numbers without thousands separators (data.decimal says which character is the decimal point)"
    if plain[:1] in "$€£₹¥":
        return "write prices without a currency"
    if plain[-1:].upper() in ("K", "M", "B") and plain[:-1].replace(".", "").isdigit():
        return "write it in full, without K, M or B"
    return ""
