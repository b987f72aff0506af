"""Files that are whole or not there, deletion that spares strangers, and a lock that names its holder.

Whoever may write to an output directory may put a link, or a directory of theirs, wherever gpusched is about to write
or delete. So everything here works on a name within an open directory, and never follows a link that has that name: a
link is itself removed, renamed or refused. What is replaced is looked at, and what is not ours keeps existing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO

from gpusched.errors import InputError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OWN_DIRECTORY = _DIRECTORY | os.O_NOFOLLOW
#: names that are tried, where others are taken
_MOST_NAMES = 10_000

_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
#: of file systems and kernels that have neither
_NO_FLAGS = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_libc = ctypes.CDLL(None, use_errno=True)


class NotOurs(InputError):
    problem = "{path} is {what}"
    remedy = "move it away, or choose another directory: gpusched writes there only to what its own user has made"


class Locked(Exception):
    """Another process has the lock; `holder` names it."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        super().__init__(holder)


# -- directories -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: str | Path, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor of a directory. A name within another directory (`dir_fd`) must not be a link."""
    descriptor = os.open(path, _DIRECTORY if dir_fd is None else _OWN_DIRECTORY, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def own_directory(name: str, dir_fd: int, *, shown: Path) -> int:
    """A descriptor of the directory `name`, made if there is none, that nobody but this user can change.

    Raises NotOurs, which calls it `shown`, where something else has that name.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    try:
        descriptor = os.open(name, _OWN_DIRECTORY, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        is_link = stat.S_ISLNK(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
        raise NotOurs(path=shown, what="a link" if is_link else "not a directory") from None
    try:
        _make_private(descriptor, shown)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _make_private(directory: int, shown: Path) -> None:
    status = os.fstat(directory)
    if status.st_uid != os.geteuid() and status.st_uid != _owner_of_new(directory):
        raise NotOurs(path=shown, what=f"a directory of another user (uid {status.st_uid})")
    if status.st_mode & 0o077:
        with contextlib.suppress(OSError):  # a file system without modes
            os.fchmod(directory, 0o700)


def _owner_of_new(directory: int) -> int | None:
    """Who owns what this process makes in a directory: some file systems give all to one user, whoever makes it."""
    name = f".owner.{os.getpid()}"
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
        owner = os.stat(name, dir_fd=directory, follow_symlinks=False).st_uid
        os.rmdir(name, dir_fd=directory)
    except OSError:
        return None
    return owner


def names(directory: int) -> list[str]:
    """What an open directory holds."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def same(one: int, name: str, dir_fd: int) -> bool:
    """Whether `name` is still that of the open file or directory `one`."""
    try:
        return os.path.samestat(os.fstat(one), os.stat(name, dir_fd=dir_fd, follow_symlinks=False))
    except FileNotFoundError:
        return False


# -- removing ----------------------------------------------------------------------------------------------------------


def remove(name: str, dir_fd: int) -> None:
    """Remove a file, a link, or a directory with all that it holds; somebody else may be removing the same.

    Directories are emptied level by level, those below moved up: neither their depth nor a link that takes the place of
    one meanwhile can lead astray. What is mounted within stays (OSError).
    """
    if _unlinked(name, dir_fd):
        return
    with contextlib.suppress(FileNotFoundError):
        with opened(name, dir_fd) as directory:
            _empty(directory)
        os.rmdir(name, dir_fd=dir_fd)


def _unlinked(name: str, dir_fd: int) -> bool:
    """Remove what is not a directory; False if it is one."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        return False
    return True


def _empty(directory: int) -> None:
    moved = itertools.count()
    _let_write(directory)
    device = os.fstat(directory).st_dev
    while held := names(directory):
        for name in held:
            if _unlinked(name, directory):
                continue
            with contextlib.suppress(FileNotFoundError):
                with opened(name, directory) as inner:
                    if os.fstat(inner).st_dev != device:
                        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
                    _let_write(inner)
                    for below in names(inner):
                        if not _unlinked(below, inner):
                            _rename_new(below, inner, _numbered(".removed", moved), directory)
                os.rmdir(name, dir_fd=directory)


def _let_write(directory: int) -> None:
    if os.fstat(directory).st_mode & 0o700 != 0o700:
        with contextlib.suppress(OSError):
            os.fchmod(directory, 0o700)


# -- renaming ----------------------------------------------------------------------------------------------------------


def place(name: str, dir_fd: int, new: str, new_dir_fd: int) -> bool:
    """Rename it, unless `new` is taken by anything: then nothing happens and False is returned."""
    if _renamed(name, dir_fd, new, new_dir_fd, _RENAME_NOREPLACE):
        return True
    if _exists(new, new_dir_fd):
        return False
    os.rename(name, new, src_dir_fd=dir_fd, dst_dir_fd=new_dir_fd)
    return True


def exchange(one: str, dir_fd: int, other: str, other_dir_fd: int) -> bool:
    """Swap two names atomically; False where the file system or the kernel cannot."""
    return _renamed(one, dir_fd, other, other_dir_fd, _RENAME_EXCHANGE)


def move_aside(name: str, dir_fd: int, word: str, new_dir_fd: int | None = None, *, called: str | None = None) -> str:
    """Rename what stands in the way to `<called>.<word>`, or with a number behind it; the new name.

    `called` is its own name where nothing else is said, and `new_dir_fd` the directory that it is in.
    """
    candidates = _and_numbered(f"{called or name}.{word}")
    return _rename_new(name, dir_fd, candidates, dir_fd if new_dir_fd is None else new_dir_fd)


def _rename_new(name: str, dir_fd: int, candidates: Iterable[str], new_dir_fd: int) -> str:
    """Rename it to the first candidate that is free."""
    for new in candidates:
        if place(name, dir_fd, new, new_dir_fd):
            return new
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _and_numbered(name: str) -> Iterator[str]:
    """A name, and those to take where it is taken."""
    return itertools.chain((name,), _numbered(name, iter(range(2, _MOST_NAMES))))


def _numbered(name: str, numbers: Iterator[int]) -> Iterator[str]:
    return (f"{name}.{number}" for number in numbers)


def _renamed(name: str, dir_fd: int, new: str, new_dir_fd: int, flags: int) -> bool:
    """Whether it was renamed; False where that cannot be done so, or, with RENAME_NOREPLACE, `new` is taken."""
    try:
        renameat2 = _libc.renameat2
    except AttributeError:
        return False
    if renameat2(dir_fd, os.fsencode(name), new_dir_fd, os.fsencode(new), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_FLAGS or (code == errno.EEXIST and flags == _RENAME_NOREPLACE):
        return False
    raise OSError(code, os.strerror(code), new)


def _exists(name: str, dir_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


# -- reading -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def regular(name: str, dir_fd: int, *, follow: bool = False) -> Iterator[BufferedReader]:
    """A file within a directory, to be read. Raises OSError, also for a pipe, which would be waited for."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags if follow else flags | os.O_NOFOLLOW, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a file", name)
    with os.fdopen(descriptor, "rb") as file:
        yield file


