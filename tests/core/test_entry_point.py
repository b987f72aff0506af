"""Names of workloads."""

from __future__ import annotations

import pytest

from gpusched.core.entry_point import EntryPoint, entry_point


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("mine:train", EntryPoint("mine", "train")),
        ("a.b_2.c:f", EntryPoint("a.b_2.c", "f")),
        ("/home/me:mine:train", EntryPoint("mine", "train", "/home/me")),
        ("/home/me:train-v2:f", EntryPoint("train-v2", "f", "/home/me")),
        ("/:a.b:f", EntryPoint("a.b", "f", "/")),
        *((bad, None) for bad in ("mine", "mine:", ":f", "a-b:f", "2a:f", "a:f:g", "a b:f", "home/me:a:f", "/a:b:c:d")),
        *((bad, None) for bad in ("/home/../etc:a:f", "/a\0:b:c", "/home:/a:f", "")),
    ],
)
def test_names(text: str, entry: EntryPoint | None) -> None:
    assert entry_point(text) == entry


def test_the_function_wherever_its_module_lies() -> None:
    assert EntryPoint("mine", "train", "/home/me").name == "mine:train"
