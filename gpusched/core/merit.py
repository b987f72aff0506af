"""Which of two values of a metric is the better one, by the metric's name."""

from __future__ import annotations

import re

#: metrics whose names end so are losses, where less is better: LightGBM's and scikit-learn's
_LOSS = re.compile(
    r"(?:^|_)(?:(?:log|hinge)?loss|error|deviance|cross_entropy|kullback_leibler"
    r"|r?mse|rmsle|mae|s?mape|l1|l2|brier|brier_score)$"
)


def is_loss(metric: str) -> bool:
    """Whether less of a metric is better: `validation_rmse`, `train_binary_logloss`; not `profit_and_loss`."""
    name = metric.lower()
    return _LOSS.search(name) is not None and "profit" not in name


def merit(metric: str, value: float) -> float:
    """The value, or its negative if the metric is a loss: the larger, the better."""
    return -value if is_loss(metric) else value
