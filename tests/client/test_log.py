"""The log of a window in `gpusched top`: it is followed, scrolled, and looked through."""

from __future__ import annotations

import pytest
from rich.cells import cell_len, chop_cells

from gpusched.client.drawing.window_page import WindowFrame
from gpusched.client.views import log as module
from gpusched.client.views.log import LogView
from tests.client.support import drawn
from tests.client.test_screens import HOSTILE


def lines(log: LogView, width: int = 20, room: int = 3) -> list[str]:
    return [row.text for row in log.look(width, room)[1]]


def test_it_is_followed_until_somebody_scrolls_and_again_at_its_end() -> None:
    log = LogView(chop_cells)
    for number in range(10):
        log.add(f"line {number}")
    assert lines(log) == ["line 7", "line 8", "line 9"]
    log.move(-2)
    log.add("line 10")
    assert lines(log) == ["line 5", "line 6", "line 7"]
    log.move(100)
    log.add("line 11")
    assert lines(log) == ["line 9", "line 10", "line 11"]
    log.move(-100)
    assert lines(log)[0] == "line 0"


def test_long_lines_are_wrapped_anew_when_the_screen_is_resized() -> None:
    log = LogView(chop_cells)
    log.add("a" * 30)
    log.add("", note=True)
    assert lines(log, 20) == ["a" * 20, "a" * 10, ""]
    assert lines(log, 40) == ["a" * 30, ""]
    log.add("東京" * 30)
    assert all(cell_len(line) <= 40 for line in lines(log, 40, 10)), "a wide character takes two cells"


def test_the_oldest_lines_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_LINES", 5000)
    log = LogView(chop_cells)
    log.look(20, 3)
    log.add("b" * 50)
    for number in range(5000):
        log.add(f"line {number}")
    assert len(log) == 5000
    log.move(-10_000)
    assert lines(log)[0] == "line 0"


def test_words_are_found_from_here_on_and_round_the_end() -> None:
    log = LogView(chop_cells)
    for number in range(20):
        log.add(f"line {number}" + (" Needle" if number in (3, 12) else ""))
    assert log.look(30, 3)[0] == 17
    log.find("needle")
    assert log.found == 2
    assert lines(log, 30)[0] == "line 3 Needle", "there is none from here on"
    assert not log.following
    log.seek(1)
    assert lines(log, 30)[0] == "line 12 Needle"
    log.seek(1)
    assert lines(log, 30)[0] == "line 3 Needle"
    log.seek(-1)
    assert lines(log, 30)[0] == "line 12 Needle"
    log.find("nowhere")
    log.seek(1)
    assert lines(log, 30)[0] == "line 12 Needle"
    log.find("")
    log.seek(1)
    assert log.found == 0
    LogView(chop_cells).seek(1)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (30, 8), (20, 2)])
def test_a_frame_never_exceeds_the_screen(width: int, height: int, encoding: str) -> None:
    log = LogView(chop_cells)
    log.add("a needle in a line")
    log.find("needle")
    frame = WindowFrame(name=HOSTILE, story=["Window   x", f"Data     {HOSTILE}"] * 10, log=log, above=3, in_story=True)
    shown = drawn(frame, width, height, encoding=encoding).split("\n")
    assert len(shown) <= max(height, 2)
    assert all(cell_len(line) <= width and line.isprintable() for line in shown)
    assert encoding == "utf-8" or "".join(shown).isascii()
    if width == 80:
        assert "1 row has 'needle'" in "\n".join(shown)
