"""Files that are written whole or not at all, and a lock that names its holder. Neither is written through a link."""

from __future__ import annotations

import _thread
import contextlib
import errno
import fcntl
import os
import stat
import time
from collections import deque
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from gpusched.directories import NotOurs, and_numbered, opened, same

#: seconds of a flush from which threads are worth their start, which takes half a millisecond of processor time
_SLOW_S = 1e-3
#: threads that flush files besides the caller's; and files that wait for one of them at most
_FLUSHERS, _MOST_WAITING = 3, 64
#: bytes of the stack of such a thread, which a limit of the process's memory counts
_STACK_BYTES = 256 * 1024


class Locked(Exception):
    """Another process has the lock; `holder` names it."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        super().__init__(holder)


# -- names -------------------------------------------------------------------------------------------------------------


def is_text(text: str) -> bool:
    """Whether a text can be sent and recorded: arguments, variables and names of files may be any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- reading -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def regular(name: str, dir_fd: int, *, follow: bool = False) -> Iterator[BufferedReader]:
    """Open a file within a directory for reading. Raises OSError, also for a pipe, on which a read would block."""
    with os.fdopen(open_regular(name, dir_fd, follow=follow), "rb") as file:
        yield file


def open_regular(path: str | Path, dir_fd: int | None = None, *, follow: bool = False) -> int:
    """A descriptor of a file for reading. Raises OSError, also for a pipe, whose opening would wait for a writer."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    return descriptor


# -- writing -----------------------------------------------------------------------------------------------------------


def write(descriptor: int, content: bytes) -> None:
    """Write all of `content` to an open file, pipe or socket. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def create(path: Path, content: bytes) -> None:
    """Write a file that no other process has open, which takes half the time of `Path.write_bytes`. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        write(descriptor, content)
    finally:
        os.close(descriptor)


def flush(descriptor: int) -> None:
    """Make an open file or directory durable. Raises OSError.

    Some file systems have no way to flush a directory, which is EINVAL then and says nothing of what is in it: drives
    of Windows in WSL, shared folders of VirtualBox, SMB before Linux 4.17.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise


class Flushes:
    """Makes files durable; once a flush has been slow, beside each other: many take a disk little more time than one.

    Use as a context manager. When it is left without an error, all files that were added are durable; OSError is raised
    if one could not be flushed. If they need not be `durable`, they are only closed, and no thread is started.
    """

    def __init__(self, *, durable: bool = True) -> None:
        self._durable = durable
        self._is_slow = False
        self._waiting: deque[int] = deque()
        #: a lock for each thread, which releases it at its end
        self._threads: list[_thread.LockType] = []
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._waiting:
            self._flush_next()
        for ended in self._threads:
            ended.acquire()
        if self._error is not None and error is None:
            raise self._error

    def add(self, descriptor: int) -> None:
        """Flush an open file or directory, and close the descriptor."""
        if not self._durable:
            os.close(descriptor)
            return
        self._waiting.append(descriptor)
        if not self._is_slow or len(self._waiting) > _MOST_WAITING:
            self._flush_next()
        elif len(self._waiting) > 1 and len(self._threads) < _FLUSHERS:
            self._start_thread()

    def _start_thread(self) -> None:
        """Start a thread, not by `threading`, whose import takes a window longer than its flushes."""
        ended = _thread.allocate_lock()
        ended.acquire()
        before = _thread.stack_size(_STACK_BYTES)
        # Where no more threads or memory are allowed, the caller flushes all of them.
        with contextlib.suppress(RuntimeError, MemoryError):
            _thread.start_new_thread(self._flush_all, (ended,))
            self._threads.append(ended)
        _thread.stack_size(before)

    def _flush_all(self, ended: _thread.LockType) -> None:
        while self._waiting:
            self._flush_next()
        ended.release()

    def _flush_next(self) -> None:
        with contextlib.suppress(IndexError):  # another thread has taken the last one
            descriptor = self._waiting.popleft()
            began = time.monotonic()
            try:
                flush(descriptor)
            except OSError as error:
                self._error = error
            finally:
                os.close(descriptor)
                self._is_slow |= time.monotonic() >= began + _SLOW_S


# -- whole files -------------------------------------------------------------------------------------------------------


def write_whole(path: Path, chunks: Iterable[bytes], *, mode: int = 0o666, durable: bool = True) -> None:
    """Replace the file at `path`, whole or not at all. Raises OSError, and leaves no temporary file then.

    If it is not `durable`, any part of it may be missing after a loss of power.
    """
    with opened(path.parent) as directory, replacing(path.name, directory, mode=mode, durable=durable) as file:
        file.writelines(chunks)
    file.close()


