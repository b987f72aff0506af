"""The pages of `top` about one thing: a window with its story and log, a device."""

from __future__ import annotations

import time
from functools import partial
from textwrap import wrap

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Input, RichLog, Static

from gpusched.client.connection import Connection, connect
from gpusched.client.drawing.details import device_details, window_details
from gpusched.client.drawing.text import clean
from gpusched.client.top.canvas import Canvas
from gpusched.client.top.page import Page
from gpusched.client.top.verbs import drain, resume
from gpusched.core.events import WindowMoved
from gpusched.core.states import Starting
from gpusched.errors import GpuschedError
from gpusched.protocol import Delta, LogChunk, Snapshot

#: lines of a log that are kept to be scrolled through
LOG_LINES = 5000

#: cells of the name of a detail, before its value
DETAIL = 9


class WindowPage(Page):
    """One window: its story, and its log while it is written. Keys scroll the one or the other."""

    def __init__(self, batch_id: str, label: str) -> None:
        super().__init__()
        self._batch_id, self._label = batch_id, label
        #: empty as long as the daemon has not told
        self._status = ""
        #: the attempt whose log is shown, and how many bytes of it are
        self._attempt, self._seen = 0, 0
        #: a line of the log that has no end yet
        self._rest = ""
        #: the last line, if it is not of the log
        self._noted = ""
        self._following: Connection | None = None
        self._follows, self._more_to_follow = False, False
        self._in_story = False

    def compose(self) -> ComposeResult:
        yield VerticalScroll(Static(markup=False), classes="story", can_focus=False)
        yield RichLog(max_lines=LOG_LINES, wrap=True, markup=False, highlight=False, auto_scroll=True)
        self.canvas = Canvas(self.top.console_of_terminal)
        self.canvas.styles.height = 1
        yield self.canvas
        yield Input()

    def on_mount(self) -> None:
        self._refresh()
        self._follow_again()

    def on_unmount(self) -> None:
        if self._following is not None:
            self._following.abort()

    def _refresh(self) -> None:
        self.run_worker(self._ask, thread=True, exclusive=True, group="story")

    def _ask(self) -> None:
        try:
            with connect(self.top.socket) as link:
                detail = link.window(self._batch_id, self._label)
        except GpuschedError as error:
            self.app.call_from_thread(self.top.say, error.sentence)
        else:
            self._status = detail.window.status
            page = "\n".join(window_details(detail, self.top.state_dir / "logs" / self._batch_id))
            self.app.call_from_thread(self._tell, page)

    def _tell(self, page: str) -> None:
        if self.is_mounted:
            plain = self.top.console_of_terminal.options.ascii_only
            lines = [clean(line, ascii_only=plain) for line in page.splitlines()]
            self.query_one(".story Static", Static).update(Text("\n".join(lines)))

    def _follow_again(self) -> None:
        """The log ends with the window, and with the daemon; where it has not ended yet, as soon as it has."""
        self._more_to_follow = self._follows
        if not self._follows:
            self._follows = True
            self.run_worker(self._follow, thread=True)

    def _followed(self, why: str) -> None:
        self._follows = False
        self._note(why)
        if self._more_to_follow and self.is_mounted:
            self._follow_again()

    def _follow(self) -> None:
        """Hand over the log as it grows; the daemon ends it when the window is finished."""
        try:
            with connect(self.top.socket) as self._following:
                for chunk in self._following.log(self._batch_id, self._label, follow=True):
                    self.app.call_from_thread(self._write, chunk)
        except GpuschedError as error:
            if self.is_mounted:
                self.app.call_from_thread(self._followed, error.sentence)
        else:
            self.app.call_from_thread(self._followed, "The window has finished")

    def _write(self, chunk: LogChunk) -> None:
        if not self.is_mounted:
            return
        if chunk.attempt != self._attempt:
            self._attempt, self._seen, self._rest = chunk.attempt, 0, ""
            self._note(f"Log of attempt {chunk.attempt}")
        # Who follows again is told all of it again.
        data = chunk.data[max(0, self._seen - chunk.offset) :]
        if not data:
            return
        self._seen, self._noted = chunk.offset + len(chunk.data), ""
        *lines, self._rest = (self._rest + data.decode("utf-8", "replace")).split("\n")
        log, plain = self.query_one(RichLog), self.top.console_of_terminal.options.ascii_only
        for line in lines[-LOG_LINES:]:
            log.write(Text(clean(line, ascii_only=plain)))

    def _note(self, text: str) -> None:
        if self.is_mounted and text != self._noted:
            self._noted = text
            self.query_one(RichLog).write(Text(f"-- {text}", "bold"))

    def learn(self, delta: Delta | Snapshot) -> None:
        match delta:
            case WindowMoved(key=key, new=new) if (key.batch_id, key.label) == (self._batch_id, self._label):
                self._status = ""  # until it is told anew
                self._refresh()
                if isinstance(new, Starting):
                    self._follow_again()
            case Snapshot():
                self._refresh()
                self._follow_again()

    def frame(self) -> Text:
        other = "log" if self._in_story else "story"
        keys = f"j/k scroll  tab {other}  c cancel  h hold  r retry  esc back  ? help  q quit"
        return Text(self.top.message, "bold yellow") if self.top.message else Text(keys, "dim")

    def target(self) -> tuple[str, str | None]:
        return self._batch_id, self._label

    def statuses(self) -> set[str]:
        return {self._status} - {""}

    @property
    def _scrolled(self) -> Widget:
        return self.query_one(".story" if self._in_story else "RichLog", Widget)

    def step(self, rows: int) -> None:
        log = self.query_one(RichLog)
        log.auto_scroll = False
        self._scrolled.scroll_relative(y=rows, animate=False)
        log.auto_scroll = log.is_vertical_scroll_end

    def action_page(self, step: int) -> None:
        self.action_move(step * max(1, self._scrolled.size.height - 1))

    def action_turn(self, step: int) -> None:
        self._in_story = not self._in_story
        self.top.say("")

    def action_look_for(self) -> None:
        """There is nothing to choose from."""


