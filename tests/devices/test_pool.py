"""The plan of a pool, and its notes on the settings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gpusched.core.model import CPU, Device
from gpusched.devices.slots import PoolPlan
from tests.core.support import batch

POOL = PoolPlan(
    devices=(Device(id=CPU, name="the processors", kind="host", lightgbm_type="cpu", capacity=4, threads=2),),
    notes=(),
    cores=8,
)


@pytest.mark.parametrize(
    ("settings", "beyond"),
    [
        ({"lightgbm": {"num_threads": 8}}, True),
        ({"lightgbm": {"num_threads": 3}}, True),
        ({"lightgbm": {"num_threads": 2}}, False),
        ({"lightgbm": {"num_threads": 0}}, False),
        ({"lightgbm": {}}, False),
        ({"lightgbm": "of another workload"}, False),
        ({}, False),
    ],
)
def test_threads_beyond_a_slots_share_are_said(settings: dict[str, Any], beyond: bool) -> None:
    spec = msgspec.structs.replace(batch().spec, settings=settings)
    said = POOL.too_many_threads(spec)
    assert (said is not None) == beyond
    if said is not None:
        assert "share of the cores, 2 of 8" in said


def test_there_is_nothing_to_say_of_slots_that_are_not_there() -> None:
    spec = msgspec.structs.replace(batch(device="cuda").spec, settings={"lightgbm": {"num_threads": 8}})
    assert POOL.too_many_threads(spec) is None
