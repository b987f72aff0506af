"""Which of two values is the better one."""

from __future__ import annotations

import pytest

from gpusched.core.merit import is_loss, merit


@pytest.mark.parametrize(
    "name",
    [
        "rmse", "validation_rmse", "validation_binary_logloss", "loss", "hinge_loss", "train_multi_error", "l2",
        "validation_cross_entropy", "Brier_Score", "kullback_leibler",
    ],
)  # fmt: skip
def test_losses(name: str) -> None:
    assert is_loss(name)
    assert merit(name, 0.1) > merit(name, 0.2)


@pytest.mark.parametrize("name", ["validation_auc", "sharpe", "profit_and_loss", "lossless", "xl1", "error_free", ""])
def test_what_is_better_the_larger_it_is(name: str) -> None:
    assert not is_loss(name)
    assert merit(name, 0.2) > merit(name, 0.1)
