"""The view of a batch for people: a screen while it runs, plain lines where there is no terminal.

Updates come from the supervisor's own thread and must not wait for a terminal: on one, they only change the view, and a
thread of its own draws it a few times a second, together with the notes above it. Elsewhere each finished
window is one line, written at once, so that a log file is never behind; a reader who pauses (`| less`) finds the lines
later.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.text import Text

from gpusched.client.drawing.plain import clean, opened
from gpusched.client.drawing.plan import plan_line
from gpusched.client.drawing.run import Frame
from gpusched.client.drawing.stopping import Stops
from gpusched.client.drawing.summary import failure_line, notes_lines
from gpusched.client.drawing.text import ASCII, FANCY, device_name, duration, key_metrics
from gpusched.client.views.batch import BatchView
from gpusched.client.views.window import FinishedWindow
from gpusched.core.events import BatchHeld, DeviceChanged, Update, WindowMoved
from gpusched.core.model import WindowResult
from gpusched.core.planning import Plan
from gpusched.core.states import Finished, Held, Queued, Succeeded
from gpusched.core.statuses import FAILURES, words
from gpusched.core.wording import SURVEY_NOTE_S, surveying
from gpusched.protocol import Snapshot
from gpusched.streams import Outbox, lost

#: seconds between frames
FRAME_S = 0.125
#: lines that are printed above the live area with one frame; of further ones only the number is said
LINES_A_FRAME = 30
_SIZES = ("COLUMNS", "LINES")
RUN_AGAIN = "Run the same again to train those anew that were trained before the change."


def open_console(stderr: bool = False) -> Console:
    """A console on stdout or stderr that takes all text literally, and never fails over a character.

    rich leaves out colours where NO_COLOR is set, and everything but text where there is no terminal; lines stay whole
    there.
    """
    stream = opened(stderr=stderr)
    # The stream as it is now: Textual puts another one in its place, which says nothing about the terminal.
    in_a_pipe = not (stream is not None and stream.isatty())
    # A size of 0 is one that a container or a CI does not know; rich would print nothing.
    environment = {name: value for name, value in os.environ.items() if name not in _SIZES or value.strip("0")}
    return _Console(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=in_a_pipe, _environ=environment)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the caller know, as `print` does; rich would end the process with exit code 1."""
        raise BrokenPipeError


def takes_keys(console: Console) -> bool:
    """Whether somebody at a terminal sees the console and can press keys, which Textual reads; it draws on stderr."""
    seen = console.is_terminal and not console.is_dumb_terminal
    return seen and sys.stdin.isatty() and sys.stderr.isatty()


