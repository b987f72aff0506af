"""JSON objects about batches, and their values one by one."""

from __future__ import annotations

from gpusched.core.totals import flat


def test_nested_values_have_the_names_that_lead_to_them() -> None:
    asked = {"device": "cpu", "limits": {"timeout_s": 5.0, "retry": {"max_attempts": 3}}, "points": [], "settings": {}}
    assert flat(asked) == [
        ("device", "cpu"),
        ("limits.timeout_s", 5.0),
        ("limits.retry.max_attempts", 3),
        ("points", []),
    ]
