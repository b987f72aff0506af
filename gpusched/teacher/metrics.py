"""The quality of predictions. The definitions are scikit-learn's; a metric that they leave undefined is None."""

from __future__ import annotations

import numpy as np

from gpusched.teacher.bars import Floats
from gpusched.teacher.labels import Labels

#: a probability above it predicts a label of 1
DECISION = 0.5

Metrics = dict[str, float | None]


def metrics(labels: Labels, probabilities: Floats) -> Metrics:
    """Accuracy, precision, recall, F1 and AUC of n predictions."""
    predicted = probabilities > DECISION
    hits = int((predicted & labels).sum())
    false_alarms = int((predicted & ~labels).sum())
    misses = int((~predicted & labels).sum())
    return {
        "accuracy": _ratio(int((predicted == labels).sum()), len(labels)),
        "precision": _ratio(hits, hits + false_alarms),
        "recall": _ratio(hits, hits + misses),
        "f1": _ratio(2 * hits, 2 * hits + false_alarms + misses),
        "auc": auc(labels, probabilities),
    }


def auc(labels: Labels, scores: Floats) -> float | None:
    """The probability that a random 1 scores higher than a random 0, ties counting half; None without both classes.

    By the rank sum: Mann and Whitney, Annals of Mathematical Statistics 18 (1947).
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return None
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(sizes) - (sizes - 1) / 2  # the mean rank of each group of ties, counted from 1
    rank_sum = float(ranks[group][labels].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
