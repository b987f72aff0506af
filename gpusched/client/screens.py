"""The screens of `gpusched top`: what keys do on each, and which pure frame or text it shows."""

from __future__ import annotations

import time
from functools import partial
from textwrap import wrap
from typing import TYPE_CHECKING, ClassVar, cast

import msgspec
from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Input, RichLog, Static

from gpusched.client.canvas import Canvas
from gpusched.client.cells import clean
from gpusched.client.connection import Connection, connect
from gpusched.client.dashboard import Frame
from gpusched.client.details import device_details, window_details
from gpusched.client.overview import DeviceView
from gpusched.client.panels import ORDERS, Cursor, Panel, Row, rows
from gpusched.client.view import BatchView, FinishedWindow, RunningWindow
from gpusched.client.windows import WindowList, WindowsFrame
from gpusched.core.events import WindowMoved
from gpusched.core.model import Starting
from gpusched.errors import GpuschedError
from gpusched.protocol import Delta, LogChunk, Snapshot, Verb

if TYPE_CHECKING:
    from gpusched.client.top import Top

#: lines of a log that are kept to be scrolled through
LOG_LINES = 5000


class Change(msgspec.Struct, frozen=True):
    """What a key that asks first does to windows."""

    #: the states or outcomes in which it can be done
    possible: set[str]
    #: what they are then
    done: str


CHANGES = {
    "cancel": Change({"queued", "held", "starting", "running", "stopping"}, "cancelled"),
    "retry": Change({"failed", "timed_out", "cancelled", "lost"}, "queued again"),
}

#: cells in which a detail is named, before what it is
DETAIL = 9

HELP = (
    ("tab, shift+tab", "next or previous panel; a window's story or its log"),
    ("↑ ↓ or k j", "choose a row; page up and down, home and end go further"),
    ("enter", "a batch's windows; a window's story and live log; a device"),
    ("esc", "back"),
    ("c", "cancel the chosen batch or window; asks first"),
    ("h", "hold it, or release it"),
    ("r", "run again what failed or was cancelled in it; asks first"),
    ("d", "drain the chosen device, which asks first, or open it"),
    ("f or /", "show only what has these words; esc shows all again"),
    ("s", "sort windows: by slot or time, by status or label"),
    ("q or ctrl+c", "leave; what runs goes on"),
)


