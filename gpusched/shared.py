"""Content that windows of a sweep share: the first window makes it, later ones take it out of memory.

The launcher keeps an empty memory file (memfd) for each name, and the windows that it forks for that name inherit it.
The one that has made the content writes it there and seals the file: from then on nobody can change it, and it needs no
checksum. Only what is sealed is taken, so a window that dies while it writes leaves nothing, and the next one writes
anew. One writes at a time; the others do not wait for it. Where there are no memory files, every window makes its own.

Nobody maps a memory file, so it counts neither as a window's memory nor towards its limit.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Callable

import msgspec

#: memory files of a launcher; the one that was asked for the longest time ago goes first
MOST_FILES = 64
#: bytes in all of them, and in one. More than that are there only until the windows that wrote them have ended.
MOST_BYTES = 64 << 20
LARGEST_BYTES = MOST_BYTES // 2
#: seconds for which a file is kept without any window that has it: windows of a sweep follow each other
LINGER_S = 5.0

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class _File(msgspec.Struct):
    descriptor: int
    #: monotonic instant since which no window has had it
    idle_since: float
    #: pids of the living windows that have inherited it
    windows: set[int] = msgspec.field(default_factory=set)
    #: bytes, as the last window left it
    size: int = 0


class SharedFiles:
    """The launcher's side: memory files by name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: the one that was asked for last is the last
        self._files: dict[str, _File] = {}

    def descriptor(self, name: str) -> int | None:
        """The memory file for a window that is to be forked; None without a name, or if there can be none."""
        if not name:
            return None
        file = self._files.pop(name, None)
        if file is None:
            try:
                descriptor = os.memfd_create("gpusched-shared", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            except OSError:
                return None
            file = _File(descriptor, self._clock())
        self._files[name] = file
        self._drop_too_many()
        return file.descriptor

    def entered(self, name: str, pid: int) -> None:
        """Take note of a window that was forked while there was a file of this name."""
        if name in self._files:
            self._files[name].windows.add(pid)

    def left(self, pid: int) -> None:
        """Take note that a process has ended, which may have been a window that wrote."""
        for file in self._files.values():
            if pid in file.windows:
                file.windows.remove(pid)
                file.idle_since, file.size = self._clock(), os.fstat(file.descriptor).st_size
                self._drop_too_many()
                return

    def drop_idle(self) -> int | None:
        """Close those that no window has had for a while; return milliseconds until it is time to look again."""
        now = self._clock()
        ends = {name: file.idle_since + LINGER_S for name, file in self._files.items() if not file.windows}
        for name, end in ends.items():
            if end <= now:
                os.close(self._files.pop(name).descriptor)
        return min((math.ceil(1000 * (end - now)) for end in ends.values() if end > now), default=None)

    def _drop_too_many(self) -> None:
        while len(self._files) > MOST_FILES or sum(file.size for file in self._files.values()) > MOST_BYTES:
            os.close(self._files.pop(next(iter(self._files))).descriptor)


class SharedFile:
    """A window's side: the memory file that it has inherited."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def take(self, made_of: bytes) -> bytes | None:
        """The content that another window has made; None without one, or if that is not `made_of` the same."""
        try:
            if not fcntl.fcntl(self._descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
                return None
            if os.pread(self._descriptor, len(made_of), 0) != made_of:
                return None
            size = os.fstat(self._descriptor).st_size - len(made_of)
            return os.pread(self._descriptor, size, len(made_of))
        except OSError:
            return None

    def give(self, made_of: bytes, content: bytes) -> None:
        """Let later windows `take` the content. `made_of`: a digest of all that it is made of."""
        if len(content) > LARGEST_BYTES:
            return
        try:
            # The lock is the process's, and ends with it. A lock by flock would be of all who have inherited.
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another window is at it
            return
        with contextlib.suppress(OSError):  # it is sealed already, or there is no memory
            os.ftruncate(self._descriptor, 0)
            # At an offset, since all who have inherited have one position.
            if os.pwritev(self._descriptor, (made_of, content), 0) == len(made_of) + len(content):
                fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)
                return
            os.ftruncate(self._descriptor, 0)


#: the memory file that this process has inherited, and may share content through
inherited: SharedFile | None = None


def inherit(descriptor: int) -> None:
    global inherited
    inherited = SharedFile(descriptor)
