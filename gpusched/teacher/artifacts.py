"""The files that a window leaves, except gpusched's own `metadata.json`. The same result gives the same bytes."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np

from gpusched.teacher.bars import Floats
from gpusched.teacher.examples import Examples
from gpusched.teacher.features import FEATURES

MODEL = "model.txt"
PICKLE = "model.pkl"
LABELS = "labels.csv.gz"
IMPORTANCE = "feature_importance.csv"

LABEL_COLUMNS = ("ts", "symbol", "open", "high", "low", "close", "volume", *FEATURES, "label", "forward_return")
#: gzip level. For a window of 120 rows, level 1 takes 0.5 ms and 19.2 KB, level 6 takes 1.7 ms and 18.2 KB.
_COMPRESSION = 1
#: Rows that are converted at a time. Python's numbers and texts take ten times the memory of the arrays; each block
#: reuses the memory of the one before.
_ROWS_AT_ONCE = 500
#: The highest protocol of every supported Python: a Python's own default could give other bytes.
_PICKLE_PROTOCOL = 5


class _Saved:
    """A stand-in for a booster that unpickles to the booster of a model file's text.

    A booster's own pickle writes the model out once more, and depends on how the object was made.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __reduce__(self) -> tuple[type[lightgbm.Booster], tuple[Any, ...]]:
        return lightgbm.Booster, (None, None, None, self._text)


def write_artifacts(
    directory: Path, symbol: str, examples: Examples, matrix: Floats, text: str, booster: lightgbm.Booster
) -> None:
    """Write all files. `booster` is the model that was read from `text`."""
    (directory / MODEL).write_text(text, encoding="utf-8")
    (directory / PICKLE).write_bytes(pickle.dumps(_Saved(text), _PICKLE_PROTOCOL))
    (directory / LABELS).write_bytes(_compressed(labels_csv(symbol, examples, matrix)))
    (directory / IMPORTANCE).write_text(importance_csv(booster), encoding="utf-8")


def labels_csv(symbol: str, examples: Examples, matrix: Floats) -> Iterator[bytes]:
    """Return the labels file in pieces: a row per bar, with the columns `LABEL_COLUMNS`.

    Numbers have the fewest digits that give the same number again; a missing value is an empty field.
    """
    yield ",".join(LABEL_COLUMNS).encode() + b"\n"
    bars, name = examples.bars, _quoted(symbol)
    numbers = np.column_stack([bars.open, bars.high, bars.low, bars.close, bars.volume, matrix])
    for first in range(0, len(bars), _ROWS_AT_ONCE):
        block = slice(first, first + _ROWS_AT_ONCE)
        labelled = zip(examples.labels[block].astype(int).tolist(), examples.returns[block].tolist(), strict=True)
        rows = [[*row, *last] for row, last in zip_longest(numbers[block].tolist(), labelled, fillvalue=(None, None))]
        # Encoding the block as JSON takes a tenth of the time of formatting each number. JSON has null for NaN, too.
        values = msgspec.json.encode(rows)[2:-2].replace(b"null", b"").split(b"],[")
        lines = (f"{time},{name},".encode() + row for time, row in zip(bars.timestamps(block), values, strict=True))
        yield b"\n".join((*lines, b""))


def _compressed(pieces: Iterable[bytes]) -> bytes:
    """Return a gzip file whose header has no time, so that equal contents give equal bytes."""
    compressor = zlib.compressobj(_COMPRESSION, wbits=zlib.MAX_WBITS + 16)
    return b"".join((*map(compressor.compress, pieces), compressor.flush()))


def importance_csv(booster: lightgbm.Booster) -> str:
    """Return a row per feature: the total gain of its splits and their number; the most important feature first."""
    gains = booster.feature_importance("gain").tolist()
    splits = booster.feature_importance("split").tolist()
    rows = sorted(zip(FEATURES, gains, splits, strict=True), key=lambda row: (-row[1], row[0]))
    return "".join(("feature,gain,split\n", *(f"{name},{gain!r},{split}\n" for name, gain, split in rows)))


def _quoted(symbol: str) -> str:
    return '"' + symbol.replace('"', '""') + '"' if "," in symbol or '"' in symbol else symbol
