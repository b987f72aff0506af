"""Split rows into those that train and those that validate."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from gpusched.teacher.labels import Labels

Rows = npt.NDArray[np.int64]


class Split(msgspec.Struct, frozen=True):
    """Row numbers, ascending; no row is in both."""

    train: Rows
    validation: Rows


def chronological(rows: int, fraction: float, horizon: int) -> Split:
    """The last `fraction` of the rows, at least one row, is for validation; see `at`."""
    return at(rows - max(1, round(rows * fraction)), rows, horizon)


def at(boundary: int, rows: int, horizon: int) -> Split:
    """The rows from `boundary` on are for validation.

    The `horizon` rows before it are in neither part: their labels are made of prices from the time of the validation,
    so a model trained on them would have seen those prices.
    """
    return Split(np.arange(max(0, boundary - horizon)), np.arange(boundary, rows))


def random(labels: Labels, fraction: float, seed: int) -> Split:
    """`fraction` of the rows of each label, drawn by `seed`, is for validation.

    Neighbouring rows share most of the prices behind their labels, so the validation is optimistic.
    """
    # numpy keeps the numbers of RandomState the same in all versions, those of its newer generators only within one.
    generator = np.random.RandomState(seed % 2**32)
    chosen = np.zeros(len(labels), bool)
    for label in (False, True):
        rows = generator.permutation(np.flatnonzero(labels == label))
        chosen[rows[: round(len(rows) * fraction)]] = True
    return Split(np.flatnonzero(~chosen), np.flatnonzero(chosen))
