"""The features and the labels file, which points of a sweep with the same data and labels have in common."""

from __future__ import annotations

import hashlib

import numpy as np

from gpusched import shared
from gpusched.teacher.bars import Floats
from gpusched.teacher.examples import Examples
from gpusched.teacher.features import FEATURES, features


class Common:
    """The features of a window, and its labels file if another window has made both of the same examples."""

    def __init__(self, symbol: str, examples: Examples) -> None:
        #: (n, 15)
        self.features: Floats
        self.labels_file: bytes | None = None
        self._memory = shared.inherited
        self._made_of = b"" if self._memory is None else digest(symbol, examples)
        taken = None if self._memory is None else self._memory.take(self._made_of)
        if taken is None:
            self.features = features(examples.bars)
        else:
            shape = len(FEATURES), len(examples.bars)
            columns = np.frombuffer(taken, np.float64, shape[0] * shape[1]).reshape(shape)
            self.features, self.labels_file = columns.T, taken[columns.nbytes :]

    def give(self, labels_file: bytes) -> None:
        """Let later windows have the features and this labels file."""
        if self._memory is not None:
            self._memory.give(self._made_of, self.features.T.tobytes() + labels_file)


def digest(symbol: str, examples: Examples) -> bytes:
    """A digest of the inputs of the features and the labels file; features and returns follow from the bars."""
    made_of = hashlib.sha256(f"{len(examples.bars)} {len(examples.labels)} {symbol}".encode())
    for column in (*examples.bars.columns(), examples.labels):
        made_of.update(np.ascontiguousarray(column).data)
    return made_of.digest()
