"""The pages of `top` about one thing: a window with its story and log, a device."""

from __future__ import annotations

from pathlib import Path

from rich.cells import chop_cells
from textual.worker import get_current_worker

from gpusched.client.connection import Connection, connect
from gpusched.client.drawing.details import importance_details, window_details
from gpusched.client.drawing.device_page import DeviceFrame
from gpusched.client.drawing.plain import clean
from gpusched.client.drawing.window_page import WindowFrame
from gpusched.client.importances import look_at_importances
from gpusched.client.top.page import Page
from gpusched.client.top.verbs import Target, drain_or_open
from gpusched.client.views.log import KEPT_LINES, LogView
from gpusched.core.events import WindowMoved
from gpusched.core.states import Starting
from gpusched.core.statuses import UNFINISHED, result_of
from gpusched.errors import GpuschedError
from gpusched.protocol import Delta, DeviceStatus, LogChunk, Snapshot, WindowDetail


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
        self._log_ended = False
        self._in_story = False
        #: lines of the story, and those that are scrolled out
        self._story: list[str] = []
        self._above = 0
        self._log = LogView(chop_cells)

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
            self.top.lack(error)
        else:
            story = list(window_details(detail, self.top.state_dir / "logs" / self._batch_id))
            bars = list(importance_details(_importances(detail), self.canvas.glyphs))
            at = next((number for number, line in enumerate(story) if line.startswith("Attempt")), len(story))
            if not get_current_worker().is_cancelled:  # else it is asked anew, and this is old
                self._status, self._story = detail.window.status, story[:at] + bars + story[at:]
                self.top.changed = True

    def _follow_again(self) -> None:
        """The log ends with the window, and with the daemon; where it has not ended yet, as soon as it has."""
        self._more_to_follow = self._follows
        if not self._follows:
            self._follows, self._log_ended = True, False
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
            self._log_ended = True
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
        plain = self.top.console_of_terminal.options.ascii_only
        for line in lines[-KEPT_LINES:]:
            self._log.add(clean(line, ascii_only=plain))
        self.top.changed = True

    def _note(self, text: str) -> None:
        if self.is_mounted and text != self._noted:
            self._noted = text
            self._log.add(f"-- {text}", note=True)
            self.top.changed = True

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

    def frame(self) -> WindowFrame:
        return WindowFrame(
            name=f"{self._batch_id}/{self._label}",
            story=self._story,
            log=self._log,
            above=self._above,
            in_story=self._in_story,
            message=self.top.message,
        )

    def targets(self) -> list[Target]:
        return [(self._batch_id, self._label)]

    def statuses(self) -> set[str]:
        if self._log_ended and self._status in UNFINISHED:
            return set()  # it has finished, which is about to be told
        return {self._status} - {""}

    def step(self, rows: int) -> None:
        if self._in_story:
            self._above = max(0, min(len(self._story), self._above + rows))
        else:
            self._log.move(rows)

    def action_page(self, step: int) -> None:
        self.action_move(step * max(1, self._log.room - 1))

    def action_turn(self, step: int) -> None:
        self._in_story = not self._in_story
        self.top.say("")

    def action_follow(self) -> None:
        self._log.following = not self._log.following
        self.top.say("")

    def find(self, words: str) -> None:
        self._log.find(words)

    def action_next(self, step: int) -> None:
        self._log.seek(step)
        self.top.say("")


def _importances(detail: WindowDetail) -> dict[str, float]:
    """Those of the window's model, which this user may not be able to read. In a thread: a file system may be slow."""
    result = result_of(detail.state)
    return {} if result is None else look_at_importances(Path(result.artifacts_path))


class DevicePage(Page):
    """One device: ten minutes of readings, its slots, memory and windows, and whose processes are there."""

    def __init__(self, device_id: str) -> None:
        super().__init__()
        self._device_id = device_id
        self._status: DeviceStatus | None = None
        self._above = 0

    def on_mount(self) -> None:
        self._refresh()
        self.set_interval(1.0, self._refresh)

    def _refresh(self) -> None:
        self.run_worker(self._ask, thread=True, exclusive=True)

    def _ask(self) -> None:
        try:
            with connect(self.top.socket) as link:
                statuses = [status for status in link.devices() if status.device.id == self._device_id]
        except GpuschedError as error:
            self.top.lack(error)
        else:
            self._status = statuses[0] if statuses else None
            self.top.changed = True

    def frame(self) -> DeviceFrame:
        overview = self.top.overview
        now = overview.unix(self.top.monotonic)
        return DeviceFrame(
            status=self._status,
            samples=tuple(overview.history.of(self._device_id)),
            slots=overview.slots_of(self._device_id),
            known_since=overview.slot_times.since or now,
            now=now,
            above=self._above,
            message=self.top.message,
        )

    def step(self, rows: int) -> None:
        self._above = max(0, min(100, self._above + rows))

    def targets(self) -> list[Target]:
        return []

    def action_look_for(self) -> None:
        """There is nothing to choose from."""

    def action_drain(self) -> None:
        device = self.top.overview.devices.get(self._device_id)
        drain_or_open(self.top, self._device_id, is_open=device is not None and device.status.health == "open")
