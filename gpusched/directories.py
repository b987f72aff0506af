"""Names within directories: entries are removed and renamed without following a link, and strangers' are kept.

A user who may write to an output directory may put a link, or their own directory, wherever gpusched is about to write
or delete. So everything here works on a name within an open directory, and never follows a link of that name: the link
itself is removed, renamed or refused. An entry is inspected before it is replaced, and one that is not ours is kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path

from gpusched.errors import InputError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OWN_DIRECTORY = _DIRECTORY | os.O_NOFOLLOW
#: to pass through a directory that this user may not be allowed to read
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: how names of temporary directories begin, and seconds within which a new one is locked
_TEMPORARY, _NEW_S = "gpusched-temporary-", 60.0
#: how many numbered names are tried before giving up
_MOST_NAMES = 10_000

_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
#: errors of file systems and kernels without these two flags
_NO_FLAGS = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_libc = ctypes.CDLL(None, use_errno=True)


class NotOurs(InputError):
    problem = "{path} is {what}"
    remedy = "move it away, or choose another directory: gpusched writes there only to entries of its own user"


class NoTemporaryDirectory(InputError):
    problem = "no temporary file can be written: {why}"
    remedy = "set TMPDIR to a directory that you may write"


# -- directories -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: str | Path, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor of a directory. A name within another directory (`dir_fd`) must not be a link."""
    descriptor = os.open(path, _DIRECTORY if dir_fd is None else _OWN_DIRECTORY, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def descended(path: Path, look: Callable[[int], None] = lambda directory: None) -> Iterator[tuple[int, list[str]]]:
    """The deepest existing directory on the way to an absolute path, and the names that are missing below it.

    Links are not followed (NotADirectoryError). `look` is called with every directory, the last one included. The
    descriptor can be used only for names within the directory.
    """
    descriptor = os.open("/", _WAY)
    missing = list(path.parts[1:])
    try:
        look(descriptor)
        while missing:
            try:
                below = os.open(missing[0], _WAY, dir_fd=descriptor)
            except FileNotFoundError:
                break
            os.close(descriptor)
            descriptor = below
            look(descriptor)
            del missing[0]
        yield descriptor, missing
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def made(
    directory: int, missing: Sequence[str], adapt: Callable[[int], None] = lambda directory: None
) -> Iterator[int]:
    """A descriptor of a directory below an open one; the `missing` directories on the way are made.

    `adapt` is called with each that is new.
    """
    with contextlib.ExitStack() as stack:
        for name in missing:
            is_new = False
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=directory)
                is_new = True
            directory = stack.enter_context(opened(name, directory))
            if is_new:
                adapt(directory)
        yield stack.enter_context(opened(".", directory))


@contextlib.contextmanager
def opened_output(path: Path, *, guarded: bool, make: bool = True) -> Iterator[int]:
    """A descriptor of an output directory, which is made if missing.

    `guarded`: raises NotOurs if the path to it contains a link.
    """
    with contextlib.ExitStack() as stack:
        if guarded:
            try:
                directory, missing = stack.enter_context(descended(path))
                if missing and not make:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
                output = stack.enter_context(made(directory, missing))
            except NotADirectoryError:
                raise NotOurs(path=path, what="reached by a link, which its batch was not accepted with") from None
        else:
            if make:
                path.mkdir(parents=True, exist_ok=True)
            output = stack.enter_context(opened(path))
        yield output