class Page(Screen[None]):
    """A whole screen, and the keys that all of them have."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)"),
        Binding("up,k", "move(-1)"),
        Binding("pagedown,space", "page(1)"),
        Binding("pageup", "page(-1)"),
        Binding("home,g", "move(-1000000)"),
        Binding("end,G", "move(1000000)"),
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
    ]
    AUTO_FOCUS = ""

    @property
    def top(self) -> Top:
        return cast("Top", self.app)

    def compose(self) -> ComposeResult:
        self.canvas = Canvas(self.top.console_of_terminal)
        yield self.canvas
        yield Input(placeholder="words to look for; enter keeps them, esc shows all", compact=True)

    def on_resize(self) -> None:
        self.top.changed = True

    def on_screen_resume(self) -> None:
        self.top.changed = True

    def redraw(self) -> None:
        self.canvas.show(self.frame())

    def frame(self) -> RenderableType:
        raise NotImplementedError

    def learn(self, delta: Delta | Snapshot) -> None:
        """Something happened; the overview knows it already."""

    def target(self) -> tuple[str, str | None] | None:
        """(batch, window or None) that keys act upon."""
        raise NotImplementedError

    def statuses(self) -> set[str]:
        """What the windows are that keys act upon: names of states and outcomes, as far as they are known."""
        return set()

    # -- keys ----------------------------------------------------------------------------------------------------------

    def step(self, rows: int) -> None:
        """Choose another row."""

    def find(self, words: str) -> None:
        """Show only what has these words."""

    def action_move(self, step: int) -> None:
        self.step(step)
        self.top.say("")

    def action_page(self, step: int) -> None:
        self.action_move(step * max(1, self.canvas.size.height - 4))

    def action_turn(self, step: int) -> None:
        """Go to another panel."""

    def action_open(self) -> None:
        """Show more of what is chosen."""

    def action_back(self) -> None:
        self.top.say("")
        if not self._end_search():
            self.top.pop_screen()

    def action_sort(self) -> None:
        """Show it in another order."""

    def action_drain(self) -> None:
        self.top.say("d drains a device: choose one, on the first page")

    def action_look_for(self) -> None:
        field = self.query_one(Input)
        field.display = True
        # At once, so that what is typed right after goes there too.
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

    def action_change(self, verb: Verb) -> None:
        target = self.target()
        if target is None:
            self.top.say("c, h and r act upon a batch or a window, and none is chosen")
            return
        statuses = self.statuses()
        if verb in CHANGES and statuses and not statuses & CHANGES[verb].possible:
            self.top.say(_said(0, CHANGES[verb].done))
            return
        batch_id, label = target
        name = f"{batch_id}/{label}" if label else batch_id
        match verb:
            case "cancel":
                self.top.ask(f"Cancel {name}?", partial(_cancel, batch_id, label))
            case "retry" if label is None:
                self.top.ask(f"Run the failed and cancelled windows of {name} again?", partial(_retry, batch_id, None))
            case "retry":
                self.top.ask(f"Run {name} again?", partial(_retry, batch_id, label))
            case _:
                self.top.do(partial(_hold_or_release, batch_id, label))


class Dashboard(Page):
    """Devices, batches, what runs and what has finished."""

    def __init__(self) -> None:
        super().__init__()
        self._cursor = Cursor()
        self._words = ""
        self._order = 0

    def frame(self) -> Frame:
        return Frame(
            overview=self.top.overview,
            monotonic=self.top.monotonic,
            title=self.top.words,
            cursor=self._cursor,
            words=self._words,
            order=ORDERS[self._order],
            message=self.top.message,
        )

    def _rows(self) -> dict[Panel, list[Row]]:
        return rows(self.top.overview, self._words, ORDERS[self._order])

    def _row(self) -> Row | None:
        return self._cursor.row(self._rows())

    def target(self) -> tuple[str, str | None] | None:
        row = self._row()
        return (row.batch_id, row.label) if row is not None and row.batch_id else None

    def statuses(self) -> set[str]:
        match row.what if (row := self._row()) is not None else None:
            case BatchView() as view:
                unfinished = {"queued": view.total - view.done}
                return {name for name, count in (view.counts | unfinished).items() if count}
            case RunningWindow():
                return {"running"}
            case FinishedWindow(outcome=outcome):
                return {outcome}
            case _:
                return set()

    def step(self, rows: int) -> None:
        self._cursor.move(self._rows(), rows)

    def find(self, words: str) -> None:
        self._words = words

    def action_turn(self, step: int) -> None:
        self._cursor.turn(self._rows(), step)
        self.top.say("")

    def action_back(self) -> None:
        self.top.say("")
        self._end_search()

    def action_sort(self) -> None:
        self._order = (self._order + 1) % len(ORDERS)
        self.top.say(f"Windows that run are sorted by {ORDERS[self._order]}")

    def action_open(self) -> None:
        row = self._row()
        if row is None:
            return
        if isinstance(row.what, DeviceView):
            self.top.open(DevicePage(row.key))
        elif row.label is None:
            self.top.open(WindowsPage(row.batch_id))
        else:
            self.top.open(WindowPage(row.batch_id, row.label))

    def action_drain(self) -> None:
        row = self._row()
        if row is None or not isinstance(row.what, DeviceView):
            self.top.say("d drains a device: choose one with tab and the arrows")
        elif row.what.status.health == "open":
            self.top.ask(f"Place nothing more on {row.key}?", partial(_drain, row.key))
        else:
            self.top.do(partial(_resume, row.key))


class WindowsPage(Page):
    """All windows of a batch."""

    def __init__(self, batch_id: str) -> None:
        super().__init__()
        self._windows = WindowList(batch_id)

    def on_mount(self) -> None:
        self._reload()

    def _reload(self) -> None:
        self.run_worker(self._load, thread=True, exclusive=True)

    def _load(self) -> None:
        try:
            with connect(self.top.socket) as link:
                found = list(link.windows(self._windows.batch_id))
        except GpuschedError as error:
            self.top.call_from_thread(self.top.say, str(error).partition("\n")[0])
        else:
            self.top.call_from_thread(self._windows.load, found)
            self.top.changed = True

    def learn(self, delta: Delta | Snapshot) -> None:
        if isinstance(delta, WindowMoved):
            self._windows.apply(delta)
        elif isinstance(delta, Snapshot):
            self._reload()

    def frame(self) -> WindowsFrame:
        return WindowsFrame(
            windows=self._windows,
            view=self.top.overview.batches.get(self._windows.batch_id),
            monotonic=self.top.monotonic,
            wall=time.time() - (time.monotonic() - self.top.monotonic),
            message=self.top.message,
        )

    def target(self) -> tuple[str, str | None] | None:
        chosen = self._windows.chosen(self.top.monotonic)
        return None if chosen is None else (self._windows.batch_id, chosen[1].label)

    def statuses(self) -> set[str]:
        chosen = self._windows.chosen(self.top.monotonic)
        return set() if chosen is None else {chosen[1].status}

    def step(self, rows: int) -> None:
        self._windows.move(rows, self.top.monotonic)

    def find(self, words: str) -> None:
        self._windows.look_for(words)

    def action_sort(self) -> None:
        self._windows.next_order()
        self.top.say("")

    def action_open(self) -> None:
        if (target := self.target()) is not None and target[1] is not None:
            self.top.open(WindowPage(target[0], target[1]))


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
            self.top.call_from_thread(self.top.say, str(error).partition("\n")[0])
        else:
            self._status = detail.window.status
            page = "\n".join(window_details(detail, self.top.state_dir / "logs" / self._batch_id))
            self.top.call_from_thread(self._tell, page)

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
                    self.top.call_from_thread(self._write, chunk)
        except GpuschedError as error:
            if self.is_mounted:
                self.top.call_from_thread(self._followed, str(error).partition("\n")[0])
        else:
            self.top.call_from_thread(self._followed, "The window has finished")

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
            self.top.call_from_thread(self.top.say, str(error).partition("\n")[0])
        else:
            self._lines = list(device_details(found[0], time.time())) if found else []
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
            self.top.ask(f"Place nothing more on {self._device_id}?", partial(_drain, self._device_id))
        else:
            self.top.do(partial(_resume, self._device_id))


class Question(ModalScreen[bool]):
    """Something that cannot be taken back: only `y` does it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,Y", "answer(True)"),
        Binding("n,N,escape,enter", "answer(False)"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        plain = cast("Top", self.app).console_of_terminal.options.ascii_only
        yield Static(Text(f"{clean(self._question, ascii_only=plain)} y/n", "bold yellow"))

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class Help(ModalScreen[None]):
    """What the keys do."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,question_mark,space", "dismiss"),
        Binding("down,j,pagedown", "scroll(1)"),
        Binding("up,k,pageup", "scroll(-1)"),
    ]

    def compose(self) -> ComposeResult:
        plain = cast("Top", self.app).console_of_terminal.options.ascii_only
        with VerticalScroll(can_focus=False):
            # The keys of each line beside its words, however often those wrap.
            for keys, words in HELP:
                with Horizontal():
                    yield Static(Text(clean(keys, ascii_only=plain)), classes="keys")
                    yield Static(Text(words))

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)


# -- what keys have done -----------------------------------------------------------------------------------------------


def _cancel(batch_id: str, label: str | None, link: Connection) -> str:
    return _said(link.cancel(batch_id, label).windows, CHANGES["cancel"].done)


def _retry(batch_id: str, label: str | None, link: Connection) -> str:
    return _said(link.retry(batch_id, label).windows, CHANGES["retry"].done)


def _hold_or_release(batch_id: str, label: str | None, link: Connection) -> str:
    held = (
        link.batch(batch_id).batch.state == "held"
        if label is None
        else link.window(batch_id, label).window.status == "held"
    )
    if held:
        return _said(link.release(batch_id, label).windows, "released")
    return _said(link.hold(batch_id, label).windows, "held")


def _said(windows: int, done: str) -> str:
    if not windows:
        return f"Nothing here can be {done}"
    return f"{windows} {'window' if windows == 1 else 'windows'} {done}"


def _drain(device_id: str, link: Connection) -> str:
    link.drain(device_id)
    return f"{device_id} is draining: its windows go on, and no other starts there"


def _resume(device_id: str, link: Connection) -> str:
    link.resume(device_id)
    return f"{device_id} is open"
