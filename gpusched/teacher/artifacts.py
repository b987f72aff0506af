"""The files that a window leaves; `metadata.json` is gpusched's own. The same result gives the same bytes."""

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
#: For a window of 120 rows level 1 takes 0.5 ms and 19.2 KB, level 6 1.7 ms and 18.2 KB.
_COMPRESSION = 1
#: As Python's numbers and texts, rows take ten times their bytes; the next ones find the memory of the last.
_ROWS_AT_ONCE = 500
#: The highest that every supported Python has, whichever it prefers.
_PICKLE_PROTOCOL = 5


class _Saved:
    """Unpickled, it is the booster of a model file's text.

    A booster's own pickle writes the model out once more, and depends on how the object came about.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __reduce__(self) -> tuple[type[lightgbm.Booster], tuple[Any, ...]]:
        return lightgbm.Booster, (None, None, None, self._text)


def write_artifacts(
    directory: Path, symbol: str, examples: Examples, matrix: Floats, text: str, booster: lightgbm.Booster
) -> None:
    """Write all of them. `booster` is the one that was read from `text`."""
    (directory / MODEL).write_text(text, encoding="utf-8")
    (directory / PICKLE).write_bytes(pickle.dumps(_Saved(text), _PICKLE_PROTOCOL))
    (directory / LABELS).write_bytes(_compressed(labels_csv(symbol, examples, matrix)))
    (directory / IMPORTANCE).write_text(importance_csv(booster), encoding="utf-8")


def labels_csv(symbol: str, examples: Examples, matrix: Floats) -> Iterator[bytes]:
    """A row per bar, the columns `LABEL_COLUMNS`, in pieces of the file.

    Numbers are as short as they can be; where there is no value, there is nothing.
    """
    yield ",".join(LABEL_COLUMNS).encode() + b"\n"
    bars, name = examples.bars, _quoted(symbol)
    numbers = np.column_stack([bars.open, bars.high, bars.low, bars.close, bars.volume, matrix])
    for first in range(0, len(bars), _ROWS_AT_ONCE):
        some = slice(first, first + _ROWS_AT_ONCE)
        known = zip(examples.labels[some].astype(int).tolist(), examples.returns[some].tolist(), strict=True)
        rows = [[*row, *last] for row, last in zip_longest(numbers[some].tolist(), known, fillvalue=(None, None))]
        # A tenth of the time that writing number by number takes. JSON has null for what is no number, too.
        values = msgspec.json.encode(rows)[2:-2].replace(b"null", b"").split(b"],[")
        lines = (f"{time},{name},".encode() + row for time, row in zip(bars.timestamps(some), values, strict=True))
        yield b"\n".join((*lines, b""))


def _compressed(pieces: Iterable[bytes]) -> bytes:
    """A gzip file; its header has no time."""
    compressor = zlib.compressobj(_COMPRESSION, wbits=zlib.MAX_WBITS + 16)
    return b"".join((*map(compressor.compress, pieces), compressor.flush()))


def importance_csv(booster: lightgbm.Booster) -> str:
    """A row per feature: the total gain of its splits and their number; the most important first."""
    gains = booster.feature_importance("gain").tolist()
    splits = booster.feature_importance("split").tolist()
    rows = sorted(zip(FEATURES, gains, splits, strict=True), key=lambda row: (-row[1], row[0]))
    return "".join(("feature,gain,split\n", *(f"{name},{gain!r},{split}\n" for name, gain, split in rows)))


def _quoted(symbol: str) -> str:
    return '"' + symbol.replace('"', '""') + '"' if "," in symbol or '"' in symbol else symbol
