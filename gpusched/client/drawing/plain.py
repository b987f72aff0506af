"""Plain text, without rich: the words of a command that draws nothing, such as `run --json`."""

from __future__ import annotations

import io
import os
import sys
import time
from typing import TYPE_CHECKING, Self, TextIO

from gpusched.client.views.batch import BatchView
from gpusched.streams import Outbox

if TYPE_CHECKING:
    from gpusched.core.events import Update
    from gpusched.core.planning import Plan
    from gpusched.protocol import Snapshot

_PLAIN = {
    ord("…"): "...",
    ord("×"): "x",
    ord("–"): "-",
    ord("—"): "-",
    ord("·"): "|",
    ord("±"): "+-",
    ord("→"): "->",
    ord("↑"): "up",
    ord("↓"): "down",
    ord("“"): '"',
    ord("”"): '"',
    ord("‘"): "'",
    ord("’"): "'",
}


def clean(text: str, *, ascii_only: bool = False) -> str:
    """One line of text without control characters, and without anything but ASCII if only that can be shown."""
    if not text.isprintable():
        spaced = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
        text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in spaced)
    if ascii_only and not text.isascii():
        text = text.translate(_PLAIN).encode("ascii", "replace").decode("ascii")
    return text


def clean_lines(text: str) -> str:
    """Text without control characters but for line ends and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def opened(*, stderr: bool = False) -> TextIO:
    """Stdout or stderr, which never fails over a character from here on."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        if stream.isatty() and _knows_only_ascii():
            stream.reconfigure(encoding="ascii")
        if not _is_utf(stream):
            stream.reconfigure(errors="backslashreplace")
    return stream


def _is_utf(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().startswith("utf")


def _knows_only_ascii() -> bool:
    """Whether the locale says that the terminal has only ASCII.

    For the locale C, Python takes UTF-8 and writes C.UTF-8 into LC_CTYPE, so that this value says nothing.
    """
    ctype = os.environ.get("LC_CTYPE", "")
    locale = os.environ.get("LC_ALL") or (ctype if ctype != "C.UTF-8" else "") or os.environ.get("LANG")
    return locale in ("C", "POSIX")


class QuietScreen:
    """In the place of a `RunScreen`: it shows nothing but notes, on stderr."""

    def __init__(self, view: BatchView) -> None:
        self._view = view
        self._file = opened(stderr=True)
        #: notes that their reader has not taken yet
        self._outbox = Outbox()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._outbox.empty(self._file)

    def update(self, update: Update) -> None:
        self._view.apply(update, time.monotonic())

    def load(self, snapshot: Snapshot, batch_id: str) -> None:
        self._view.load(snapshot, batch_id, time.monotonic())

    def planning(self, done: int, total: int) -> None:
        pass

    def planned(self, plan: Plan) -> None:
        pass

    def note(self, text: str) -> None:
        self._outbox.put(self._file, clean(text, ascii_only=not _is_utf(self._file)))
