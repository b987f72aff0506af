"""The labels that a model learns to predict: whether the close rises by more than a threshold over the next bars."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpusched.teacher.bars import Floats

Labels = npt.NDArray[np.bool_]


def usable_rows(bars: int, horizon: int) -> int:
    """The number of rows with a known label: all but the last `horizon`."""
    return max(0, bars - horizon)


def forward_returns(close: Floats, horizon: int) -> Floats:
    """(usable,) close[t + horizon] / close[t] − 1."""
    usable = usable_rows(len(close), horizon)
    returns: Floats = close[len(close) - usable :] / close[:usable] - 1
    return returns


def labels(returns: Floats, threshold: float) -> Labels:
    """(usable,) whether the forward return is above the threshold."""
    return returns > threshold
