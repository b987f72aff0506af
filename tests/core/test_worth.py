from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from gpusched.core.model import BatchSpec, WindowResult
from gpusched.core.states import Cancelled, Finished, Queued, Reused, State, Succeeded
from gpusched.core.totals import worth_object
from gpusched.core.worth import constants_note, imports_note, is_constant


def spec(**more: Any) -> BatchSpec:
    day = dt.date(2022, 1, 1)
    return BatchSpec(symbols=(), start=day, end=day, window_days=1, data_root="", workload="w:f", **more)


def result(constant: bool | None) -> WindowResult:
    return WindowResult(
        artifacts_path="/out/w",
        metrics={},
        sample_counts={},
        fingerprint=None,
        device_type="cpu",
        device="cpu",
        phases={},
        seconds=1.0,
        constant=constant,
    )


@pytest.mark.parametrize(
    ("state", "constant"),
    [
        (Finished(attempts=1, outcome=Succeeded(result=result(True))), True),
        (Finished(attempts=0, outcome=Reused(result=result(True))), True),
        (Finished(attempts=1, outcome=Succeeded(result=result(False))), False),
        (Finished(attempts=1, outcome=Succeeded(result=result(None))), False),
        (Finished(attempts=1, outcome=Cancelled()), False),
        (Queued(), False),
    ],
)
def test_only_a_model_can_predict_a_constant(state: State, constant: bool) -> None:
    assert is_constant(state) is constant


@pytest.mark.parametrize(
    ("constants", "settings", "note"),
    [
        (0, {}, ""),
        (1, {}, "1 of 215 models predicts a constant"),
        (48, {"lightgbm": {}}, "48 of 215 models predict a constant"),
        (
            48,
            {"lightgbm": {"num_leaves": 127, "min_data_in_leaf": 20}},
            "48 of 215 models predict a constant: too few rows for num_leaves 127, min_data_in_leaf 20?",
        ),
    ],
)
def test_the_settings_that_are_the_usual_cause_are_named(constants: int, settings: dict[str, Any], note: str) -> None:
    assert constants_note(constants, 215, spec(settings=settings)) == note


def test_a_setting_that_is_swept_is_not_named() -> None:
    swept = spec(
        settings={"lightgbm": {"num_leaves": 127, "min_data_in_leaf": 20}},
        points={"a": {"lightgbm.num_leaves": 7}, "b": {"labels.horizon": 3}},
    )
    assert constants_note(2, 3, swept) == "2 of 3 models predict a constant: too few rows for min_data_in_leaf 20?"


def test_an_object_names_constant_models_where_there_are_any() -> None:
    assert (worth_object(0), worth_object(3)) == ({}, {"constant_models": 3})


@pytest.mark.parametrize(
    ("phases", "seconds"), [(None, 1.0), ({}, 1.0), ({"import": 0.5}, 1.0), ({"import": 0.5}, None)]
)
def test_imports_that_are_less_than_the_rest_are_no_news(
    phases: dict[str, float] | None, seconds: float | None
) -> None:
    assert imports_note(spec(settings={}), "A", phases, seconds) == ""


def test_imports_that_take_longer_than_the_rest_are_told_with_their_module() -> None:
    note = imports_note(spec(settings={}), "A", {"import": 0.6, "train": 0.4}, 1.0)
    assert note.startswith("A took 0.6 of its 1.0 s to import modules: move those imports to the top of w, ")
    unnamed = msgspec.structs.replace(spec(settings={}), workload="?")
    assert "to the top of ?, " in imports_note(unnamed, "A", {"import": 0.6}, 1.0)
