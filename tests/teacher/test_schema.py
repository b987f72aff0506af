from __future__ import annotations

from typing import Any

import pytest

from gpusched.teacher.schema import LIGHTGBM_DEFAULTS, parse_settings, validate_lightgbm, written
from gpusched.workload import BadParameters


def test_defaults() -> None:
    settings = parse_settings({})
    assert (settings.interval, settings.horizon, settings.threshold) == ("", 7, 0.02)
    assert (settings.split, settings.validation_fraction, settings.min_rows) == ("chronological", 0.2, 20)
    assert settings.lightgbm == LIGHTGBM_DEFAULTS
    assert list(settings.lightgbm) == sorted(settings.lightgbm)


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"min_child_samples": 5}, "min_data_in_leaf", 5),
        ({"n_estimators": 10}, "num_iterations", 10),
        ({"unbalance": False}, "is_unbalance", False),
        ({"eta": 0.1}, "learning_rate", 0.1),
        ({"n_jobs": 2}, "num_threads", 2),
    ],
)
def test_an_alias_overrides_the_default_of_another_name(given: dict[str, Any], name: str, value: object) -> None:
    merged = parse_settings({"lightgbm": given}).lightgbm
    assert merged == LIGHTGBM_DEFAULTS | {name: value}


def test_a_later_setting_is_written_only_where_it_is_given() -> None:
    """Fingerprints and ids of batches made before it existed stay valid."""
    assert "validation_days" not in written(parse_settings({}))
    assert written(parse_settings({"validation_days": 30}))["validation_days"] == 30


def test_whole_numbers_are_good_for_real_ones() -> None:
    assert parse_settings({"threshold": 0}).threshold == 0.0


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"split": "random", "validation_days": 5}, "setting validation_days: the last days validate only"),
        ({"horizn": 3}, "there is no setting 'horizn'; did you mean 'horizon'?"),
        ({"zzzzzz": 3}, "there is no setting 'zzzzzz'"),
        ({"horizon": 0}, "setting horizon: expected int >= 1 (it is 0)"),
        ({"horizon": "7"}, "setting horizon: expected int, got str (it is '7')"),
        ({"horizon": True}, "setting horizon: expected int, got bool (it is True)"),
        ({"validation_fraction": 1.0}, "setting validation_fraction: expected float < 1.0 (it is 1.0)"),
        ({"threshold": float("nan")}, "setting threshold: expected float > -1.0 (it is nan)"),
        ({"split": "chrono"}, "setting split: invalid enum value 'chrono' (it is 'chrono')"),
        ({"interval": "../1d"}, "setting interval: expected str matching regex"),
        ({"lightgbm": []}, "setting lightgbm: expected object, got array (it is [])"),
        ({"columns": {"volum": "vol"}}, "setting columns: there is no 'volum' in it; did you mean 'volume'?"),
        (
            {"timezone": "Asia/Kolkatta"},
            "setting timezone: there is no zone 'Asia/Kolkatta'; did you mean 'Asia/Kolkata'?",
        ),
        ({"timezone": "../etc"}, "setting timezone: there is no zone '../etc'"),
        ({"date_format": "%H:%M"}, "setting date_format: '%H:%M' does not tell a year, month and day"),
        (
            {"date_format": "%Y-%m-%d %H:%m"},
            "setting date_format: '%Y-%m-%d %H:%m' does not tell a year, month and day",
        ),
        ({"date_format": "%Y-%m-%d %I:%M"}, "setting date_format: '%Y-%m-%d %I:%M' does not tell the morning"),
        ({"date_format": "DD.MM.YYYY"}, "setting date_format: 'DD.MM.YYYY' does not tell a year, month and day"),
        ({"decimal": ";"}, "setting decimal: invalid enum value ';' (it is ';')"),
    ],
)
def test_bad_settings(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParameters) as raised:
        parse_settings(raw)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"num_leafs": 3}, "LightGBM has no parameter 'num_leafs'; did you mean 'num_leaf'?"),
        ({"num_leaves": 3, "max_leaves": 3}, "LightGBM parameters num_leaves and max_leaves are the same one"),
        ({"device": "gpu"}, "LightGBM parameter device cannot be set: gpusched gives each window its device"),
        ({"gpu_device_id": 1}, "LightGBM parameter gpu_device_id cannot be set"),
        ({"num_machines": 2}, "LightGBM parameter num_machines cannot be set: a window is trained by one process"),
        ({"model_output": "x"}, "LightGBM parameter model_output cannot be set: gpusched passes the data in memory"),
        ({"cat_feature": "0"}, "LightGBM parameter cat_feature cannot be set: the columns are the features"),
        ({"num_iterations": 10.0}, "LightGBM parameter num_iterations: expected a whole number, got 10.0"),
        ({"num_boost_round": 0}, "LightGBM parameter num_boost_round: expected at least 1, got 0"),
        ({"metric": None}, "LightGBM parameter metric: expected a number, text, true, false or a list, got None"),
        ({"metric": [{}]}, "LightGBM parameter metric: expected"),
        ({"objective": "regression"}, "LightGBM parameter objective: the label is 0 or 1"),
    ],
)
def test_bad_lightgbm_parameters(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParameters) as raised:
        validate_lightgbm(params)
    assert str(raised.value).startswith(message)
    with pytest.raises(BadParameters):
        parse_settings({"lightgbm": params})
