"""Streams that may be lost: if the reader leaves, the disk is full or the terminal is gone, only the output ends."""

from __future__ import annotations

import contextlib
import io
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Any

#: characters written at once: at most 4000 bytes in UTF-8, and a pipe that is ready for writing takes at least 4096
PIECE_CHARS = 1000


class Expendable(io.FileIO):
    """A descriptor that is not written to after its first failed write: later writes are dropped.

    If another program has made the descriptor non-blocking (the programs of a pipeline share their terminal), a write
    waits until there is room.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        #: the error of the failed write, or None
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
    """Within the context, let `sys.<name>` and `sys.__<name>__` (where Textual draws) be lost without an error."""
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
    """The error that ended an expendable stream; None while it works, and for any other stream."""
    error = getattr(getattr(getattr(file, "buffer", None), "raw", None), "lost", None)
    return error if isinstance(error, OSError) else None


class Outbox:
    """Lines for a reader who may pause: pieces that cannot be written without waiting are kept for the next call.

    At most `most` pieces are kept, and the oldest are dropped first; None: there is no limit.
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
        """Write the waiting pieces, however long the reader pauses."""
        while self._unread:
            self._write(file)

    def _write(self, file: IO[str]) -> None:
        file.write(self._unread.popleft())
        file.flush()


def takes_more(file: IO[str]) -> bool:
    """Whether a line that is shorter than a pipe's buffer can be written without waiting for the reader."""
    try:
        return _room(file.fileno(), 0)
    except OSError:  # it has no descriptor, so writing never waits
        return True


def when_gone(file: IO[str], then: Callable[[], None]) -> None:
    """Call `then` from another thread once the other end is closed: a pipe's reader has left, a terminal has hung up.

    A command that only waits would not notice, and one that reads from the lost terminal would get nothing for ever.
    """
    waiting = _other_end(file)
    if waiting is None:
        return

    def wait() -> None:
        waiting.poll()
        then()

    threading.Thread(target=wait, name="when gone", daemon=True).start()


def is_gone(file: IO[str]) -> bool:
    """Whether the other end is closed: a pipe's reader has left, a terminal has hung up."""
    waiting = _other_end(file)
    return waiting is not None and bool(waiting.poll(0))


def _other_end(file: IO[str]) -> select.poll | None:
    """A poll that returns once the other end is closed; None for a file that has no descriptor, and no other end."""
    waiting = select.poll()
    try:
        waiting.register(file.fileno(), 0)  # poll reports errors and hang-ups even with no events requested
    except OSError:
        return None
    return waiting


def _room(descriptor: int, timeout_ms: int | None) -> bool:
    """Wait until a write takes something or fails at once; False after `timeout_ms` (None: no limit)."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return bool(waiting.poll(timeout_ms))
