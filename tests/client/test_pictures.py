"""The README's pictures show the frames of today: `python -m benchmarks.picture` draws them anew."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from gpusched.client.drawing import run as live
from gpusched.client.drawing.dashboard import KEYS
from tests.client.scenes import frame, scene
from tests.client.support import drawn
from tests.client.test_screens import busy

PICTURES = Path(__file__).parents[2] / ".pictures"
WIDTH = 110


def told(picture: str) -> str:
    """The text of a picture."""
    svg = (PICTURES / f"{picture}.svg").read_text()
    return html.unescape(re.sub(r"<[^>]*>", " ", svg)).replace("\N{NO-BREAK SPACE}", " ")


def headings(shown: str, *first: str) -> set[str]:
    """The words of the lines that begin with these."""
    lines = [line.split() for line in shown.split("\n")]
    return {word for line in lines if line and line[0] in first for word in line}


def test_top() -> None:
    assert KEYS in told("top")
    lines = [line for line in drawn(frame(scene()), WIDTH, 40).split("\n") if line.startswith("╭")]
    words = {word for line in lines for word in line.split() if word.isalpha()}
    assert words - {"busy", "waiting"} <= set(told("top").split())


@pytest.mark.parametrize("words", ["Finished last", "succeeded", "running", "waiting", "ETA"])
def test_run(words: str) -> None:
    look = busy(4)
    shown = drawn(live.Frame(view=look.view, began=1000.0, monotonic=look.at), WIDTH, 20)
    assert words in shown, "it is what is drawn now"
    assert words in told("run")
    assert headings(shown, "slot") <= set(told("run").split())
