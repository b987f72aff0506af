from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from gpusched.analysis.comparison import NoPointInCommon, NothingInCommon, compare
from gpusched.analysis.scores import NoMetric, Scored, metric_names, numbers, of_index
from gpusched.core.model import window_label
from gpusched.results import NoResults

DAY = dt.date(2022, 1, 1)


def scored(symbol: str, constant: bool | None = False, *, point: str = "", **metrics: float) -> Scored:
    label = window_label(symbol, DAY, DAY, point)
    return Scored(label=label, symbol=symbol, start=DAY, end=DAY, point=point, metrics=metrics, constant=constant)


def test_the_same_windows_side_by_side() -> None:
    one = [scored("A", validation_auc=0.5), scored("B", validation_auc=0.6, train_auc=0.9), scored("C", True)]
    other = [scored("B", validation_auc=0.7), scored("A", validation_auc=0.5), scored("D", validation_auc=0.9)]
    found = compare("x", "y", one, other)
    assert [(pair.symbol, pair.a["validation_auc"], pair.b["validation_auc"]) for pair in found.pairs] == [
        ("A", 0.5, 0.5),
        ("B", 0.6, 0.7),
    ]
    assert [label[0] for label in (*found.only_a, *found.only_b)] == ["C", "D"]
    assert (found.constant_a, found.constant_b) == (1, 0)
    assert compare("x", "y", [scored("A", None, f1=1.0)], other).constant_a is None
    (difference,) = found.differences
    assert difference.metric == "validation_auc"
    assert (difference.windows, difference.greater, difference.less, difference.equal) == (2, 1, 0, 1)
    assert difference.difference == pytest.approx(0.05)
    assert difference.interval == pytest.approx((0.0, 0.1))


def test_a_metric_counts_only_where_both_define_it() -> None:
    one = [scored("A", f1=0.5), scored("B"), scored("C", f1=0.1)]
    other = [scored("A", f1=0.6), scored("B", f1=0.6), scored("C", f1=0.1)]
    assert [(found.metric, found.windows) for found in compare("x", "y", one, other).differences] == [("f1", 2)]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(NothingInCommon, match="x and y have no window in common: 1 and 0 windows have a model"):
        compare("x", "y", [scored("A")], [])
    sweep = [scored("A", point=f"leaves={leaves}") for leaves in (1, 2, 3, 4)]
    points = "leaves=1, leaves=2, leaves=3, … in x, none in y"
    with pytest.raises(NoPointInCommon, match=f"x and y have the same windows at other points: {points}"):
        compare("x", "y", sweep, [scored("A")])
    with pytest.raises(NoMetric, match="no metric 'validation_auk'; did you mean 'validation_auc'"):
        compare("x", "y", [scored("A", validation_auc=1.0)], [scored("A", validation_auc=1.0)], ["validation_auk"])


def test_scores_are_the_numbers_that_are_defined() -> None:
    assert numbers({"validation": {"auc": 0.5, "f1": None}, "loss": 1, "sound": True}) == {
        "validation_auc": 0.5,
        "loss": 1.0,
    }
    assert metric_names([scored("A", loss=1.0, validation_f1=0.1, validation_auc=0.5)]) == [
        "validation_auc",
        "validation_f1",
        "loss",
    ]


LINE = {
    "symbol": "A",
    "date_range": {"start": "2022-01-01", "end": "2022-01-01"},
    "window_label": "mine",
    "point": "horizon=5",
    "status": "success",
    "metrics": {"auc": 0.5},
}


def index(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_window_of_an_index_counts_once(tmp_path: Path) -> None:
    """Of indexes put together, it was two windows of A."""
    later = LINE | {"metrics": {"auc": 0.7}}
    (found,) = of_index(index(tmp_path / "all.json", LINE, later, LINE | {"status": "failed", "metrics": None}))
    assert (found.point, found.metrics, found.constant) == ("horizon=5", {"auc": 0.7}, None)


@pytest.mark.parametrize(
    "wrong",
    [{"date_range": None}, {"date_range": {}}, {"date_range": {"start": 5, "end": "x"}}, {"date_range": [1]}],
)
def test_a_line_that_is_none_of_an_index_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    """It was an internal error of `compare`."""
    with pytest.raises(NoResults, match=r"it is (not|none of) an index"):
        of_index(index(tmp_path / "bad.json", LINE, LINE | wrong))