class RunScreen:
    """Shows one batch while it runs: `with RunScreen(console, view) as screen`, then `update` with all that happens."""

    def __init__(self, console: Console, view: BatchView) -> None:
        self._console = console
        self._view = view
        self._began = time.monotonic()
        #: when a plain line last told of the survey
        self._noted_at = self._began
        self._draw = ASCII if console.options.ascii_only else FANCY
        #: a terminal that cannot move its cursor gets plain lines, too
        self._animated = console.is_terminal and not console.is_dumb_terminal
        self._live: Live | None = None
        self._thread: threading.Thread | None = None
        self._leaving = threading.Event()
        self._stops = Stops()
        #: held while the view changes or is laid out, never while the terminal is written to
        self._lock = threading.Lock()
        #: notes that go above the live area with the next frame
        self._said: deque[Text] = deque(maxlen=LINES_A_FRAME)
        self._unsaid = 0
        #: plain lines that their reader has not taken yet
        self._outbox = Outbox()
        #: windows that were finished when a plain line last told of them
        self._logged = 0
        self._waiting = ""
        #: devices that a line said were closed
        self._closed: set[str] = set()
        #: whether somebody was told that code or data change under the batch
        self._told_of_changes = False
        self._paused = False

    @property
    def seconds(self) -> float:
        """Seconds that the batch has been shown, without the wait of a stage."""
        return time.monotonic() - self._began

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        self._outbox.empty(self._console.file)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While something else has the terminal; notes wait until it is back."""
        self._stop()
        self._paused = True
        try:
            yield
        finally:
            self._paused = False
            self._start()

    def _start(self) -> None:
        if self._animated:
            self._show()
            self._leaving.clear()
            self._stops.take()
            self._thread = threading.Thread(target=self._draw_often, name="screen", daemon=True)
            self._thread.start()

    def _stop(self) -> None:
        if self._live is None or self._thread is None:
            return
        self._stops.release()
        self._leaving.set()
        self._thread.join()
        self.tick()
        self._live.stop()
        self._live = self._thread = None

    def _show(self) -> None:
        self._live = Live(self, console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._live.start()

    def _suspend(self) -> None:
        """Give the terminal back and stop; then draw below everything that has been written there meanwhile."""
        assert self._live is not None
        self._live.stop()
        self._stops.obey()
        self._show()

    # -- updates -----------------------------------------------------------------------------------------------------

    def update(self, update: Update) -> None:
        """Take in an update, and show it."""
        with self._lock:
            self._view.apply(update, time.monotonic())
        match update:
            case WindowMoved(old=old, new=Finished(outcome=outcome)):
                if isinstance(outcome, Succeeded):
                    self._remark(update.key.label, outcome.result)
                # One that was cancelled where it waited is only counted.
                if not isinstance(old, Queued | Held):
                    self._finished()
            case BatchHeld(reason=reason):
                self.note(f"Held: {reason}")
            case DeviceChanged(untried=True):
                pass  # whoever tries it has a sentence about it
            case DeviceChanged(device_id=device_id, health="open") if device_id not in self._closed:
                pass  # it was tried before anything was placed there: that it trains is no news
            case DeviceChanged(device_id=device_id, health=health, reason=reason):
                self._closed.add(device_id)
                self.note(f"Device {device_name(device_id)} is {health}" + (f": {reason}" if reason else ""))
            case _:
                pass

    def _remark(self, label: str, result: WindowResult) -> None:
        if (kept := result.moved_aside) is not None:
            self.note(f"{label} was no result of gpusched: moved aside to {kept}")
        if result.changed and not self._told_of_changes:
            self._told_of_changes = True  # once, as the windows after it are like this one
            self.note(f"The code or the data of {label} changed after the batch was planned. {RUN_AGAIN}")

    def load(self, snapshot: Snapshot, batch_id: str) -> None:
        """Show the batch as the daemon knows it. The time of a stage begins when it has started."""
        with self._lock:
            waited = self._view.waits
            self._view.load(snapshot, batch_id, time.monotonic())
        if waits := self._view.waits:
            self._waiting = f"{batch_id} waits {waits}"
            if waits != waited and not self._animated:
                self.note(self._waiting)
        elif waited:
            self._began = time.monotonic()
        if not self._animated:
            self._tell_so_far()

    def planning(self, done: int, total: int) -> None:
        """The data of `done` of `total` symbols has been looked at."""
        self._waiting, now = surveying(done, total), time.monotonic()
        if not self._animated and (done == total or now - self._noted_at >= SURVEY_NOTE_S):
            self._noted_at = now
            self.note(self._waiting)

    def planned(self, plan: Plan) -> None:
        """The plan is made; its windows are about to be submitted."""
        self._waiting = "Starting"
        for line in (f"Plan: {plan_line(plan)}", *notes_lines(plan.notes)):
            self.note(line)

    def note(self, text: str) -> None:
        """Say a sentence, above the live area if there is one."""
        self._say(Text(clean(text, ascii_only=self._draw.ascii_only), "bold"))

    def tick(self) -> None:
        """Draw a frame, and the notes above it."""
        assert self._live is not None
        with self._lock:
            said, unsaid = list(self._said), self._unsaid
            self._said.clear()
            self._unsaid = 0
        if unsaid:
            said.insert(0, Text(f"{self._draw.ellipsis} {unsaid} more lines were left out here", "dim"))
        if said:
            # It draws the live area below them in the same write.
            self._console.print(Group(*said))
        else:
            self._live.refresh()

    # -- how it is shown -----------------------------------------------------------------------------------------------

    def _finished(self) -> None:
        window = self._view.last_finished
        assert window is not None
        if not self._animated:
            self._logged = self._view.done
            self._write(self._line(window))
        elif window.outcome in FAILURES:
            self._say(failure_line(window, self._draw))

    def _tell_so_far(self) -> None:
        """In a log, count the windows that have no lines since they ended before they were followed."""
        view = self._view
        ended = {name: count for name, count in view.counts.items() if count and name not in ("reused", "skipped")}
        if ended and view.done > self._logged:
            self._logged = view.done
            told = ", ".join(f"{count} {words(name)}" for name, count in ended.items())
            self._write(f"[{view.done}/{view.total}] so far: {told}")

    def _line(self, window: FinishedWindow) -> str:
        """A finished window for a log: `[12/36] succeeded LABEL 1.3s on slot 0 (cpu), auc 0.532, accuracy 0.541`."""
        view = self._view
        head = f"[{view.done}/{view.total}] "
        if window.outcome in FAILURES:
            return head + failure_line(window, self._draw).plain
        line = f"{head}{window.outcome} {window.label} {duration(window.seconds)}"
        if window.slot is not None and window.device is not None:
            line += f" on slot {window.slot} ({device_name(window.device, window.node)})"
        return line + "".join(f", {name} {number}" for name, number in key_metrics(window.metrics, 2))

    def _say(self, text: Text) -> None:
        if self._live is not None or self._paused:
            with self._lock:
                self._unsaid += len(self._said) == LINES_A_FRAME
                self._said.append(text)
        elif self._animated:
            self._console.print(text)
        else:
            self._write(text.plain)

    def _write(self, line: str) -> None:
        """Past rich, which would wrap the line, and costs more than all the rest."""
        self._outbox.put(self._console.file, clean(line, ascii_only=self._draw.ascii_only))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The live area. Laid out at once, since the view must not change meanwhile."""
        with self._lock:
            frame = Frame(view=self._view, began=self._began, monotonic=time.monotonic(), waiting=self._waiting)
            return list(frame.__rich_console__(console, options))

    def _draw_often(self) -> None:
        while not self._leaving.wait(FRAME_S) and lost(self._console.file) is None:
            if self._stops.asked:
                self._suspend()
            self.tick()
