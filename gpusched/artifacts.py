"""The result directory of a window: committed whole or not at all, and verifiable later.

A window process writes into a private directory under `<output>/.partial/`. `commit` hashes and fsyncs every file in
it, adds `metadata.json` and moves it to `<output>/<label>`; an earlier result is exchanged in the same system call.
A reader of `<output>/<label>`, even after a kill or a power cut between any two lines below, finds the old result, none
or the new one, never a part or a mixture.

Only a gpusched result is replaced: a directory whose `metadata.json` names the window and lists every file in it.
Anything else at `<output>/<label>` (a link included) is moved aside to `<label>.not-a-result`. Results are read through
links, but never written, renamed or removed through one: those steps work on descriptors.

The process holds a lock (flock) on its partial directory while it lives, so `outputs.sweep_partial` can tell the
left-overs of dead attempts from the work of running ones, whoever started them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Collection, Set
from pathlib import Path

import msgspec

from gpusched import directories, files
from gpusched.core.model import Standing
from gpusched.metadata import METADATA, SCHEMA, File, Metadata, metadata_in, write_metadata

PARTIAL = ".partial"
#: suffix of the name of an entry that was moved aside
ASIDE = "not-a-result"
#: the name that a metadata.json of the workload's own gets
THEIRS = "program_metadata.json"

#: the last of the standard descriptors, which are of the log
_STDERR = 2
#: bytes of a file that are read at a time to be hashed
_PIECE_BYTES = 128 * 1024

_KINDS = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
#: the word behind the label in the name of a partial directory
OURS = "gpusched"
#: name of a partial directory (label, word, number, pid), or, with `.old`, of the result that it replaces. Nothing else
#: is ours to remove. 0.1 wrote no word, but its labels have two dates, so that no `thesis.1` is taken for one
PARTIAL_NAME = re.compile(rf"(.+\.{OURS}|.+_\d{{4}}-\d\d-\d\d_to_\d{{4}}-\d\d-\d\d.*)(\.\d+){{1,2}}(\.old(\.\d+)?)?")
#: how often the move of a result is tried again because another entry has taken its name meanwhile
_MOST_STRANGERS = 100


class NotCommittable(Exception):
    """The directory holds something that is no file, or is not there any more: the same attempt would end the same."""


class NotAsListed(Exception):
    """A result from elsewhere is not the one that its metadata describes."""


class Partial:
    """The directory that a window writes to; its content is visible only after `commit`.

    `guarded`: the path to it may contain no link. Raises `directories.NotOurs` where `<output_dir>/.partial` is not a
    directory of this user.
    """

    def __init__(self, output_dir: Path, label: str, *, guarded: bool = False) -> None:
        self.output_dir = output_dir
        self.label = label
        #: new name in `output_dir` of an entry that was not a result and had the result's name
        self.moved_aside: str | None = None
        self._open = contextlib.ExitStack()
        with contextlib.ExitStack() as on_error:
            on_error.enter_context(self._open)
            self._output = self._open.enter_context(directories.opened_output(output_dir, guarded=guarded))
            self._parent = directories.own_directory(PARTIAL, self._output, shown=output_dir / PARTIAL)
            self._open.callback(os.close, self._parent)
            #: its name in `.partial`, or None once it has been moved or removed
            self._name: str | None
            self._name, self._directory = _create_locked(self._parent, label)
            self._open.callback(os.close, self._directory)
            on_error.pop_all()
        #: if `guarded`, the path of its descriptor: others may rename a parent directory while it is being written
        self.path = output_dir / PARTIAL / self._name
        if guarded:
            self.path = Path(f"/proc/{os.getpid()}/fd/{self._directory}")

    def open_files(self) -> list[str]:
        """The paths, within the directory, of the files that this process has open for writing."""
        links = Path("/proc/self/fd")
        found: list[str] = []
        for name in os.listdir(links):  # noqa: PTH208  # a path of each would cost every window 0.1 ms
            with contextlib.suppress(OSError):  # the descriptor of this very list is closed by now
                if int(name) > _STDERR and _is_written(int(name)):
                    path, directory = (links / name).readlink(), (links / str(self._directory)).readlink()
                    if path.is_relative_to(directory) and path.exists():  # else it was removed
                        found.append(str(path.relative_to(directory)))
        return sorted(found)

    def commit(self, metadata: Metadata, *, durable: bool = True) -> Path:
        """Make the directory durable and visible as `<output_dir>/<label>`; return that path.

        Raises OSError when it cannot be written, NotCommittable when it holds something other than files and
        directories, or was removed; NotAsListed when the metadata lists files already, and there are others.
        """
        assert self._name is not None
        if not directories.same(self._directory, self._name, self._parent):
            raise NotCommittable("its output directory was removed or replaced: write into the one that is there")
        self._make_way()
        committed: dict[str, File] = {}
        with files.Flushes(durable=durable) as flushes:
            _take_in(self._directory, "", committed, flushes)
            if metadata.files and metadata.files != committed:
                raise NotAsListed("its files are not those that its metadata.json lists")
            metadata = msgspec.structs.replace(metadata, files=dict(sorted(committed.items())))
            flushes.add(write_metadata(self._directory, metadata))
            flushes.add(os.dup(self._directory))
        replaced = self._move_into_place()
        if durable:
            files.flush(self._output)
        if replaced is not None:
            # The new result is in place: if the old one cannot be removed, `outputs.sweep_partial` does it later.
            with contextlib.suppress(OSError):
                self._part_with(replaced)
        self._open.close()
        return self.output_dir / self.label

    def discard(self) -> None:
        """Remove the directory of a window that failed."""
        if self._name is not None:
            directories.remove(self._name, self._parent)
            self._name = None
        self._open.close()

    def _make_way(self) -> None:
        """Rename a metadata.json of the workload's own."""
        with contextlib.suppress(FileNotFoundError):
            if not directories.place(METADATA, self._directory, THEIRS, self._directory):
                raise NotCommittable(f"it has a {THEIRS}, which its {METADATA} would be called: give one another name")

    def _move_into_place(self) -> str | None:
        """Rename the directory to `<output_dir>/<label>`; return the name in `.partial` of the old result, if any."""
        name = self._name
        assert name is not None
        for _ in range(_MOST_STRANGERS):
            if directories.place(name, self._parent, self.label, self._output):
                self._name = None
                return None
            match standing_in(self._output, self.label, os.fstat(self._directory).st_uid):
                case "nothing":
                    continue
                case "stranger":
                    self._keep(self.label, self._output)
                    continue
            if directories.exchange(name, self._parent, self.label, self._output):
                self._name = None
                return name
            # This file system cannot exchange two names: for a moment a reader finds no result.
            old = directories.move_aside(self.label, self._output, "old", self._parent, called=name)
            if directories.place(name, self._parent, self.label, self._output):
                self._name = None
                return old
            self._part_with(old)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.output_dir / self.label))

    def _part_with(self, name: str) -> None:
        """Remove the old result; if another entry was moved in its stead, keep that under `<label>.not-a-result`."""
        if not remove_result(name, self._parent, self.label, os.fstat(self._directory).st_uid):
            self._keep(name, self._parent)

    def _keep(self, name: str, dir_fd: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.moved_aside = directories.move_aside(name, dir_fd, ASIDE, self._output, called=self.label)


def verify(directory: Path, fingerprints: Collection[str]) -> Metadata | None:
    """The metadata of a committed result that has one of `fingerprints` and whose every byte is intact, else None."""
    try:
        with directories.opened(directory) as descriptor:
            metadata = metadata_in(descriptor)
            if metadata is None or metadata.schema != SCHEMA or metadata.fingerprint not in fingerprints:
                return None
            intact = all(is_intact(descriptor, name, expected) for name, expected in metadata.files.items())
            return metadata if intact else None
    except OSError:
        return None


def standing(output_dir: Path, label: str) -> Standing:
    """The kind of entry that a new result of a window would replace."""
    try:
        with directories.opened(output_dir) as output:
            return standing_in(output, label)
    except OSError:
        return "nothing"


# -- writing -----------------------------------------------------------------------------------------------------------


def _create_locked(parent: int, label: str) -> tuple[str, int]:
    """A new directory for `label` in `parent`: its name, and a descriptor that holds its lock.

    Its name may be taken by the left-over of a dead attempt that had our pid, or by a process with the same pid on
    another host or in another container; and a sweeper may remove the directory between its creation and its lock.
    """
    for number in itertools.count():
        name = f"{label}.{OURS}.{number}.{os.getpid()}" if number else f"{label}.{OURS}.{os.getpid()}"
        try:
            os.mkdir(name, dir_fd=parent)
        except FileExistsError:
            continue
        lock = lock_partial(name, parent)
        if lock is None:
            continue
        if directories.same(lock, name, parent):
            return name, lock
        os.close(lock)
    raise AssertionError("itertools.count ended")


def _is_written(descriptor: int) -> bool:
    """Whether a descriptor is of a file that can be written by it."""
    is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    return is_file and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def lock_partial(name: str, parent: int) -> int | None:
    """A descriptor that holds the lock of a directory; None if another process holds it or there is no directory."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        # Some network file systems have no locks on directories: there only the pid in the name tells who owns one.
        if error.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL) or _owner_lives(name):
            os.close(descriptor)
            return None
    return descriptor


def _owner_lives(name: str) -> bool:
    pid = name.rpartition(".")[2]
    return pid.isdigit() and int(pid) != os.getpid() and Path(f"/proc/{pid}").exists()


def _take_in(directory: int, prefix: str, committed: dict[str, File], flushes: files.Flushes) -> None:
    """Hash every file below a directory into `committed`, and have files and subdirectories flushed."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = prefix + entry.name
            if not files.is_text(name):
                raise NotCommittable(f"{name!r} is a name that is not UTF-8: give the file another one")
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                with directories.opened(entry.name, directory) as below:
                    _take_in(below, f"{name}/", committed, flushes)
                    flushes.add(os.dup(below))
            elif not stat.S_ISREG(mode):
                raise NotCommittable(f"{name} is {_KINDS.get(stat.S_IFMT(mode), 'a device')}, and only files are kept")
            else:
                descriptor = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                try:
                    committed[name] = _hashed(descriptor)
                finally:
                    flushes.add(descriptor)


def _hashed(descriptor: int) -> File:
    digest, size = hashlib.sha256(), 0
    while piece := os.read(descriptor, _PIECE_BYTES):
        digest.update(piece)
        size += len(piece)
    return File(sha256=digest.hexdigest(), bytes=size)


# -- reading -----------------------------------------------------------------------------------------------------------


def lies_within(name: str) -> bool:
    """Whether a path can only lead to something below a directory (links aside)."""
    return not name.startswith("/") and ".." not in name.split("/")


def is_intact(directory: int, name: str, expected: File) -> bool:
    """Whether a file below an open directory is byte for byte the one that its metadata lists."""
    if not lies_within(name):
        return False
    try:
        with files.regular(name, directory, follow=True) as file:
            if os.fstat(file.fileno()).st_size != expected.bytes:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256
    except OSError:
        return False


def standing_in(
    dir_fd: int, name: str, owner: int | None = None, fingerprints: Collection[str | None] | None = None
) -> Standing:
    """Whether `name` is the result of the window with that label, by the rules of `remove_result`, or another entry."""
    try:
        with directories.opened(name, dir_fd) as directory:
            return "stranger" if _paths(directory, name, owner, fingerprints) is None else "result"
    except FileNotFoundError:
        return "nothing"
    except OSError:
        return "stranger"


def remove_result(
    name: str, dir_fd: int, label: str, owner: int, fingerprints: Collection[str | None] | None = None
) -> bool:
    """Remove a directory if it is the result of a window, belongs to the user `owner` and holds nothing else.

    With `fingerprints`, it must have one of them. Return False if it is no such result, or if another entry has
    appeared in it meanwhile, which is kept. Raises OSError.
    """
    try:
        with directories.opened(name, dir_fd) as directory:
            paths = _paths(directory, label, owner, fingerprints)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return paths is not None and directories.remove_only(name, dir_fd, paths)


def _paths(
    directory: int, label: str, owner: int | None, fingerprints: Collection[str | None] | None
) -> Set[str] | None:
    """The files of a result, by their paths within it; None if it is no result, or holds anything else."""
    if owner is not None and os.fstat(directory).st_uid != owner:
        return None
    metadata = metadata_in(directory)
    if metadata is None or metadata.label != label:
        return None
    if fingerprints is not None and metadata.fingerprint not in fingerprints:
        return None
    paths = {METADATA, *metadata.files}
    return paths if directories.holds_only(directory, paths) else None