class DevicePage(Page):
    """One device: its slots, memory and windows."""

    def __init__(self, device_id: str) -> None:
        super().__init__()
        self._device_id = device_id
        self._lines: list[str] = []

    def on_mount(self) -> None:
        self._refresh()
        self.set_interval(1.0, self._refresh)

    def _refresh(self) -> None:
        self.run_worker(self._ask, thread=True, exclusive=True)

    def _ask(self) -> None:
        try:
            with connect(self.top.socket) as link:
                found = [status for status in link.devices() if status.device.id == self._device_id]
        except GpuschedError as error:
            self.app.call_from_thread(self.top.say, error.sentence)
        else:
            self._lines = list(device_details(found[0], self.top.overview.unix(time.monotonic()))) if found else []
            self.top.changed = True

    def frame(self) -> Text:
        keys = "d drain or open  esc back  ? help  q quit"
        plain = self.top.console_of_terminal.options.ascii_only
        width, height = self.canvas.size
        lines: list[str] = []
        for line in self._lines:
            lines += wrap(clean(line, ascii_only=plain), width, subsequent_indent=" " * DETAIL)
        lines += [""] * (height - len(lines) - 1)
        text = Text("\n".join(lines[: height - 1]) + "\n", no_wrap=True, overflow="crop")
        text.append(self.top.message or keys, "bold yellow" if self.top.message else "dim")
        return text

    def target(self) -> None:
        return None

    def action_look_for(self) -> None:
        """There is nothing to choose from."""

    def action_drain(self) -> None:
        device = self.top.overview.devices.get(self._device_id)
        if device is not None and device.status.health == "open":
            self.top.ask(f"Place nothing more on {self._device_id}?", partial(drain, self._device_id))
        else:
            self.top.do(partial(resume, self._device_id))
