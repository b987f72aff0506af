"""The settings of a batch: LightGBM's parameters, tables of other workloads, points of a sweep, terms."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gpusched.config import (
    BUILT_IN_WORKLOAD,
    BadValue,
    DatesReversed,
    NoDates,
    Run,
    batch_spec,
    given_settings,
    load,
    terms,
    with_parameters,
    workload_settings,
)
from gpusched.config.schema import Priority, bounds, range_of
from gpusched.core.planning import digest
from gpusched.core.terms import terms_of, with_terms
from gpusched.errors import ConfigError
from gpusched.service.submission import BadSubmission, check_terms
from gpusched.teacher.schema import LIGHTGBM_DEFAULTS
from tests.config.loading import loaded

# -- LightGBM's parameters ---------------------------------------------------------------------------------------------


def test_a_stronger_source_wins_whatever_name_it_uses() -> None:
    text = "[lightgbm]\nnum_leaves = 7\nn_estimators = 9\n"
    found = loaded("lightgbm.max_leaves=8", text=text, environ={"GPUSCHED_LIGHTGBM_NUM_ROUND": "10"})
    parameters = workload_settings(found.config)["lightgbm"]
    assert (parameters["num_leaves"], parameters["num_iterations"]) == (8, 10)
    assert found.config.lightgbm == {"max_leaves": 8, "num_round": 10}
    assert set(found.origins) == {"lightgbm.max_leaves", "lightgbm.num_round"}


def test_the_rest_of_the_parameters_are_defaults() -> None:
    parameters = workload_settings(loaded("lightgbm.eta=0.5").config)["lightgbm"]
    assert parameters == {**LIGHTGBM_DEFAULTS, "learning_rate": 0.5}


OWN = "run.workload=my.package:train"


def test_a_workload_of_ones_own_has_a_table_of_its_own() -> None:
    text = "[workload]\nalpha = 0.1\nfrom = 2022-01-01\ngrid = {depth = [1, 2]}\n[lightgbm]\nno_such = 1\n"
    found = loaded(
        OWN, "workload.beta=1e-3", "workload.kind=ridge", text=text, environ={"GPUSCHED_WORKLOAD_ALPHA": "2"}
    )
    expected = {"alpha": 2, "from": "2022-01-01", "grid": {"depth": [1, 2]}, "beta": 1e-3, "kind": "ridge"}
    assert workload_settings(found.config) == expected
    assert found.origins["workload.grid"] == f"{found.path}:4"
    assert found.origins["workload.alpha"] == "GPUSCHED_WORKLOAD_ALPHA"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            (OWN, "lightgbm.seed=1"),
            "--set: lightgbm.seed: it is a setting of gpusched.teacher:train_window, and not of my",
        ),
        ((OWN, "labels.horizon=5"), "--set: labels.horizon: it is a setting of gpusched.teacher:train_window"),
        ((OWN, "data.strict=true"), "--set: data.strict: it is a setting of gpusched.teacher:train_window"),
        (
            ("workload.alpha=1",),
            "gpusched.teacher:train_window has no settings in [workload]: name the workload that has",
        ),
        ((OWN, "workload.grid.depth=1"), "one level, and a table is a value: workload.grid = {…}"),
        ((OWN, "workload.alpha=nan"), "--set: workload.alpha: expected a value without nan"),
        ((OWN, "workload.grid={alpha = [inf]}"), "--set: workload.grid: expected a value without nan"),
        ((OWN, "workload="), "there is no setting 'workload'"),
    ],
)
def test_settings_of_another_workload_are_refused(flags: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        loaded(*flags)


def test_a_file_may_have_the_settings_of_several_workloads() -> None:
    found = loaded(text="[workload]\nalpha = 1\n")
    assert workload_settings(found.config) == workload_settings(load(path=Path("/dev/null"), environ={}).config)


# -- settings of a batch -----------------------------------------------------------------------------------------------


def test_parameters_take_the_place_of_settings() -> None:
    settings = workload_settings(loaded("lightgbm.num_leaves=31").config)
    changed = with_parameters(BUILT_IN_WORKLOAD, settings, {"lightgbm.max_leaves": 15, "labels.horizon": 3})
    assert (changed["lightgbm"]["num_leaves"], changed["horizon"]) == (15, 3)
    assert settings["lightgbm"]["num_leaves"] == 31
    assert given_settings(BUILT_IN_WORKLOAD, changed) == {"labels.horizon": 3, "lightgbm.num_leaves": 15}
    assert with_parameters("my:train", {"alpha": 1}, {"workload.beta": [1]}) == {"alpha": 1, "beta": [1]}
    assert given_settings("my:train", {"alpha": 1}) == {"workload.alpha": 1}


@pytest.mark.parametrize(
    ("workload", "parameters", "says"),
    [
        (BUILT_IN_WORKLOAD, {"labels.horizon": 0}, "labels.horizon: setting horizon: expected int >= 1"),
        (BUILT_IN_WORKLOAD, {"lightgbm.num_leafs": 3}, "lightgbm.num_leafs: LightGBM has no parameter 'num_leafs'"),
        (BUILT_IN_WORKLOAD, {"run.workers": 3}, "run.workers: it is not a setting of gpusched.teacher:train_window"),
        (BUILT_IN_WORKLOAD, {"workload.alpha": 3}, "has no settings in [workload]"),
        ("my:train", {"labels.horizon": 3}, "labels.horizon: it is a setting of gpusched.teacher:train_window"),
    ],
)
def test_parameters_that_are_refused(workload: str, parameters: dict[str, Any], says: str) -> None:
    settings = workload_settings(loaded().config) if workload == BUILT_IN_WORKLOAD else {}
    with pytest.raises(BadValue, match=re.escape(says)):
        with_parameters(workload, settings, parameters)


def test_a_parameter_that_is_a_list() -> None:
    assert loaded("lightgbm.eval_at=[1, 2]").config.lightgbm == {"eval_at": [1, 2]}


# -- specification of a batch ------------------------------------------------------------------------------------------


def spec(*flags: Sequence[str] | str) -> Any:
    return batch_spec(loaded(*map(str, flags)).config, ("ABC",))


def test_a_batch_has_the_dates_and_limits_of_the_configuration(here: Path) -> None:
    made = spec("windows.start=2022-01-01", "windows.end=2022-12-31", "run.memory_limit_mb=2", "run.max_attempts=1")
    assert (made.start, made.end, made.window_days) == (dt.date(2022, 1, 1), dt.date(2022, 12, 31), 180)
    assert made.data_root == str(here / "data")
    assert (made.limits.memory_limit_bytes, made.limits.max_attempts, made.limits.grace_s) == (2 * 1024**2, 1, 10.0)
    assert made.settings["lightgbm"] == LIGHTGBM_DEFAULTS


def test_settings_that_the_first_version_lacked_change_no_batch_that_does_not_use_them(here: Path) -> None:
    dates = ("windows.start=2022-01-01", "windows.end=2022-12-31")
    plain, given = (
        spec(*dates),
        spec(*dates, "windows.stride_days=0", "windows.anchored=false", "split.validation_days=0"),
    )
    assert digest(given, None) == digest(plain, None)
    rolling = spec(*dates, "windows.stride_days=30", "windows.anchored=true", "split.validation_days=10")
    assert (rolling.stride_days, rolling.anchored, rolling.settings["validation_days"]) == (30, True, 10)
    assert digest(rolling, None) != digest(plain, None)


TERMS = terms(load(path=Path("/dev/null"), environ={}).config)


@pytest.mark.parametrize("key", TERMS)
def test_a_daemon_takes_the_terms_that_a_run_takes(key: str) -> None:
    """Each as far as its bounds, and none beyond them."""
    dates = ("windows.start=2022-01-01", "windows.end=2022-12-31")
    term = TERMS[key][0]
    for bound, beyond in zip(bounds(Run, key.removeprefix("run.")), (-1, 1), strict=True):
        made = spec(*dates, f"{key}={bound}")
        check_terms(made)
        with pytest.raises(BadSubmission, match=f"{term} is out of range"):
            check_terms(with_terms(made, {term: terms_of(made)[term] + beyond}))


def test_a_priority_has_bounds_too() -> None:
    made = spec("windows.start=2022-01-01", "windows.end=2022-12-31")
    for bound, beyond in zip(range_of(Priority), (-1, 1), strict=True):
        check_terms(with_terms(made, {"priority": bound}))
        with pytest.raises(BadSubmission, match="priority is out of range"):
            check_terms(with_terms(made, {"priority": bound + beyond}))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "no start and no end date is given"),
        (("windows.start=2022-01-01",), "no end date is given"),
        (("windows.end=2022-01-01",), "no start date is given"),
    ],
)
def test_a_batch_needs_dates(flags: tuple[str, ...], says: str) -> None:
    with pytest.raises(NoDates) as caught:
        spec(*flags)
    assert str(caught.value).startswith(says)
    assert caught.value.exit_code == 2


def test_dates_have_an_order() -> None:
    with pytest.raises(DatesReversed, match="end on 2021-12-31, before they start on 2022-01-01"):
        spec("windows.start=2022-01-01", "windows.end=2021-12-31")
    assert spec("windows.start=2022-01-01", "windows.end=2022-01-01").end == dt.date(2022, 1, 1)


def test_bad_values_name_the_setting_and_the_value() -> None:
    with pytest.raises(BadValue) as caught:
        loaded("run.workers=-1")
    assert (
        str(caught.value).splitlines()[0] == "--set: run.workers: expected a whole number from 0 to 1000000, got '-1'"
    )


def test_how_files_are_read_goes_to_the_built_in_workload_only() -> None:
    flags = ("data.decimal=,", "data.strict=true")
    built_in = workload_settings(loaded(*flags).config)
    assert (built_in["interval"], built_in["decimal"], built_in["strict"], built_in["columns"]) == ("", ",", True, {})
    own = loaded("run.workload=mine:train", text='[data]\ndecimal = ","\n')
    assert workload_settings(own.config) == {}
