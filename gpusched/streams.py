"""Streams that may be lost: a reader who leaves, a full disk or a terminal that is gone ends the writing alone."""

from __future__ import annotations

import contextlib
import io
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Any

#: characters that are written at once: a pipe that takes anything takes so many (4096 bytes)
PIECE_CHARS = 1000


class Expendable(io.FileIO):
    """A descriptor whose first failed write is its last: later ones are dropped.

    It waits where another program has made the descriptor non-blocking, as most terminals of pipelines are shared.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        #: why it takes nothing more
        self.lost: OSError | None = None

    def write(self, data: Any) -> int:
        while self.lost is None:
            try:
                written = super().write(data)
            except OSError as error:
                self.lost = error
                break
            if written is not None:
                return written
            _room(self.fileno(), None)
        return memoryview(data).nbytes


@contextlib.contextmanager
def expendable(name: str) -> Iterator[None]:
    """Let `sys.<name>` be lost without an error for as long as the context lasts; Textual draws on its original too."""
    stream, original = getattr(sys, name), f"__{name}__"
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError):  # closed from the start, or held by a test
        yield
        return
    before = getattr(sys, original)
    stream.flush()
    replacement = io.TextIOWrapper(
        io.BufferedWriter(Expendable(descriptor)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )
    setattr(sys, name, replacement)
    setattr(sys, original, replacement)
    try:
        yield
    finally:
        replacement.flush()
        setattr(sys, name, stream)
        setattr(sys, original, before)


def lost(file: IO[str] | None) -> OSError | None:
    """Why nothing more reaches the reader of an expendable stream; None while it does, and of any other stream."""
    found = getattr(getattr(getattr(file, "buffer", None), "raw", None), "lost", None)
    return found if isinstance(found, OSError) else None


class Outbox:
    """Lines for a reader who may pause: written as far as nobody has to be waited for, the rest with what comes next.

    Beyond `most` pieces that wait, the oldest are left out; None: they may be as many as there are lines.
    """

    def __init__(self, most: int | None = None) -> None:
        self._unread: deque[str] = deque(maxlen=most)

    def put(self, file: IO[str], line: str) -> None:
        """Write a line, now or later."""
        text = line + "\n"
        self._unread += [text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS)]
        while self._unread and takes_more(file):
            self._write(file)

    def empty(self, file: IO[str]) -> None:
        """Write what waits, however long the reader pauses."""
        while self._unread:
            self._write(file)

    def _write(self, file: IO[str]) -> None:
        file.write(self._unread.popleft())
        file.flush()


def takes_more(file: IO[str]) -> bool:
    """Whether a line that is shorter than a pipe's buffer can be written without waiting for the reader."""
    try:
        return _room(file.fileno(), 0)
    except OSError:  # it has no descriptor, and nobody to wait for
        return True


def when_gone(file: IO[str], then: Callable[[], None]) -> None:
    """Call `then` from another thread once the other end is closed: a pipe's reader has left, a terminal hung up.

    Whoever only waits would not learn of it otherwise, or, reading from a terminal that is gone, read nothing for ever.
    """
    waiting = select.poll()
    try:
        waiting.register(file.fileno(), 0)  # errors are told without being asked for
    except OSError:  # it has no descriptor, and no other end
        return

    def wait() -> None:
        waiting.poll()
        then()

    threading.Thread(target=wait, name="when gone", daemon=True).start()


def _room(descriptor: int, timeout_ms: int | None) -> bool:
    """Whether the descriptor takes something, or fails at once."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return bool(waiting.poll(timeout_ms))
