"""`gpusched top`: the daemon at work, live on a terminal, and the keys that act upon it.

Textual is the shell: keys, sizes, questions, scrolling. Frames are the same pure rich renderables that the tests
look at; nothing is drawn unless something changed, at most `FRAMES_PER_S` times a second, news of the daemon every
`NEWS_S` seconds, and only lines that changed. Requests to the daemon run in threads, so that a slow daemon never stops
the keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from rich.console import Console
from textual.app import App
from textual.binding import Binding, BindingType
from textual.command import CommandPalette, Provider
from textual.screen import Screen

from gpusched.client.connection import Connection, Subscription, connect
from gpusched.client.drawing.dashboard import title
from gpusched.client.host import look_at_host
from gpusched.client.link import HungUp
from gpusched.client.top.boxes import Help, Question, Told
from gpusched.client.top.lists import Dashboard
from gpusched.client.top.page import Page
from gpusched.client.top.palette import Commands
from gpusched.client.views.host import HostView
from gpusched.client.views.overview import Overview
from gpusched.core.samples import Sample
from gpusched.errors import GpuschedError
from gpusched.protocol import Delta, Snapshot
from gpusched.streams import when_gone

FRAMES_PER_S = 8
#: seconds between frames of the daemon's news; the answer to a key comes with the next frame
NEWS_S = 1 / 2
#: seconds between frames when nothing happens: elapsed times go on
IDLE_S = 1.0
#: seconds between looks at the machine
HOST_S = 2.0
#: seconds between attempts to find a daemon that was lost
RECONNECT_S = 1.0
#: signals that Textual's driver handles from its start on
_OF_THE_DRIVER = (signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
LOST = "The daemon has gone: trying to reach it again. This screen is from before"


class Top(App[None]):
    """The screen of one daemon, at `socket` or where clients look. `words` say who is shown, if not the daemon does."""

    #: without Textual's own, which change its looks
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {Commands}
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    Page Input { dock: bottom; height: 1; border: none; padding: 0; background: ansi_default; display: none; }
    Question, Told, Help { align: center middle; background: transparent; }
    Question > *, Told > *, Help > * {
        width: auto; max-width: 90%; height: auto; padding: 1 2; border: round ansi_yellow; background: ansi_default;
    }
    .plain Question > *, .plain Told > *, .plain Help > * { border: ascii ansi_yellow; }
    CommandPalette > Vertical { width: 74; max-width: 100%; margin-top: 2; background: ansi_default; }
    CommandPalette #--input { background: ansi_default; border: round ansi_cyan; }
    CommandPalette SearchIcon { display: none; }
    CommandPalette CommandInput { margin: 0 1; height: 1; border: none; }
    CommandPalette #--results, CommandPalette CommandList { background: ansi_default; border: none; }
    CommandPalette CommandList.--visible { border: round ansi_cyan; max-height: 60vh; }
    .plain CommandPalette #--input, .plain CommandPalette CommandList.--visible { border: ascii ansi_cyan; }
    Help VerticalScroll { width: 90; max-height: 100%; scrollbar-size-vertical: 1; }
    Help Horizontal { height: auto; }
    Help .keys { width: 17; }
    Help Static { width: 1fr; }
    .plain VerticalScroll, .plain CommandList { scrollbar-size-vertical: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "leave", priority=False),
        Binding("ctrl+q", "leave", priority=True),
        Binding("question_mark", "help"),
        Binding("colon,ctrl+p", "command_palette"),
        Binding("ctrl+z", "suspend_process", priority=True),
    ]

    def __init__(self, console: Console, socket: Path | None, words: str = "") -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.console_of_terminal = console
        self.socket = socket
        self.overview = Overview()
        self.words = words or "gpusched"
        self._named = bool(words)
        self._answer = ""
        #: monotonic instant since which there is no daemon: none was lost if None
        self._lost_at: float | None = None
        self.state_dir = Path()
        self.host: HostView | None = None
        self.changed = True
        self._news = False
        self._drawn_at = 0.0
        self._connection: Connection | None = None
        self._subscription: Subscription | None = None

    async def run_until(self, over: Awaitable[None]) -> None:
        """Run in the loop of the caller until somebody leaves, or `over` is."""

        async def leave() -> None:
            await over
            self.exit()

        handlers = {number: signal.getsignal(number) for number in _OF_THE_DRIVER}
        try:
            async with asyncio.TaskGroup() as tasks:
                leaving = tasks.create_task(leave())
                await self.run_async()
                leaving.cancel()
        finally:
            # Textual's would take the terminal again after the next Ctrl-Z.
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def on_mount(self) -> None:
        self.set_class(self._plain, "plain")
        self.push_screen(Dashboard())
        self.set_interval(1 / FRAMES_PER_S, self._draw)
        self.set_interval(HOST_S, self._look_at_host)
        self._look_at_host()
        # Everything drawn before a Ctrl-Z is gone; Textual itself would write only changed lines.
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))
        when_gone(sys.stdin, partial(self._hang_up, asyncio.get_running_loop()))
        self._reach()

    def on_unmount(self) -> None:
        self._let_go()

    def _hang_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """The terminal is gone; called from another thread, maybe when the screen is no longer there either."""
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self.exit)

    def _look_at_host(self) -> None:
        """In a thread: a file system may be slow."""

        def look() -> None:
            self.host = look_at_host(self.state_dir)
            self.changed = True

        self.run_worker(look, thread=True, exclusive=True, group="host")

    # -- deltas ------------------------------------------------------------------------------------------------------

    def _reach(self) -> None:
        self.run_worker(self._connect, thread=True, exclusive=True, group="reach")

    def _connect(self) -> None:
        try:
            connection = connect(self.socket)
            samples = connection.history()
            subscription = connection.subscribe()
        except GpuschedError:
            self.call_from_thread(self.set_timer, RECONNECT_S, self._reach)
        else:
            self.call_from_thread(self._follow, connection, subscription, samples)

    def _follow(self, connection: Connection, subscription: Subscription, samples: tuple[Sample, ...]) -> None:
        self._connection, self._subscription = connection, subscription
        self._lost_at = None
        self.socket = connection.path
        self.state_dir = Path(connection.daemon.state_dir)
        if not self._named:
            self.words = title(connection)
        self.overview.remember(samples)
        self._take([subscription.snapshot])
        asyncio.get_running_loop().add_reader(subscription.fileno(), self._receive)
        self._receive()
        self.say("")

    def _receive(self) -> None:
        assert self._subscription is not None
        try:
            self._take(self._subscription.pending())
        except GpuschedError:
            self._let_go()
            self._lost_at = time.monotonic()
            self.say("")
            self.set_timer(RECONNECT_S, self._reach)

    def _take(self, deltas: Iterable[Delta | Snapshot]) -> None:
        now = time.monotonic()
        for delta in deltas:
            self.overview.apply(delta, now)
            for page in self._pages():
                page.learn(delta)
            self._news = True

    def _let_go(self) -> None:
        if self._subscription is not None:
            asyncio.get_running_loop().remove_reader(self._subscription.fileno())
            self._subscription = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- frames ------------------------------------------------------------------------------------------------------

    def _pages(self) -> list[Page]:
        return [screen for screen in self.screen_stack if isinstance(screen, Page)]

    def _draw(self) -> None:
        now = time.monotonic()
        for page in self._pages()[-1:]:  # when the last is closed, a frame may still be due
            # One that was opened a moment ago may have nothing to draw on yet.
            due = self.changed or now - self._drawn_at >= (NEWS_S if self._news else IDLE_S)
            if page.is_mounted and due:
                self.changed, self._news, self._drawn_at = False, False, now
                page.redraw()

    @property
    def monotonic(self) -> float:
        """The instant that frames show: it stands still while the daemon is lost."""
        return time.monotonic() if self._lost_at is None else self._lost_at

    @property
    def clock(self) -> str:
        """The time of day here."""
        return time.strftime("%H:%M:%S")

    @property
    def message(self) -> str:
        """The sentence in the place of the keys: while the daemon is lost, nothing but that."""
        return self._answer if self._lost_at is None else LOST

    def say(self, answer: str) -> None:
        """Until another key is pressed; nothing if it is empty."""
        if cell_len(answer) > self.size.width:
            if not (isinstance(self.screen, Told) and self.screen.answer == answer):
                self.push_screen(Told(answer, plain=self._plain))
            answer = ""
        self._answer = answer
        self.changed = True

    def lack(self, error: GpuschedError) -> None:
        # One that hangs up is lost, too, if not yet for the other connection.
        if self._lost_at is None and not isinstance(error, HungUp):
            self.call_from_thread(self.say, error.sentence)

    @property
    def _plain(self) -> bool:
        """Whether the terminal shows ASCII alone."""
        return bool(self.console_of_terminal.options.ascii_only)

    def open(self, page: Screen[None]) -> None:
        self.say("")
        self.push_screen(page)

    # -- actions -----------------------------------------------------------------------------------------------------

    def ask(self, question: str, action: Callable[[Connection], str]) -> None:
        """Do it if the answer is yes."""
        self.push_screen(Question(question, plain=self._plain), lambda yes: self.do(action) if yes else None)

    def do(self, action: Callable[[Connection], str]) -> None:
        """Have the daemon do something, and show its answer."""
        self.run_worker(partial(self._do, action), thread=True)

    def _do(self, action: Callable[[Connection], str]) -> None:
        """Over a connection of its own, since the other one carries deltas."""
        try:
            with connect(self.socket) as link:
                said = action(link)
        except GpuschedError as error:
            said = error.sentence
        self.call_from_thread(self.say, said)

    def action_leave(self) -> None:
        self.exit()

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette(placeholder="a command, a batch or a device", id="--command-palette"))

    def action_help(self) -> None:
        self.push_screen(Help(plain=self._plain))
