"""Names of workloads."""

from __future__ import annotations

import pytest

from gpusched.core.entry import Entry, parse


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("mine:train", Entry("mine", "train")),
        ("a.b_2.c:f", Entry("a.b_2.c", "f")),
        ("/home/me:mine:train", Entry("mine", "train", "/home/me")),
        ("/home/me:train-v2:f", Entry("train-v2", "f", "/home/me")),
        ("/:a.b:f", Entry("a.b", "f", "/")),
        *((bad, None) for bad in ("mine", "mine:", ":f", "a-b:f", "2a:f", "a:f:g", "a b:f", "home/me:a:f", "/a:b:c:d")),
        *((bad, None) for bad in ("/home/../etc:a:f", "/a\0:b:c", "/home:/a:f", "")),
    ],
)
def test_names(text: str, entry: Entry | None) -> None:
    assert parse(text) == entry


def test_the_function_wherever_its_module_lies() -> None:
    assert Entry("mine", "train", "/home/me").name == "mine:train"
