from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from gpusched.teacher.metrics import DECISION, metrics

Examples = list[tuple[bool, float]]
# Few different scores, so that there are ties and scores on the decision itself.
examples = st.lists(
    st.tuples(st.booleans(), st.integers(0, 10).map(lambda tenths: tenths / 10)), min_size=1, max_size=60
)


def _defined(score: Callable[[], float]) -> float | None:
    value = score()
    return None if math.isnan(value) else value


@pytest.mark.thorough
@given(examples)
def test_equal_to_scikit_learn(rows: Examples) -> None:
    labels = np.array([label for label, _ in rows])
    scores = np.array([score for _, score in rows])
    predicted = scores > DECISION
    found = metrics(labels, scores)
    both = len(set(labels.tolist())) == 2
    expected = {
        "accuracy": accuracy_score(labels, predicted),
        "precision": _defined(lambda: precision_score(labels, predicted, zero_division=np.nan)),
        "recall": _defined(lambda: recall_score(labels, predicted, zero_division=np.nan)),
        "f1": _defined(lambda: f1_score(labels, predicted, zero_division=np.nan)),
        "auc": roc_auc_score(labels, scores) if both else None,
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([], [], (None, None, None, None, None)),
        ([0, 0], [0.1, 0.2], (1.0, None, None, None, None)),
        ([1, 1], [0.1, 0.2], (0.0, None, 0.0, 0.0, None)),
        ([1, 0], [0.1, 0.2], (0.5, None, 0.0, 0.0, 0.0)),
        ([1, 0], [0.7, 0.7], (0.5, 0.5, 1.0, 2 / 3, 0.5)),
    ],
)
def test_what_is_undefined_is_none(labels: list[int], scores: list[float], expected: tuple[float | None, ...]) -> None:
    assert tuple(metrics(np.array(labels, bool), np.array(scores)).values()) == expected
