"""The line to look at, from tracebacks."""

from __future__ import annotations

import json
import traceback

import pytest

from gpusched.worker.stream import error_message
from gpusched.worker.tracebacks import MAX_CHARS, source_line


def test_the_deepest_line_of_own_code_is_named() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    whole = "".join(traceback.format_exception(caught.value))
    assert source_line(whole).startswith(f"{__file__}:"), "not the library's"
    assert source_line(f"printed before\n{whole}and after") == source_line(whole)


def test_of_several_exceptions_the_last_is_named() -> None:
    text = "\n".join(
        [
            "Traceback (most recent call last):",
            '  File "/a/first.py", line 1, in f',
            "KeyError: 1",
            "The above exception was the direct cause of the following exception:",
            "Traceback (most recent call last):",
            '  File "/a/second.py", line 2, in g',
            '  File "/venv/lib/python3.11/site-packages/pandas/core.py", line 3, in h',
            "ValueError: 2",
        ]
    )
    assert source_line(text) == "/a/second.py:2"


@pytest.mark.parametrize("text", ["", "no traceback at all", "Traceback (most recent call last):\nKeyError"])
def test_text_without_a_line(text: str) -> None:
    assert source_line(text) == ""


def test_without_own_code_the_librarys_line_is_named_and_it_is_bounded() -> None:
    library = "/usr/lib/python3.11/json/decoder.py"
    assert source_line(f'Traceback (most recent call last):\n  File "{library}", line 7, in x\n') == f"{library}:7"
    assert len(source_line(f'  File "/{"x" * 9999}", line 7, in x\n')) == MAX_CHARS


def test_messages_for_people_have_no_line() -> None:
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("a")
    assert error_message("bad_data", caught.value).source_line == ""
    assert error_message("raised", caught.value).source_line.startswith(f"{__file__}:")