def exists(path: Path) -> bool:
    """Whether something is there. Raises OSError where that cannot be told: no permission, or a name that is too long.

    So did `Path.exists`, `is_file` and `is_dir` before Python 3.14; since then they say False.
    """
    return _mode(path) != 0


def is_file(path: Path) -> bool:
    """Whether a regular file is there. Raises OSError as `exists` does."""
    return stat.S_ISREG(_mode(path))


def is_directory(path: Path) -> bool:
    """Whether a directory is there. Raises OSError as `exists` does."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    """The mode of the file behind `path`; 0: there is none."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if not is_absent(error):
            raise
        return 0


def is_absent(error: OSError) -> bool:
    """Whether nothing has that name, or only a broken link; any other error proves nothing about it."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def write_named(path: Path, content: bytes) -> None:
    """Write the file that a user names: whole or not at all, if it is a regular file.

    A device or a pipe, such as /dev/stdout, is written to, since root would replace it by a file otherwise; of a link,
    the file behind it is replaced. Raises OSError.
    """
    if exists(path) and not is_file(path):
        create(path, content)
    else:
        write_whole(Path(os.path.realpath(path)), (content,))


@contextlib.contextmanager
def replacing(name: str, dir_fd: int, *, mode: int = 0o666, durable: bool = True) -> Iterator[IO[bytes]]:
    """A new file that takes its name when the context is left, or is removed after an error.

    It is still open then, so that more can be appended to it.
    """
    temporary, descriptor = _temporary(name, dir_fd, mode)
    file = os.fdopen(descriptor, "wb")
    try:
        yield file
        file.flush()
        if durable:
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        with contextlib.suppress(OSError):  # it flushes its buffer again, which fails again
            file.close()
        raise
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _temporary(name: str, dir_fd: int, mode: int) -> tuple[str, int]:
    """A new file beside `name`, and its descriptor, which is locked while its writer lives.

    The temporary file of a dead writer is removed; any other entry with that name is left alone.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    for candidate in and_numbered(f".{name}.tmp"):
        while True:
            try:
                descriptor = os.open(candidate, flags, mode, dir_fd=dir_fd)
            except FileExistsError:
                if _left_over(candidate, dir_fd):
                    continue
                break
            # Between its creation and its lock another writer may take it for a left-over and remove it.
            if _lock(descriptor) and same(descriptor, candidate, dir_fd):
                return candidate, descriptor
            os.close(descriptor)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _left_over(name: str, dir_fd: int) -> bool:
    """Remove the temporary file of a dead writer; False if its writer lives, or it is no temporary file of ours."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        ours = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()
        if not (ours and _lock(descriptor) and same(descriptor, name, dir_fd)):
            return False
        os.unlink(name, dir_fd=dir_fd)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _lock(descriptor: int) -> bool:
    """Lock an open file; False if another process has locked it. True also where there are no file locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


# -- a lock that names its holder --------------------------------------------------------------------------------------


def make_private_directory(directory: Path) -> None:
    """As `mkdir -p`, with every new directory private (mode 700)."""
    if not is_directory(directory):
        make_private_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def lock(path: Path) -> int:
    """Return the descriptor that keeps other processes out until it is closed. The file contains its holder's PID.

    Raises Locked, OSError, and NotOurs where `path` is not a lock file.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise NotOurs(path=path, what="a link") from None
    try:
        _take(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_free(path: Path) -> bool:
    """Whether it is certain that no process has the lock of this file; never where there are no file locks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def lock_directory(directory: int) -> int:
    """Return a descriptor that locks an open directory until it is closed, or only that where there are no such locks.

    Raises Locked, OSError.
    """
    with opened(".", directory) as again:
        if not _lock(again):
            raise Locked(_holder(again))
        return os.dup(again)  # the lock belongs to both


def _holder(descriptor: int) -> str:
    """Who has locked an open file, as far as the kernel tells: not across containers or file servers."""
    status = os.fstat(descriptor)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            match line.split():
                case [_, "FLOCK", _, "WRITE", pid, where, *_] if where == place and pid != "0":
                    return f"the process {pid}"
    return "another process"


def _take(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise NotOurs(path=path, what="not a lock file of ours")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        raise Locked(f"the process {pid}" if pid else "another process") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
