"""The desk: all that a page may ask of the app that shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rich.console import Console
from textual.screen import Screen

from gpusched.client.connection import Connection
from gpusched.client.views.host import HostView
from gpusched.client.views.overview import Overview
from gpusched.errors import GpuschedError


class Desk(Protocol):
    """Kept by `app.Top`. Times are monotonic seconds."""

    console_of_terminal: Console
    overview: Overview
    #: the daemon's socket; None until one is found where clients look
    socket: Path | None
    state_dir: Path
    #: the machine, as it was seen last; None: not yet
    host: HostView | None
    #: the name of what is shown, for the title
    words: str
    #: a frame is due
    changed: bool

    @property
    def monotonic(self) -> float:
        """The instant that frames show."""
        ...

    @property
    def clock(self) -> str:
        """The time of day."""
        ...

    @property
    def message(self) -> str:
        """The sentence in the place of the keys, or nothing."""
        ...

    def say(self, answer: str) -> None:
        """Show a sentence in the place of the keys until another key is pressed; an empty one shows the keys."""
        ...

    def lack(self, error: GpuschedError) -> None:
        """From a thread: say why a page has nothing to show. While the daemon is lost, the screen says so already."""
        ...

    def open(self, page: Screen[None]) -> None:
        """Lay a page over this one."""
        ...

    def ask(self, question: str, action: Callable[[Connection], str]) -> None:
        """Do `action` if the answer to `question` is yes."""
        ...

    def do(self, action: Callable[[Connection], str]) -> None:
        """Run `action` in a thread, on a connection of its own, and show the sentence that it returns."""
        ...
