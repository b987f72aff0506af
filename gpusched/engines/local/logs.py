"""The logs that processes write to themselves, kept below their limit while they are written.

A process has the log's descriptor, and so has all that it starts: nothing stands between them and the file, and a
window that prints little costs nothing. Their sizes are looked at a few times a second. When a log has grown beyond its
limit, its middle is left out: the tail is copied to behind the head, and the file cut off after it. This takes no room,
which a disk that the log has filled does not have. Descriptors that append go on at the new end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import threading
from pathlib import Path

import msgspec

#: seconds between looks at the logs that are being written; sooner after one that had to be cut
LOOK_S = 0.25
LOOK_AGAIN_S = 0.05
#: of the limit: what is kept of the beginning, and after a cut of the end
HEAD, TAIL = 0.5, 0.25
#: so far from where it would be made, a cut is moved to the end of a line
_LINE_BYTES = 8 * 1024
#: a crash leaves its reason above the stack of every thread and the list of every extension module
END_BYTES = 64 * 1024
#: logs that were cut and are not written any more, but may still be followed
_REMEMBERED = 256


class Cut(msgspec.Struct, frozen=True):
    """What was left out of a log."""

    #: the mark of the cut begins here
    at: int
    #: of what was written
    left_out_bytes: int
    #: the bytes behind the mark lie so much further ahead than they were written
    shift: int


class Log:
    """One log. `limit_bytes` 0: it may grow without end."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.cut: Cut | None = None
        #: processes that write it
        self.writers = 0
        #: it is trimmed by a thread of its own, and at last by the loop's
        self._trimming = threading.Lock()

    @property
    def is_long(self) -> bool:
        """Whether it is longer than its limit."""
        return 0 < self.limit_bytes < size_of_log(self.path)

    def trim(self) -> bool:
        """Cut it if it is longer than its limit; whether it was."""
        if not self.is_long:
            return False
        with self._trimming, contextlib.suppress(OSError):  # it may have been removed
            if self.is_long:
                descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    self._cut_middle(descriptor)
                finally:
                    os.close(descriptor)
                return True
        return False

    def _cut_middle(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        first = self.cut is None
        before = self.cut or Cut(at=_end_of_line(descriptor, int(HEAD * self.limit_bytes)), left_out_bytes=0, shift=0)
        tail = _end_of_line(descriptor, size - int(TAIL * self.limit_bytes))
        left_out = before.left_out_bytes + tail - before.at - (0 if first else _MARK_BYTES)
        reached = before.at + os.pwrite(descriptor, _mark(left_out), before.at)
        # What is written meanwhile is copied too, as far as it can be kept up with.
        while (piece := os.pread(descriptor, 1 << 20, tail)) and tail < size + self.limit_bytes:
            os.pwrite(descriptor, piece, reached)
            tail, reached = tail + len(piece), reached + len(piece)
        lost = os.fstat(descriptor).st_size - tail
        os.ftruncate(descriptor, reached)
        self.cut = Cut(before.at, left_out + lost, before.shift + tail + lost - reached)


class Logs:
    """The logs that are being written. Everything but the trimming itself happens in the event loop's thread."""

    def __init__(self) -> None:
        self._open: dict[Path, Log] = {}
        self._cut: dict[Path, Cut] = {}
        self._timer: asyncio.TimerHandle | None = None

    def open(self, path: Path, limit_bytes: int) -> int:
        """A descriptor that appends to the log, which is looked after until it is closed as often as it was opened.

        Raises OSError.
        """
        descriptor = open_log(path)
        log = self._open.get(path)
        if log is None:
            log = self._open[path] = Log(path, limit_bytes)
        log.writers += 1
        if self._timer is None:
            self._look_in(LOOK_S)
        return descriptor

    def close(self, path: Path) -> int:
        """One of its writers has gone; how many bytes were left out of the log so far."""
        log = self._open[path]
        log.writers -= 1
        log.trim()
        if log.cut is not None:
            self._cut.pop(path, None)
            self._cut[path] = log.cut
            if len(self._cut) > _REMEMBERED:
                del self._cut[next(iter(self._cut))]
        if not log.writers:
            del self._open[path]
            _remove_if_empty(path)
        return log.cut.left_out_bytes if log.cut is not None else 0

    def find(self, path: Path, offset: int) -> tuple[int, int, int]:
        """Where to read on after `offset` bytes of what was written: the position in the file, how much may be read
        from there at once, and which byte of what was written that is."""
        log = self._open.get(path)
        cut = log.cut if log is not None else self._cut.get(path)
        if cut is None:
            return offset, 1 << 62, offset
        if offset < cut.at:
            return offset, cut.at - offset, offset
        offset = max(offset, cut.at + cut.shift)
        return offset - cut.shift, 1 << 62, offset

    # -- looking -------------------------------------------------------------------------------------------------------

    def _look_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Have those trimmed that are too long, in another thread: a busy disk makes whoever writes to it wait."""
        self._timer = None
        long = [log for log in self._open.values() if log.is_long]
        if long:
            trimming = asyncio.get_running_loop().run_in_executor(None, _trim, long)
            trimming.add_done_callback(self._trimmed)
        elif self._open:
            self._look_in(LOOK_S)

    def _trimmed(self, _: asyncio.Future[None]) -> None:
        if self._open and self._timer is None:
            self._look_in(LOOK_AGAIN_S)


def open_log(path: Path) -> int:
    """A descriptor that appends to the file, which is only for this user. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, flags, 0o600)


def end_of_log(path: Path, *, after: int = 0) -> str:
    """The last `END_BYTES` of a log, and nothing of its first `after` bytes; what keeps it from being read, if so."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            return os.pread(descriptor, END_BYTES, max(after, size - END_BYTES)).decode(errors="replace")
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"({error})"


def size_of_log(path: Path) -> int:
    """Bytes that are in it now, 0 if it is not there."""
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _remove_if_empty(path: Path) -> None:
    """Most windows say nothing, and thousands of files that say nothing are in the way of the others."""
    with contextlib.suppress(OSError):
        status = path.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            path.unlink()


def _trim(logs: list[Log]) -> None:
    for log in logs:
        log.trim()


def _end_of_line(descriptor: int, position: int) -> int:
    """The first end of a line from `position` on, if it is near."""
    found = os.pread(descriptor, _LINE_BYTES, position).find(b"\n")
    return position + found + 1 if found >= 0 else position


def _mark(left_out_bytes: int) -> bytes:
    """As long each time, since it is written over the one of the last cut."""
    text = f"[gpusched: {left_out_bytes:,} bytes are left out here, see run.log_limit_mb]"
    return f"\n{text:<{_MARK_BYTES - 2}}\n".encode()


_MARK_BYTES = 100
