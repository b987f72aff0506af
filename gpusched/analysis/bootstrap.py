"""Intervals of statistics by the bootstrap. Seeded: the same numbers give the same interval, in every version."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: from rows of a matrix to a number each
Statistic = Callable[[Floats], Floats]

#: share of the intervals that hold the true value, if windows were drawn independently
LEVEL = 0.95
RESAMPLES = 2000
_SEED = 42
#: numbers that are drawn at a time: 16 MB
_MOST_DRAWN = 2_000_000


def mean(rows: Floats) -> Floats:
    means: Floats = rows.mean(axis=1)
    return means


def median(rows: Floats) -> Floats:
    medians: Floats = np.median(rows, axis=1)
    return medians


def interval(values: Sequence[float], statistic: Statistic = mean) -> tuple[float, float] | None:
    """The percentile interval of a statistic of n values; None for fewer than two.

    n values are drawn with replacement `RESAMPLES` times, and the statistic of each draw is taken; the interval is
    between the quantiles of those statistics. Of differences of pairs, that is the paired bootstrap: B. Efron and R. J.
    Tibshirani, An Introduction to the Bootstrap (1993), chapters 8.3 and 13.3.
    """
    if len(values) < 2:
        return None
    given = np.sort(np.asarray(values, np.float64))  # in which order they are changes nothing
    # numpy keeps the numbers of RandomState the same in all versions, those of its newer generators only within one.
    generator = np.random.RandomState(_SEED)
    rows = max(1, _MOST_DRAWN // len(given))
    drawn = [
        statistic(given[generator.randint(0, len(given), size=(min(rows, RESAMPLES - done), len(given)))])
        for done in range(0, RESAMPLES, rows)
    ]
    low, high = np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
