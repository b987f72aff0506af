from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from gpusched.teacher import split
from gpusched.teacher.examples import Examples, window_examples
from gpusched.teacher.labels import forward_returns, labels
from gpusched.teacher.schema import parse_settings
from gpusched.workload import NoData
from tests.teacher.support import START, bars, day


def closes(*values: float) -> list[tuple[float, float, float, float, float]]:
    return [(value, value, value, value, 1.0) for value in values]


def examples_of(*values: float, **settings: object) -> Examples:
    history = bars(closes(*values))
    last = day(len(values) - 1)
    return window_examples(history, history.window(START, last), START, last, parse_settings(settings))


def test_labels_by_hand() -> None:
    returns = forward_returns(np.array([100.0, 101.0, 102.0, 99.0, 110.0]), 2)
    assert returns == pytest.approx([0.02, 99 / 101 - 1, 110 / 102 - 1])
    # 102 / 100 - 1 is 0.020000000000000018: above 0.02 as Python has it, not above the next number.
    assert labels(returns, 0.02).tolist() == [True, False, True]
    assert labels(returns, 0.021).tolist() == [False, False, True]
    assert labels(np.array([0.5, 0.25]), 0.25).tolist() == [True, False]


@pytest.mark.parametrize(("bars", "horizon", "usable"), [(0, 7, 0), (7, 7, 0), (8, 7, 1), (3, 9, 0)])
def test_the_last_rows_have_no_label(bars: int, horizon: int, usable: int) -> None:
    assert len(forward_returns(np.ones(bars), horizon)) == usable


def test_chronological_split_by_hand() -> None:
    parts = split.chronological(20, 0.2, 3)
    assert parts.train.tolist() == list(range(13))
    assert parts.validation.tolist() == [16, 17, 18, 19]


@pytest.mark.parametrize("rows", range(2, 60))
@pytest.mark.parametrize("horizon", [1, 7])
def test_no_training_label_is_made_of_validation_prices(rows: int, horizon: int) -> None:
    parts = split.chronological(rows, 0.2, horizon)
    assert parts.validation[-1] == rows - 1
    assert (parts.train + horizon < parts.validation[0]).all()
    if len(parts.train):  # and no more is given away than that
        assert parts.train[-1] + horizon + 1 == parts.validation[0]


def test_the_last_days_validate_and_what_reaches_into_them_is_purged() -> None:
    parts = examples_of(*(100 + 10 * (n % 5) for n in range(40)), horizon=3, validation_days=10).split
    assert parts.validation.tolist() == list(range(30, 37)), "the last three of the ten days have no label"
    assert parts.train.tolist() == list(range(27))
    moved = examples_of(*(100 + 10 * (n % 5) for n in range(40)), horizon=3, validation_days=12).split
    assert (moved.validation[0], moved.train[-1]) == (28, 24)


@pytest.mark.parametrize(
    ("days", "says"),
    [
        (3, r"36 leave 32 to train on and 0 to validate with \(the 3 days from 2024-02-07 validate, horizon 4\)"),
        (36_500, "36 leave 0 to train on and 36 to validate with"),
    ],
)
def test_days_that_leave_nothing_to_train_on_or_to_validate_with(days: int, says: str) -> None:
    with pytest.raises(NoData, match=says) as refused:
        examples_of(*(100 + 10 * (n % 5) for n in range(40)), horizon=4, validation_days=days)
    assert f"{'more' if days == 3 else 'fewer'} days that validate" in refused.value.remedy


def test_random_split_keeps_the_share_of_each_label() -> None:
    known = np.arange(100) % 4 == 0
    one, again, other = (split.random(known, 0.2, seed) for seed in (1, 1, 2))
    assert one.validation.tolist() == again.validation.tolist() != other.validation.tolist()
    assert sorted([*one.train.tolist(), *one.validation.tolist()]) == list(range(100))
    assert (len(one.validation), int(known[one.validation].sum())) == (20, 5)
    # numpy promises never to change these numbers.
    assert (
        split.random(known, 0.05, 42).validation.tolist() == split.random(known, 0.05, 42 + 2**32).validation.tolist()
    )


def test_counts() -> None:
    counts = examples_of(*([100.0, 103.0] * 15), horizon=1, min_rows=10).counts()
    assert counts == {
        "bars": 30,
        "usable": 29,
        "train": 22,
        "train_positive": 11,
        "validation": 6,
        "validation_positive": 3,
        "purged": 1,
    }


@pytest.mark.parametrize(
    ("values", "settings", "reason"),
    [
        ([100.0] * 26, {}, "too few rows: 19 of the 20 that are needed (26 bars, the last 7 of which have no label)"),
        ([100.0] * 40, {}, "one class: all 19 training labels are 0, every forward return over 7 bars is at or below"),
        ([1.03**n for n in range(40)], {}, "one class: all 19 training labels are 1, every forward return over 7"),
        (
            [100.0] * 40,
            {"horizon": 1},
            "one class: all 30 training labels are 0, every forward return over 1 bar is at",
        ),
        ([100.0] * 60, {"horizon": 39, "min_rows": 2}, "too few rows: 21 leave 0 to train on and 4 to validate with"),
        ([100.0] * 9, {"min_rows": 2, "split": "random"}, "too few rows: 2 leave 2 to train on and 0 to validate with"),
    ],
)
def test_reasons_not_to_train(values: list[float], settings: dict[str, object], reason: str) -> None:
    with pytest.raises(NoData) as raised:
        examples_of(*values, **settings)
    assert str(raised.value).startswith(reason)


@pytest.mark.parametrize(
    ("values", "settings", "remedy"),
    [
        ([100.0] * 26, {}, "a smaller training.min_rows"),
        ([100.0] * 7, {}, "a smaller --horizon"),
        ([100.0] * 60, {"horizon": 39, "min_rows": 2}, "a smaller --horizon"),
        ([100.0] * 9, {"min_rows": 2, "split": "random"}, "another split.validation_fraction"),
    ],
)
def test_a_remedy_is_one(values: list[float], settings: dict[str, object], remedy: str) -> None:
    """All had the first one, which helps where enough rows have a label and no other way."""
    with pytest.raises(NoData) as raised:
        examples_of(*values, **settings)
    assert raised.value.remedy == f"give longer windows (--window-days), or {remedy}"


def test_a_range_without_bars_says_what_there_is() -> None:
    history = bars(closes(*[100.0] * 10))
    with pytest.raises(
        NoData, match=r"no data: .* 2020-01-01 to 2020-02-01 \(the data goes from 2024-01-01 to 2024-01-10\)"
    ):
        window_examples(
            history,
            history.window(dt.date(2020, 1, 1), dt.date(2020, 2, 1)),
            dt.date(2020, 1, 1),
            dt.date(2020, 2, 1),
            parse_settings({}),
        )


def test_one_class_in_the_validation_is_no_reason() -> None:
    values = [100.0, 103.0] * 20 + [100.0] * 12
    counts = examples_of(*values, horizon=1).counts()
    assert counts["validation_positive"] == 0 < counts["train_positive"]
