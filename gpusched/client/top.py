"""`gpusched top`: the daemon at work, live on a terminal, and the keys that act upon it.

One loop waits for what happens, for keys and for the next frame. Nothing is drawn unless something changed, and at most
`FRAMES_PER_S` times a second; rich writes the whole frame at once, in the terminal's alternate screen.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.live import Live

from gpusched.client.connection import Connection, Subscription, connect
from gpusched.client.dashboard import Frame
from gpusched.client.overview import Overview
from gpusched.errors import GpuschedError

FRAMES_PER_S = 8
#: seconds between frames when nothing happens: elapsed times go on, and the terminal may have changed its size
IDLE_S = 1.0
#: seconds between attempts to find a daemon that was lost
RECONNECT_S = 1.0

_UP, _DOWN = ("k", "\x1b[A", "\x1bOA"), ("j", "\x1b[B", "\x1bOB")


class Top:
    """The screen of one daemon, at `socket` or where clients look."""

    def __init__(self, console: Console, socket: Path | None) -> None:
        self._console = console
        self._socket = socket
        self._overview = Overview()
        self._subscription: Subscription | None = None
        self._connection: Connection | None = None
        self._title = "gpusched"
        self._selected: str | None = None
        self._message = ""
        #: what the next key may confirm
        self._asked: Callable[[Connection], str] | None = None
        self._changed = True
        self._try_again_at = 0.0

    def once(self) -> None:
        """Print one frame. Raises GpuschedError."""
        self._connect()
        self._console.print(self._frame(fill=False), end="")

    def run(self) -> None:
        """Show it until `q`. Raises GpuschedError if there is no daemon at the start."""
        self._connect()
        with _keyboard() as keys, Live(console=self._console, screen=True, auto_refresh=False) as live:
            drawn_at = 0.0
            while True:
                now = time.monotonic()
                due = drawn_at + (1 / FRAMES_PER_S if self._changed else IDLE_S)
                if now >= due:
                    live.update(self._frame(), refresh=True)
                    drawn_at, self._changed = now, False
                    continue
                for key in self._wait(keys, due - now):
                    if key in ("q", "\x03"):
                        return
                    self._press(key)

    # -- what happens --------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._connection = connect(self._socket)
        self._socket = self._connection.path
        self._title = f"gpusched {self._connection.daemon.version} at {self._connection.path}"
        self._subscription = self._connection.subscribe()
        self._overview.load(self._subscription.snapshot, time.monotonic())
        self._changed = True

    def _wait(self, keys: int, seconds: float) -> list[str]:
        """Take in what happens within `seconds`; the keys that were pressed."""
        if self._subscription is None and time.monotonic() >= self._try_again_at:
            self._reconnect()
        told = -1 if self._subscription is None else self._subscription.fileno()
        ready, _, _ = select.select([keys] if told < 0 else [keys, told], [], [], seconds)
        if told in ready:
            self._receive()
        return _split(os.read(keys, 64).decode("utf-8", "replace")) if keys in ready else []

    def _receive(self) -> None:
        assert self._subscription is not None
        try:
            for delta in self._subscription.pending():
                self._overview.apply(delta, time.monotonic())
                self._changed = True
        except GpuschedError:
            self._lose()

    def _lose(self) -> None:
        assert self._connection is not None
        self._connection.close()
        self._subscription = None
        self._message = "The daemon has gone: trying to reach it again"
        self._try_again_at = time.monotonic() + RECONNECT_S
        self._changed = True

    def _reconnect(self) -> None:
        try:
            self._connect()
            self._message = ""
        except GpuschedError:
            self._try_again_at = time.monotonic() + RECONNECT_S

    # -- keys ----------------------------------------------------------------------------------------------------------

    def _press(self, key: str) -> None:
        self._changed = True
        asked, self._asked = self._asked, None
        if asked is not None:
            self._message = self._do(asked) if key in ("y", "Y") else ""
            return
        self._message = ""
        if key in _UP or key in _DOWN:
            self._move(-1 if key in _UP else 1)
        elif key == "d":
            self._ask_drain()
        elif key in "chr" and (batch_id := self._current()):
            self._ask_batch(key, batch_id)

    def _move(self, step: int) -> None:
        names = list(self._overview.batches)[::-1]
        if names:
            current = self._current()
            number = names.index(current) + step if current in names else 0
            self._selected = names[max(0, min(len(names) - 1, number))]

    def _current(self) -> str | None:
        """The selected batch; by default the last one that is at work."""
        batches = self._overview.batches
        if self._selected not in batches:
            at_work = [name for name, view in batches.items() if not view.finished]
            self._selected = next(reversed(at_work or list(batches)), None)
        return self._selected

    def _ask_batch(self, key: str, batch_id: str) -> None:
        view = self._overview.batches[batch_id]
        match key:
            case "c":
                self._confirm(f"Cancel {batch_id}", lambda link: _said(link.cancel(batch_id).windows, "cancelled"))
            case "h" if view.held_reason is None:
                self._message = self._do(lambda link: _said(link.hold(batch_id).windows, "held"))
            case "h":
                self._message = self._do(lambda link: _said(link.release(batch_id).windows, "released"))
            case _:
                failed = "run its failed and cancelled windows again"
                self._confirm(f"{batch_id}: {failed}", lambda link: _said(link.retry(batch_id).windows, "queued again"))

    def _ask_drain(self) -> None:
        if all(device.status.health == "open" for device in self._overview.devices.values()):
            self._confirm("Place nothing more on any device", lambda link: f"{len(link.drain(None))} devices drained")
        else:
            self._message = self._do(lambda link: f"{len(link.resume(None))} devices opened")

    def _confirm(self, what: str, action: Callable[[Connection], str]) -> None:
        self._message, self._asked = f"{what}? y/n", action

    def _do(self, action: Callable[[Connection], str]) -> str:
        """Over a connection of its own, since the other carries what happens."""
        try:
            with connect(self._socket) as link:
                return action(link)
        except GpuschedError as error:
            return str(error).partition("\n")[0]

    def _frame(self, *, fill: bool = True) -> Frame:
        return Frame(
            overview=self._overview,
            monotonic=time.monotonic(),
            title=self._title,
            selected=self._current(),
            message=self._message,
            fill=fill,
        )


def _said(windows: int, done: str) -> str:
    return f"{windows} {'window' if windows == 1 else 'windows'} {done}"


@contextlib.contextmanager
def _keyboard() -> Iterator[int]:
    """Keys one by one and unseen."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _split(text: str) -> list[str]:
    """Keys from what a terminal sends: arrows are three characters long."""
    keys = []
    while text:
        size = 3 if text[:2] in ("\x1b[", "\x1bO") and len(text) >= 3 else 1
        keys.append(text[:size])
        text = text[size:]
    return keys
