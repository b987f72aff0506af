"""The logs of processes, kept below a limit while they are written.

A process and its children hold the log's descriptor and write to the file directly, so a window that prints little
costs nothing. Sizes are checked a few times a second. When a log has grown beyond its limit, its middle is cut out: the
tail is copied to the end of the head, and the file truncated after it. This needs no disk space, of which a log that
has filled the disk leaves none. Appending descriptors go on at the new end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import stat
import threading
from pathlib import Path

import msgspec

from gpusched import files

#: seconds between checks of the open logs, and before the next check after a cut
LOOK_S = 0.25
LOOK_AGAIN_S = 0.05
#: parts of the limit that are kept by a cut: the beginning of the log, and its end
HEAD, TAIL = 0.5, 0.25
#: times that the end of a log is copied, while its writers are faster than the copy
_MOST_COPIES = 8
#: bytes by which a cut may be moved to reach the end of a line
_LINE_BYTES = 8 * 1024
#: bytes of a log's end that are searched for the reason of a crash: the stacks of all threads and the list of all
#: extension modules stand below it
END_BYTES = 64 * 1024
_lseek = ctypes.PyDLL(None).lseek
_lseek.argtypes = (ctypes.c_int, ctypes.c_long, ctypes.c_int)
_lseek.restype = ctypes.c_long

#: closed logs whose cuts are remembered, since they may still be followed
_REMEMBERED = 256


class Cut(msgspec.Struct, frozen=True):
    """The part that was cut out of a log."""

    #: position of the mark that stands in for the part
    at: int
    #: size of the part
    left_out_bytes: int
    #: bytes after the mark were written at a position that is larger by this
    shift: int


class Log:
    """One log. `limit_bytes` 0: no limit."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.cut: Cut | None = None
        #: number of processes that write to it
        self.writers = 0
        #: it is trimmed by a worker thread while it is open, and by the event loop's thread when it is closed
        self._trimming = threading.Lock()

    @property
    def is_long(self) -> bool:
        """Whether it is longer than its limit."""
        return 0 < self.limit_bytes < size_of_log(self.path)

    def trim(self) -> bool:
        """Cut the log if it is longer than its limit; return whether it was."""
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
        first = self.cut is None
        before = self.cut or Cut(at=_end_of_line(descriptor, int(HEAD * self.limit_bytes)), left_out_bytes=0, shift=0)
        reached = 0
        for _ in range(_MOST_COPIES):
            size = os.fstat(descriptor).st_size
            # Not below the end of an earlier copy, which has taken the place of what was there.
            tail = max(_end_of_line(descriptor, size - int(TAIL * self.limit_bytes)), reached)
            left_out = before.left_out_bytes + tail - before.at - (0 if first else _MARK_BYTES)
            reached = before.at + os.pwrite(descriptor, _mark(left_out), before.at)
            # Output that arrives during the copy is copied, too. Where that does not end, the copy begins anew with the
            # latest output: the end of a log is worth most.
            while tail < (end := _end(descriptor)) and tail < size + self.limit_bytes:
                piece = os.pread(descriptor, 1 << 20, tail)
                os.pwrite(descriptor, piece, reached)
                tail, reached = tail + len(piece), reached + len(piece)
            if tail == end < size + self.limit_bytes:
                break
        os.ftruncate(descriptor, reached)  # directly after `_end`: output in between is lost
        self.cut = Cut(before.at, left_out + end - tail, before.shift + end - reached)


class Logs:
    """The open logs. Everything except the trimming itself happens in the event loop's thread."""

    def __init__(self) -> None:
        self._open: dict[Path, Log] = {}
        self._cut: dict[Path, Cut] = {}
        self._timer: asyncio.TimerHandle | None = None

    def open(self, path: Path, limit_bytes: int) -> int:
        """Open a descriptor that appends to the log. The log is kept in its limit until `close` was called as often.

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
        """Take note that one of the log's writers has gone; return the number of bytes cut out so far."""
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
        """Translate the offset of a byte in the output to its place in the log.

        Returns the position in the file, the number of bytes that may be read there at once, and the offset of the
        first of them in the output, which is larger than `offset` if that byte was cut out.
        """
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
        """Trim logs that are too long, in a worker thread, since writing to a busy disk blocks."""
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
    """Open a descriptor that appends to the file, which only this user may read. Raises OSError, also for a pipe."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o600)
    os.set_blocking(descriptor, True)  # it was for the opening: that of a pipe would wait for a reader
    return descriptor


def end_of_log(path: Path, *, after: int = 0) -> str:
    """The last `END_BYTES` of a log, without its first `after` bytes; the error in brackets if it cannot be read."""
    try:
        descriptor = files.open_regular(path)
        try:
            size = os.fstat(descriptor).st_size
            return os.pread(descriptor, END_BYTES, max(after, size - END_BYTES)).decode(errors="replace")
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"({error})"


def size_of_log(path: Path) -> int:
    """The present size of a log in bytes; 0 if it does not exist."""
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _remove_if_empty(path: Path) -> None:
    """Remove an empty log: most windows print nothing, and thousands of empty files would hide the others."""
    with contextlib.suppress(OSError):
        status = path.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            path.unlink()


def _trim(logs: list[Log]) -> None:
    for log in logs:
        log.trim()


def _end(descriptor: int) -> int:
    """The size of a file, found without letting another thread go first, as each function of `os` does.

    To get its turn back takes up to 5 ms in a busy process.
    """
    end: int = _lseek(descriptor, 0, os.SEEK_END)
    return end


def _end_of_line(descriptor: int, position: int) -> int:
    """The position after the first end of a line from `position` on; `position` if none is near."""
    distance = os.pread(descriptor, _LINE_BYTES, position).find(b"\n")
    return position + distance + 1 if distance >= 0 else position


def _mark(left_out_bytes: int) -> bytes:
    """The mark of a cut. Its length is fixed, since a later cut overwrites it."""
    text = f"[gpusched: {left_out_bytes:,} bytes are left out here, see run.log_limit_mb]"
    return f"\n{text:<{_MARK_BYTES - 2}}\n".encode()


_MARK_BYTES = 100