# -- whole files -------------------------------------------------------------------------------------------------------


def write_whole(path: Path, chunks: Iterable[bytes], *, mode: int = 0o666) -> None:
    """Replace the file at `path`: it is there whole or not at all. Raises OSError, and leaves nothing behind then."""
    with opened(path.parent) as directory:
        create_whole(path.name, directory, chunks, mode=mode).close()


def create_whole(name: str, dir_fd: int, chunks: Iterable[bytes], *, mode: int = 0o666) -> IO[bytes]:
    """As `write_whole`; the file is still open, so that more can be appended to what has that name."""
    temporary, descriptor = _temporary(name, dir_fd, mode)
    file = os.fdopen(descriptor, "wb")
    try:
        file.writelines(chunks)
        file.flush()
        os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        with contextlib.suppress(OSError):  # what it could not write before
            file.close()
        raise
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return file


def _temporary(name: str, dir_fd: int, mode: int) -> tuple[str, int]:
    """A new file beside `name`, and its descriptor, which is locked for as long as its writer lives.

    One that a dead writer has left is removed, and anything else that has its name is left alone.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    for candidate in _and_numbered(f".{name}.tmp"):
        while True:
            try:
                descriptor = os.open(candidate, flags, mode, dir_fd=dir_fd)
            except FileExistsError:
                if _left_over(candidate, dir_fd):
                    continue
                break
            # Between its creation and its lock it looks like a left-over.
            if _lock(descriptor) and same(descriptor, candidate, dir_fd):
                return candidate, descriptor
            os.close(descriptor)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _left_over(name: str, dir_fd: int) -> bool:
    """Remove the temporary file of a writer that died; False if it is that of a living one, or something else."""
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
    """Whether nobody else has the lock of an open file; where there are no locks, nobody has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


# -- a lock of one's own -----------------------------------------------------------------------------------------------


def make_private_directory(directory: Path) -> None:
    """As `mkdir -p`, private all the way."""
    if not directory.is_dir():
        make_private_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def lock(path: Path) -> int:
    """The descriptor that keeps other processes out until it is closed. The file names its holder's PID.

    Raises Locked, OSError, and NotOurs where `path` is something else than a lock file.
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
