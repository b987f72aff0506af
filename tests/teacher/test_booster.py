"""The booster on LightGBM's C API trains the models of LightGBM's Python package, byte for byte."""

from __future__ import annotations

import pickle
from typing import Any

import lightgbm
import numpy as np
import pytest

from gpusched.teacher import booster
from gpusched.teacher.artifacts import pickled
from gpusched.teacher.booster import Booster, EarlyStopping, LightGBMError
from gpusched.teacher.features import FEATURES
from gpusched.teacher.schema import lightgbm_parameters
from gpusched.teacher.split import Split
from gpusched.teacher.training import _boost
from gpusched.workload import BadParameters
from tests.teacher.support import ignore

ROWS, TRAIN = 300, 240
RNG = np.random.default_rng(7)
MATRIX = RNG.normal(size=(ROWS, len(FEATURES)))
MATRIX[RNG.random(MATRIX.shape) < 0.05] = np.nan
LABELS = np.nan_to_num(MATRIX[:, 0]) + 0.5 * np.nan_to_num(MATRIX[:, 1]) + RNG.normal(size=ROWS) > 0.3
SPLIT = Split(np.arange(TRAIN), np.arange(TRAIN, ROWS))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Several would spin while they wait for each other, on a machine that has other things to do."""
    booster.set_threads(1)


def by_the_package(params: dict[str, Any], matrix: np.ndarray[Any, Any]) -> tuple[lightgbm.Booster, int | None]:
    """The package's way to do what `_boost` does."""
    train, validation = (
        lightgbm.Dataset(matrix[rows], LABELS[rows], feature_name=list(FEATURES), params=params)
        for rows in (SPLIT.train, SPLIT.validation)
    )
    model = lightgbm.train(params, train, valid_sets=[validation.set_reference(train)], keep_training_booster=True)
    return model, model.best_iteration if model.best_iteration > 0 else None


@pytest.mark.filterwarnings("ignore::UserWarning")  # the package tells what it does
@pytest.mark.parametrize("order", ["C", pytest.param("F", marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"is_unbalance": False},
        {"is_unbalance": False, "scale_pos_weight": 2.5},
        {"early_stopping_round": 0},
        {"early_stopping_round": 0, "num_iterations": 7, "metric": "None"},
        {"early_stopping_round": 3},
        {"early_stopping_round": 3, "early_stopping_min_delta": 0.004},
        {"early_stopping_round": 400, "num_iterations": 60},
        {"metric": ["auc", "binary_logloss"], "early_stopping_round": 5},
        {"metric": "binary_logloss,auc,average_precision", "early_stopping_round": 5},
        {"metric": ["auc", "binary_error"], "early_stopping_round": 5, "first_metric_only": True},
        {"metric": "", "early_stopping_round": 10},
        {"objective": "cross_entropy"},
        {"objective": "cross_entropy", "metric": "kullback_leibler"},
        {"boosting": "dart", "num_iterations": 30},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6, "num_iterations": 20},
        {"data_sample_strategy": "goss", "learning_rate": 0.1},
        {"bagging_freq": 2, "bagging_fraction": 0.5, "extra_trees": True},
        {"monotone_constraints": [1, -1, *[0] * (len(FEATURES) - 2)], "monotone_constraints_method": "advanced"},
        {"interaction_constraints": "[0,1,2],[3,4,5]"},
        {"max_bin": 15, "min_data_in_bin": 1, "lambda_l1": 0.5, "lambda_l2": 2.0, "path_smooth": 1.0},
        {"linear_tree": True, "num_iterations": 10},
        {"use_quantized_grad": True},
        {"min_data_in_leaf": 1000},
        {"num_leaves": 2, "learning_rate": 3.0},
        {"boost_from_average": False, "feature_fraction": 0.1, "feature_fraction_bynode": 0.5},
    ],
    ids=str,
)
def test_models_and_what_they_say_are_those_of_the_package(given: dict[str, Any], order: str) -> None:
    matrix = np.asarray(MATRIX, order=order)  # type: ignore[call-overload]
    params = lightgbm_parameters(given) | {"device_type": "cpu"}
    text, best = _boost(LABELS, SPLIT, matrix, params, None, ignore)
    package, package_best = by_the_package(params, matrix)
    assert best == package_best
    assert text == package.model_to_string(num_iteration=best)
    ours, package = Booster.read(text), package.model_from_string(text)
    assert ours.rounds == package.current_iteration()
    assert ours.predict(matrix).tolist() == np.asarray(package.predict(matrix)).tolist()
    gains, splits = ours.importance(len(FEATURES))
    assert gains == package.feature_importance("gain").tolist()
    assert splits == package.feature_importance("split").tolist()


def test_some_of_these_models_are_cut_and_some_are_not() -> None:
    """Otherwise the comparison would prove little."""
    rounds = []
    for rate in (0.01, 1.0):
        params = lightgbm_parameters({"learning_rate": rate, "num_iterations": 20}) | {"device_type": "cpu"}
        text, best = _boost(LABELS, SPLIT, MATRIX, params, None, ignore)
        assert best is not None
        assert Booster.read(text).rounds == best
        rounds.append(best)
    assert rounds[0] > 15
    assert rounds[1] < 5


def test_a_model_that_is_larger_than_its_buffer_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    params = lightgbm_parameters({"num_iterations": 5, "early_stopping_round": 0}) | {"device_type": "cpu"}
    text, _ = _boost(LABELS, SPLIT, MATRIX, params, None, ignore)
    for size in (1, len(text.encode()) - 30, len(text.encode())):
        monkeypatch.setattr(booster, "_MODEL_BYTES", size)
        assert _boost(LABELS, SPLIT, MATRIX, params, None, ignore) == (text, None)


@pytest.mark.parametrize("rounds", [1, 200])
def test_the_pickle_is_that_of_the_package(rounds: int) -> None:
    """pickle writes what is larger than 64 KiB in another way."""
    params = lightgbm_parameters({"num_iterations": rounds, "early_stopping_round": 0}) | {"device_type": "cpu"}
    text, _ = _boost(LABELS, SPLIT, MATRIX, params, None, ignore)
    assert (len(text) > 1 << 16) == (rounds > 1)

    class Saved:
        def __reduce__(self) -> tuple[type[lightgbm.Booster], tuple[Any, ...]]:
            return lightgbm.Booster, (None, None, None, text)

    assert pickled(text) == pickle.dumps(Saved(), 5)
    assert lightgbm.basic.Booster is lightgbm.Booster, "the package is as it was"
    assert pickle.loads(pickled(text)).model_to_string() == text


@pytest.mark.parametrize("delta", [-0.1, "0.1", [0.1]])
def test_a_delta_is_a_number(delta: object) -> None:
    with pytest.raises(BadParameters, match="early_stopping_min_delta"):
        EarlyStopping({"early_stopping_round": 5, "early_stopping_min_delta": delta}, ["auc"])


def test_errors_are_lightgbms_own() -> None:
    with pytest.raises(LightGBMError, match="the number of classes"):
        Booster.read("nothing of the kind")
