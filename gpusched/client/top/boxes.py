"""The boxes that `top` lays over its pages."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from gpusched.client.drawing.plain import clean

HELP = (
    ("tab, shift+tab", "next or previous panel; windows, failures, symbols or settings; story or log"),
    ("↑ ↓ or k j", "choose a row; page up and down, home and end go further"),
    ("enter", "a batch's windows; a window's story and live log; a device"),
    ("esc", "back"),
    ("space", "mark a row: c, h and r then act upon all that are marked"),
    ("c", "cancel the chosen batch or window; asks first"),
    ("h", "hold it, or release it"),
    ("r", "run its failed and cancelled windows again; asks first"),
    ("d", "drain the chosen device, which asks first, or open it"),
    ("f or /", "show only lines with these words, or go to them in a log; esc ends it"),
    ("n, N", "the next place in a log with these words, the one before"),
    ("F", "follow a log to its end, or stay here"),
    ("s", "sort windows: by slot or time, by status or label, by a metric"),
    ("m, v", "show another metric; only windows in another state"),
    (": or ctrl+p", "commands, batches and devices by a few letters of their names"),
    ("mouse", "a click chooses a row, a second one opens it; shift selects text"),
    ("q or ctrl+c", "leave; everything goes on"),
)


class Question(ModalScreen[bool]):
    """Something that cannot be taken back: only `y` does it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,Y", "answer(True)"),
        Binding("n,N,escape,enter", "answer(False)"),
    ]

    def __init__(self, question: str, *, plain: bool) -> None:
        """`plain`: the terminal shows ASCII alone."""
        super().__init__()
        self._question = clean(question, ascii_only=plain)

    def compose(self) -> ComposeResult:
        yield Static(Text(f"{self._question} y/n", "bold yellow"))

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class Told(ModalScreen[None]):
    """An answer that is longer than the line for it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,space", "dismiss")]

    def __init__(self, answer: str, *, plain: bool) -> None:
        """`plain`: the terminal shows ASCII alone."""
        super().__init__()
        self.answer = answer
        self._plain = plain

    def compose(self) -> ComposeResult:
        yield Static(Text(clean(self.answer, ascii_only=self._plain), "bold yellow"))


class Help(ModalScreen[None]):
    """The help box: every key and its effect."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,question_mark,space", "dismiss"),
        Binding("down,j,pagedown", "scroll(1)"),
        Binding("up,k,pageup", "scroll(-1)"),
    ]

    def __init__(self, *, plain: bool) -> None:
        super().__init__()
        self._plain = plain

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            # The keys of each line beside its words, however often those wrap.
            for keys, words in HELP:
                with Horizontal():
                    yield Static(Text(clean(keys, ascii_only=self._plain)), classes="keys")
                    yield Static(Text(words))

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)
