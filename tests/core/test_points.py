"""Points of a sweep: names that stay, grids, and samples that are the same everywhere."""

from __future__ import annotations

import re
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gpusched.core.model import Parameters
from gpusched.core.planning import label_problem
from gpusched.core.points import LONGEST_NAME, MOST_POINTS, Axis, point_name, points, points_problem, sample, size

LEAVES: Axis = [{"lightgbm.num_leaves": value} for value in (15, 31, 63)]
HORIZON: Axis = [{"labels.horizon": value} for value in (5, 7)]

values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers())
parameters = st.dictionaries(st.text(min_size=1), values, min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        ({"lightgbm.num_leaves": 31, "labels.horizon": 5}, "horizon=5,num_leaves=31"),
        ({"lightgbm.learning_rate": 0.05, "lightgbm.is_unbalance": False}, "is_unbalance=false,learning_rate=0.05"),
        ({"lightgbm.boosting": "dart"}, "boosting=dart"),
        ({"workload.shift": -1.5}, "shift=-1.5"),
        ({}, ""),
    ],
)
def test_a_name_spells_the_parameters_out(given_: Parameters, name: str) -> None:
    assert point_name(given_) == name


@pytest.mark.parametrize(
    "given_",
    [
        {"workload.seed": 1, "lightgbm.seed": 1},
        {"workload.path": "../up"},
        {"workload.text": "1,b=2"},
        {"workload.text": ""},
        {"lightgbm.monotone_constraints": [1, 0]},
        {f"workload.parameter_number_{number}": number for number in range(9)},
    ],
)
def test_a_name_is_a_digest_where_spelling_out_would_not_do(given_: Parameters) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", point_name(given_))
    assert point_name(dict(reversed(given_.items()))) == point_name(given_)


@given(parameters)
def test_names_are_labels(given_: dict[str, Any]) -> None:
    name = point_name(given_)
    assert label_problem("X_" + name) is None
    assert len(name) <= LONGEST_NAME


def test_a_grid_has_every_combination() -> None:
    assert list(points([HORIZON, LEAVES])) == [
        "horizon=5,num_leaves=15",
        "horizon=5,num_leaves=31",
        "horizon=5,num_leaves=63",
        "horizon=7,num_leaves=15",
        "horizon=7,num_leaves=31",
        "horizon=7,num_leaves=63",
    ]
    assert points([HORIZON, LEAVES])["horizon=5,num_leaves=63"] == {"labels.horizon": 5, "lightgbm.num_leaves": 63}
    assert points([LEAVES]).items() < points([[*LEAVES, {"lightgbm.num_leaves": 127}]]).items()
    assert points([]) == {"": {}}


def test_points_that_cannot_be() -> None:
    assert points_problem(points([HORIZON, LEAVES])) is None
    assert points_problem({"../up": {"a.x": 1}}) == "'../up' is not the name of the point with these parameters"
    many = points([[{"a.x": value} for value in range(MOST_POINTS + 1)]])
    assert points_problem(many) == "a sweep has 10,000 points at most"


def test_a_sample_is_part_of_the_grid_and_of_a_larger_sample() -> None:
    axes: list[Axis] = [[{f"workload.p{axis}": value} for value in range(10)] for axis in range(12)]
    assert size(axes) == 10**12
    few, more, other = (sample(axes, count, seed) for count, seed in ((5, 1), (50, 1), (5, 2)))
    assert (len(few), len(more)) == (5, 50)
    assert few.items() < more.items()
    assert few.keys() != other.keys()
    (first,) = sample(axes, 1, 1).values()
    assert list(first.values()) == [4, 9, 9, 7, 0, 4, 8, 6, 2, 1, 0, 9], "the same in every version"
    assert first in few.values()
    assert sample([HORIZON, LEAVES], 5, 3).items() < points([HORIZON, LEAVES]).items()
    assert sample([HORIZON, LEAVES], 6, 3) == sample([HORIZON, LEAVES], 9, 3) == points([HORIZON, LEAVES])
