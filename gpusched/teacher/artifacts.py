"""The files that a window leaves, except gpusched's own `metadata.json`. The same result gives the same bytes."""

from __future__ import annotations

import pickle
import sys
import zlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from gpusched import files
from gpusched.teacher.bars import Floats
from gpusched.teacher.booster import Booster as Model
from gpusched.teacher.common import Common
from gpusched.teacher.examples import Examples
from gpusched.teacher.features import FEATURES
from gpusched.teacher.training import Trained

MODEL = "model.txt"
PICKLE = "model.pkl"
LABELS = "labels.csv.gz"
PREDICTIONS = "predictions.csv.gz"
IMPORTANCE = "feature_importance.csv"

LABEL_COLUMNS = ("ts", "symbol", "open", "high", "low", "close", "volume", *FEATURES, "label", "forward_return")
PREDICTION_COLUMNS = ("ts", "split", "label", "probability")
#: the fields `split` and `label` of a prediction, by the use of its row
_USES = (b",", b",0", b",1", b"train,0", b"train,1", b"validation,0", b"validation,1")
#: gzip level. For a window of 120 rows, level 1 takes 0.5 ms and 19.2 KB, level 6 takes 1.7 ms and 18.2 KB.
_COMPRESSION = 1
#: Rows that are converted at a time. Python's numbers and texts take ten times the memory of the arrays; each block
#: reuses the memory of the one before.
_ROWS_AT_ONCE = 500
#: The highest protocol of every supported Python: a Python's own default could give other bytes.
_PICKLE_PROTOCOL = 5


class Booster:
    """A stand-in for the class of LightGBM's Python package, which is not imported here: a pickle names its class."""

    __module__ = "lightgbm.basic"


class _Saved:
    """A stand-in for a booster that unpickles to the booster of a model file's text.

    A booster's own pickle writes the model out once more, and depends on how the object was made.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __reduce__(self) -> tuple[type[Booster], tuple[Any, ...]]:
        return Booster, (None, None, None, self._text)


def pickled(text: str) -> bytes:
    """The pickle of the booster of a model file's text, which only LightGBM's Python package can read."""
    # pickle looks in the loaded modules whether the class's name leads to the class.
    stand_ins = {name: ModuleType(name) for name in ("lightgbm", Booster.__module__)}
    vars(stand_ins[Booster.__module__])[Booster.__name__] = Booster
    loaded = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        return pickle.dumps(_Saved(text), _PICKLE_PROTOCOL)
    finally:
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(loaded)


def write_artifacts(
    directory: Path,
    symbol: str,
    examples: Examples,
    trained: Trained,
    probabilities: Floats,
    common: Common,
) -> None:
    """Write all files. `probabilities` is (n,): the model's for each of the n bars."""
    files.create(directory / MODEL, trained.text.encode())
    files.create(directory / PICKLE, pickled(trained.text))
    whole = common.labels_file
    labels, predictions = _Gzip(), _Gzip()
    rows = tables(symbol, examples, common.features, probabilities, with_labels=whole is None)
    for label_rows, prediction_rows in rows:
        labels.add(label_rows)
        predictions.add(prediction_rows)
    if whole is None:
        whole = labels.whole()
        common.give(whole)
    files.create(directory / LABELS, whole)
    files.create(directory / PREDICTIONS, predictions.whole())
    files.create(directory / IMPORTANCE, _importance_csv(trained.booster).encode())


def tables(
    symbol: str, examples: Examples, matrix: Floats, probabilities: Floats, *, with_labels: bool = True
) -> Iterator[tuple[bytes, bytes]]:
    """Return the labels file and the predictions file in pieces; both have a row for each bar.

    `with_labels=False`: the labels file is known already, so its rows, which are most of the work, are left out.
    Numbers have the fewest digits that give the same number again; a missing value is an empty field. The `split` of a
    prediction is train or validation, or empty for a row in neither: purged, or, at the end, without a label yet.
    """
    yield _header(LABEL_COLUMNS), _header(PREDICTION_COLUMNS)
    bars, name = examples.bars, _quoted(symbol)
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume, matrix)
    numbers = np.column_stack(columns) if with_labels else None
    uses = _uses(examples)
    for first in range(0, len(bars), _ROWS_AT_ONCE):
        block = slice(first, first + _ROWS_AT_ONCE)
        times = [time.encode() for time in bars.timestamps(block)]
        chances = msgspec.json.encode(probabilities[block].tolist())[1:-1].split(b",")
        yield (
            b"" if numbers is None else _label_rows(times, name, numbers[block], examples, block),
            b"".join(
                b"%b,%b,%b\n" % (time, _USES[use], chance)
                for time, use, chance in zip(times, uses[block].tolist(), chances, strict=True)
            ),
        )


def _label_rows(times: list[bytes], name: bytes, numbers: Floats, examples: Examples, block: slice) -> bytes:
    """A block of the labels file; `numbers` are those before the label."""
    labelled = zip(examples.labels[block].astype(int).tolist(), examples.returns[block].tolist(), strict=True)
    rows = [[*row, *last] for row, last in zip_longest(numbers.tolist(), labelled, fillvalue=(None, None))]
    # Encoding the block as JSON takes a tenth of the time of formatting each number. JSON has null for NaN, too.
    values = msgspec.json.encode(rows)[2:-2].replace(b"null", b"").split(b"],[")
    return b"".join(b"%b,%b,%b\n" % (time, name, row) for time, row in zip(times, values, strict=True))


def _header(columns: tuple[str, ...]) -> bytes:
    return ",".join(columns).encode() + b"\n"


def _uses(examples: Examples) -> npt.NDArray[np.int8]:
    """(n,) the index in `_USES` of each bar."""
    uses = np.zeros(len(examples.bars), np.int8)
    uses[: len(examples.labels)] = 1
    uses[examples.split.train], uses[examples.split.validation] = 3, 5
    uses[: len(examples.labels)] += examples.labels
    return uses


class _Gzip:
    """A compressed file whose header has no time, so that equal contents give equal bytes."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(_COMPRESSION, wbits=zlib.MAX_WBITS + 16)
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self._pieces.append(self._compressor.compress(piece))

    def whole(self) -> bytes:
        """The end of the file included."""
        return b"".join((*self._pieces, self._compressor.flush()))


def _importance_csv(model: Model) -> str:
    """Return a row per feature: the total gain of its splits and their number; the most important feature first."""
    gains, splits = model.importance(len(FEATURES))
    rows = sorted(zip(FEATURES, gains, splits, strict=True), key=lambda row: (-row[1], row[0]))
    return "".join(("feature,gain,split\n", *(f"{name},{gain!r},{split}\n" for name, gain, split in rows)))


def _quoted(symbol: str) -> bytes:
    text = '"' + symbol.replace('"', '""') + '"' if "," in symbol or '"' in symbol else symbol
    return text.encode()
