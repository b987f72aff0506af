"""The base of every page of `top`: a canvas, a search, and the keys."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input

from gpusched.client.drawing.line import Drawn
from gpusched.client.top.canvas import Canvas
from gpusched.client.top.desk import Desk
from gpusched.client.top.verbs import Target, change, hold_or_release, named, said
from gpusched.core.statuses import APPLIES_TO, PARTICIPLES, WindowVerb
from gpusched.protocol import Delta, Snapshot


class Page(Screen[None]):
    """A whole screen, and the keys that all of them have."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)"),
        Binding("up,k", "move(-1)"),
        Binding("pagedown", "page(1)"),
        Binding("pageup", "page(-1)"),
        Binding("home,g", "move(-1000000)"),
        Binding("end,G", "move(1000000)"),
        Binding("space", "mark"),
        Binding("tab", "turn(1)"),
        Binding("shift+tab", "turn(-1)"),
        Binding("enter", "open"),
        Binding("escape", "back"),
        Binding("c", "change('cancel')"),
        Binding("h", "change('hold')"),
        Binding("r", "change('retry')"),
        Binding("d", "drain"),
        Binding("f,slash", "look_for"),
        Binding("s", "sort"),
        Binding("m", "metric"),
        Binding("n", "next(1)"),
        Binding("N", "next(-1)"),
        Binding("F", "follow"),
        Binding("v", "status"),
    ]
    AUTO_FOCUS = ""

    @property
    def top(self) -> Desk:
        return cast("Desk", self.app)

    def compose(self) -> ComposeResult:
        self.canvas = Canvas(self.top.console_of_terminal, self._clicked, self.action_move)
        yield self.canvas
        yield Input(placeholder="words to look for; enter keeps them, esc shows all", compact=True)

    def _clicked(self, x: int, y: int, twice: bool) -> None:  # a callback
        self.top.say("")
        self.click(x, y, twice=twice)

    def on_resize(self) -> None:
        self.top.changed = True

    def on_screen_resume(self) -> None:
        self.top.changed = True

    def redraw(self) -> None:
        if self.canvas.size.area:  # it has none before it was laid out
            self.canvas.show(self.frame())

    def frame(self) -> Drawn:
        raise NotImplementedError

    def learn(self, delta: Delta | Snapshot) -> None:
        """Something happened; the overview knows it already."""

    def targets(self) -> list[Target]:
        """The batches and windows that keys act upon."""
        raise NotImplementedError

    def statuses(self) -> set[str]:
        """Names of the states and outcomes of the windows that keys act upon; empty where they are not known."""
        return set()

    # -- keys ----------------------------------------------------------------------------------------------------------

    def step(self, rows: int) -> None:
        """Choose another row."""

    def click(self, x: int, y: int, *, twice: bool) -> None:
        """Choose the row that is there; `twice`: open it."""

    def find(self, words: str) -> None:
        """Show only lines that have these words."""

    def action_move(self, step: int) -> None:
        self.step(step)
        self.top.say("")

    def action_page(self, step: int) -> None:
        self.action_move(step * max(1, self.canvas.size.height - 4))

    def action_mark(self) -> None:
        """Mark the chosen row, so that keys act upon all that are marked."""

    def action_turn(self, step: int) -> None:
        """Go to another panel."""

    def action_open(self) -> None:
        """Open the chosen row."""

    def action_back(self) -> None:
        self.top.say("")
        if not self._end_search():
            self.app.pop_screen()

    def action_sort(self) -> None:
        """Show it in another order."""

    def action_next(self, step: int) -> None:
        """Go to the next place with the words that are looked for, or to the one before."""

    def action_follow(self) -> None:
        """Follow a log to its end, or stay here."""

    def action_status(self) -> None:
        """Show only windows in another state."""

    def action_metric(self) -> None:
        """Show another metric."""

    def action_drain(self) -> None:
        self.top.say("d drains a device: choose one, on the first page")

    def look_for(self, words: str) -> None:
        """Show only lines with these words, as if they had been typed."""
        self.query_one(Input).value = words

    def action_look_for(self) -> None:
        field = self.query_one(Input)
        field.display = True
        # At once, so that the next key already goes there.
        self.set_focus(field)

    def on_input_changed(self, changed: Input.Changed) -> None:
        self.find(changed.value)
        self.top.say("")

    def on_input_submitted(self) -> None:
        self.query_one(Input).display = False
        self.set_focus(None)
        self.top.changed = True

    def _end_search(self) -> bool:
        field = self.query_one(Input)
        open_now = bool(field.display or field.value)
        field.value = ""
        field.display = False
        self.set_focus(None)
        return open_now

    def action_change(self, verb: WindowVerb) -> None:
        targets = self.targets()
        if not targets:
            self.top.say("c, h and r act upon a batch or a window, and none is chosen")
            return
        statuses = self.statuses()
        if verb in ("cancel", "retry") and statuses and statuses.isdisjoint(APPLIES_TO[verb]):
            self.top.say(said(0, PARTICIPLES[verb]))
            return
        name = named(targets)
        match verb:
            case "cancel":
                self.top.ask(f"Cancel {name}?", partial(change, verb, targets))
            case "retry" if all(label is None for _, label in targets):
                self.top.ask(f"Run the failed and cancelled windows of {name} again?", partial(change, verb, targets))
            case "retry":
                self.top.ask(f"Run {name} again?", partial(change, verb, targets))
            case _:
                self.top.do(partial(hold_or_release, targets))