def own_directory(name: str, dir_fd: int, *, shown: Path) -> int:
    """A descriptor of the directory `name`, made if missing, that only this user can change.

    Raises NotOurs, which calls it `shown`, where another kind of entry has that name.
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
    """The owner of new entries of this process in a directory: some file systems give all entries to one user."""
    name = f".owner.{os.getpid()}"
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
        owner = os.stat(name, dir_fd=directory, follow_symlinks=False).st_uid
        os.rmdir(name, dir_fd=directory)
    except OSError:
        return None
    return owner


def names(directory: int) -> list[str]:
    """The names of the entries of an open directory."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def same(one: int, name: str, dir_fd: int) -> bool:
    """Whether `name` still refers to the open file or directory `one`."""
    try:
        return os.path.samestat(os.fstat(one), os.stat(name, dir_fd=dir_fd, follow_symlinks=False))
    except FileNotFoundError:
        return False


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same directory."""
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)
    except ValueError:  # no path has a zero byte
        return False


def holds_only(directory: int, paths: Set[str], prefix: str = "") -> bool:
    """Whether the directory and those below it hold no files but those with these paths."""
    with os.scandir(directory) as entries:
        for entry in entries:
            path, mode = prefix + entry.name, entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                with opened(entry.name, directory) as below:
                    if not holds_only(below, paths, f"{path}/"):
                        return False
            elif not stat.S_ISREG(mode) or path not in paths:
                return False
    return True


# -- removing ----------------------------------------------------------------------------------------------------------


def temporary_place() -> Path:
    """The directory for temporary files: TMPDIR, /tmp or the like. Raises NoTemporaryDirectory."""
    import tempfile  # ten modules, which would stay in every process that is forked afterwards

    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise NoTemporaryDirectory(why=error.strerror) from None


@contextlib.contextmanager
def temporary(below: Path) -> Iterator[Path]:
    """A new directory that only this user can open; it is removed at the end.

    Those of dead processes are removed first. Raises OSError.
    """
    place = below / f"{_TEMPORARY}{os.urandom(8).hex()}"
    with opened(place.parent) as parent:
        _remove_left_over(parent)
        os.mkdir(place.name, 0o700, dir_fd=parent)
        try:
            with opened(place.name, parent) as directory:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield place
        finally:
            remove(place.name, parent)


def _remove_left_over(parent: int) -> None:
    """Remove this user's temporary directories that nobody has locked, except new ones, which may still be locked."""
    with os.scandir(parent) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(_TEMPORARY)]
    for name in names:
        with contextlib.suppress(OSError), opened(name, parent) as directory:
            about = os.fstat(directory)
            if about.st_uid == os.geteuid() and about.st_mtime < time.time() - _NEW_S:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(name, parent)


def remove(name: str, dir_fd: int) -> None:
    """Remove a file, a link, or a directory with its content; another process may be removing the same.

    Directories are emptied level by level, their subdirectories moved up: so depth does not matter, and a link that
    replaces a directory meanwhile is not followed. A mounted file system within is kept (OSError).
    """
    if _unlinked(name, dir_fd):
        return
    with contextlib.suppress(FileNotFoundError):
        with opened(name, dir_fd) as directory:
            _empty(directory)
        os.rmdir(name, dir_fd=dir_fd)


def remove_only(name: str, dir_fd: int, paths: Set[str]) -> bool:
    """Remove a directory and the files in it that have these paths; False if it holds anything else, which is kept."""
    with opened(name, dir_fd) as directory:
        _remove_paths(directory, paths, "")
    return _rmdir(name, dir_fd)


def _remove_paths(directory: int, paths: Set[str], prefix: str) -> None:
    with os.scandir(directory) as entries:
        held = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in held:
        if is_directory:
            with opened(name, directory) as below:
                _remove_paths(below, paths, f"{prefix}{name}/")
            _rmdir(name, directory)
        elif prefix + name in paths:
            _unlinked(name, directory)


def _rmdir(name: str, dir_fd: int) -> bool:
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _unlinked(name: str, dir_fd: int) -> bool:
    """Remove a file or a link; False if it is a directory."""
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
    """Rename an entry, unless the name `new` is taken: then nothing happens and False is returned."""
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
    """Rename an entry that is in the way to `<called>.<word>`, numbered if that is taken; return the new name.

    By default `called` is its own name, and `new_dir_fd` the directory that it is in.
    """
    candidates = and_numbered(f"{called or name}.{word}")
    return _rename_new(name, dir_fd, candidates, dir_fd if new_dir_fd is None else new_dir_fd)


def _rename_new(name: str, dir_fd: int, candidates: Iterable[str], new_dir_fd: int) -> str:
    """Rename an entry to the first candidate that is free."""
    for new in candidates:
        if place(name, dir_fd, new, new_dir_fd):
            return new
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def and_numbered(name: str) -> Iterator[str]:
    """A name, and the numbered names to use if it is taken."""
    return itertools.chain((name,), _numbered(name, iter(range(2, _MOST_NAMES))))


def _numbered(name: str, numbers: Iterator[int]) -> Iterator[str]:
    return (f"{name}.{number}" for number in numbers)


def _renamed(name: str, dir_fd: int, new: str, new_dir_fd: int, flags: int) -> bool:
    """Whether the entry was renamed; False if the flags are not supported or, with RENAME_NOREPLACE, `new` is taken."""
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
