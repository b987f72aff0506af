from __future__ import annotations

import numpy as np
import pytest

from gpusched.analysis import bootstrap
from gpusched.analysis.bootstrap import interval, mean, median


def test_an_interval_covers_the_statistic_and_is_the_same_each_time() -> None:
    values = np.random.RandomState(1).normal(0.02, 0.1, 200).tolist()
    low, high = interval(values) or (0, 0)
    assert low < np.mean(values) < high
    assert (low, high) == interval(values) == interval(values[::-1])
    # of a mean, the interval that the normal distribution gives
    half = 1.96 * np.std(values) / np.sqrt(len(values))
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.2 * half)


def test_the_median_has_one_too() -> None:
    values = [0.4, 0.5, 0.5, 0.6, 9.0]
    low, high = interval(values, median) or (0, 0)
    assert 0.4 <= low <= 0.5 <= high <= 9.0


def test_how_many_are_drawn_at_a_time_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(map(float, range(50)))
    whole = interval(values)
    monkeypatch.setattr(bootstrap, "_MOST_DRAWN", 70)
    assert interval(values, mean) == whole


@pytest.mark.parametrize("values", [[], [0.5]])
def test_one_value_has_none(values: list[float]) -> None:
    assert interval(values) is None


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.RandomState(3)
    held = 0
    for _ in range(200):
        low, high = interval(generator.normal(0.0, 1.0, 40).tolist()) or (0, 0)
        held += low <= 0 <= high
    assert 0.90 <= held / 200 <= 0.99
