"""What a window leaves behind: a directory that is committed whole or not at all, and can be verified later.

A window process writes into a directory of its own under `<output>/.partial/`. `commit` hashes and fsyncs every file
in it, adds `metadata.json` and moves it to `<output>/<label>`; a result that was there before is exchanged in the same
system call. Whoever looks at `<output>/<label>`, also after a kill or a power cut between any two lines below, finds
the old result, none or the new one, never a part or a mixture.

Only a result of ours is replaced: a directory whose `metadata.json` names the window and lists every file in it.
Whatever else stands at `<output>/<label>` (a link included) is moved aside to `<label>.not-a-result` beside it. Results
are read through links, and never written, renamed or removed through one: all that is done by descriptors.

A partial directory is locked (flock) by its process for as long as that lives, so `outputs.sweep_partial` can tell the
left-overs of dead attempts from the work of running ones, whoever started them.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Collection, Set
from pathlib import Path
from typing import Any

import msgspec

from gpusched import directories, files
from gpusched.core.model import DeviceType, Standing, WindowResult

SCHEMA = 1
METADATA = "metadata.json"
PARTIAL = ".partial"
#: how the name of what was moved aside ends
ASIDE = "not-a-result"
#: a larger metadata.json is none of ours
MAX_METADATA_BYTES = 64 * 1024 * 1024

#: of a partial directory: label, number, pid; and of what it takes the place of
PARTIAL_NAME = re.compile(r".+\.\d+(\.old)?")
#: things that may come to stand in the place of a result while it is moved there
_MOST_STRANGERS = 100


class File(msgspec.Struct, frozen=True):
    """A committed file: what `verify` compares."""

    sha256: str
    bytes: int


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """`metadata.json`. Only `phases`, `seconds` and `trained_at` differ between two runs on the same device type."""

    schema: int = SCHEMA
    label: str
    symbol: str
    start: dt.date
    end: dt.date
    workload: str
    device_type: DeviceType
    #: UUID of the GPU, or "cpu"
    device: str
    #: the same as the CUDA driver told the window's process; None where there was none to ask
    device_seen: str | None = None
    #: of all that determines the result, device type included; None if the workload has no fingerprints
    fingerprint: str | None
    #: undefined values are None
    metrics: dict[str, Any]
    sample_counts: dict[str, int]
    #: seconds by phase, in order
    phases: dict[str, float]
    seconds: float
    #: UTC
    trained_at: dt.datetime
    #: the workload's own entries; they stand beside the others in the file
    details: dict[str, Any]
    #: every file of the directory but this one, by its path within it
    files: dict[str, File] = {}

    def result(self, directory: Path) -> WindowResult:
        """What the supervisor is told about the result that is committed in `directory`, fresh or found."""
        return WindowResult(
            artifacts_path=str(directory),
            metrics=self.metrics,
            sample_counts=self.sample_counts,
            fingerprint=self.fingerprint,
            device_type=self.device_type,
            device=self.device,
            phases=self.phases,
            seconds=self.seconds,
        )


#: the entries of metadata.json that a workload cannot have as its own
OWN_ENTRIES = frozenset(Metadata.__struct_fields__) - {"details"}


class Partial:
    """A directory that a window is being written to; nobody sees it until `commit`.

    `guarded`: no link may lead there. Raises `directories.NotOurs` where `<output_dir>/.partial` is not a directory of
    this user.
    """

    def __init__(self, output_dir: Path, label: str, *, guarded: bool = False) -> None:
        self.output_dir = output_dir
        self.label = label
        #: what stood in the place of the result and is none; its new name in `output_dir`
        self.moved_aside: str | None = None
        self._open = contextlib.ExitStack()
        with contextlib.ExitStack() as on_error:
            on_error.enter_context(self._open)
            self._output = self._open.enter_context(directories.opened_output(output_dir, guarded=guarded))
            self._parent = directories.own_directory(PARTIAL, self._output, shown=output_dir / PARTIAL)
            self._open.callback(os.close, self._parent)
            #: its name below `.partial`, or None once nothing is left there
            self._name: str | None
            self._name, self._directory = _create_locked(self._parent, label)
            self._open.callback(os.close, self._directory)
            on_error.pop_all()
        #: by its descriptor where others can rename what leads there, while it is written to
        self.path = output_dir / PARTIAL / self._name
        if guarded:
            self.path = Path(f"/proc/{os.getpid()}/fd/{self._directory}")

    def commit(self, metadata: Metadata) -> Path:
        """Make the directory durable and visible as `<output_dir>/<label>`; return that path.

        Raises OSError when it cannot be written, ValueError when it holds something other than files and directories.
        """
        found: dict[str, File] = {}
        _sync_files(self._directory, "", found)
        metadata = msgspec.structs.replace(metadata, files=dict(sorted(found.items())))
        _write_metadata(self._directory, metadata)
        os.fsync(self._directory)
        replaced = self._move_into_place()
        os.fsync(self._output)
        if replaced is not None:
            # The new result is there: what cannot be removed is left to `outputs.sweep_partial`.
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

    def _move_into_place(self) -> str | None:
        """Rename the directory to that of the result; the name below `.partial` of what was there before."""
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
            # A file system that cannot exchange: for a moment there is no result, which a reader may also find.
            old = directories.move_aside(self.label, self._output, "old", self._parent, called=name)
            if directories.place(name, self._parent, self.label, self._output):
                self._name = None
                return old
            self._part_with(old)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.output_dir / self.label))

    def _part_with(self, name: str) -> None:
        """Remove what came out of the result's place, unless it is something else than what was seen there."""
        if not remove_result(name, self._parent, self.label, os.fstat(self._directory).st_uid):
            self._keep(name, self._parent)

    def _keep(self, name: str, dir_fd: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.moved_aside = directories.move_aside(name, dir_fd, ASIDE, self._output, called=self.label)


def read_metadata(directory: Path) -> Metadata | None:
    """The metadata of a committed result, or None where there is none that can be read."""
    try:
        with directories.opened(directory) as descriptor:
            return metadata_in(descriptor)
    except OSError:
        return None


def verify(directory: Path, fingerprints: Collection[str]) -> Metadata | None:
    """The metadata of a committed result that has one of `fingerprints` and is intact to the last byte, else None."""
    try:
        with directories.opened(directory) as descriptor:
            metadata = metadata_in(descriptor)
            if metadata is None or metadata.schema != SCHEMA or metadata.fingerprint not in fingerprints:
                return None
            intact = all(_is_intact(descriptor, name, expected) for name, expected in metadata.files.items())
            return metadata if intact else None
    except OSError:
        return None


def standing(output_dir: Path, label: str) -> Standing:
    """What a new result of a window would take the place of."""
    try:
        with directories.opened(output_dir) as output:
            return standing_in(output, label)
    except OSError:
        return "nothing"


# -- writing -----------------------------------------------------------------------------------------------------------


def _create_locked(parent: int, label: str) -> tuple[str, int]:
    """A new directory for `label` in `parent`: its name, and a descriptor that holds its lock.

    Its name may be taken by the left-over of a dead attempt that had our pid, or by a process of another host or
    container that has it now; and a sweeper may take the directory between its creation and its lock.
    """
    for number in itertools.count():
        name = f"{label}.{number}.{os.getpid()}" if number else f"{label}.{os.getpid()}"
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


def lock_partial(name: str, parent: int) -> int | None:
    """A descriptor that holds the lock of a directory, or None if another process has it or there is no such one."""
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
        # Some network file systems have no locks on directories: there the names' pids are all we have.
        if error.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL) or _owner_lives(name):
            os.close(descriptor)
            return None
    return descriptor


def _owner_lives(name: str) -> bool:
    pid = name.rpartition(".")[2]
    return pid.isdigit() and int(pid) != os.getpid() and Path(f"/proc/{pid}").exists()


def _sync_files(directory: int, prefix: str, found: dict[str, File]) -> None:
    """Hash every file below a directory and make it durable, and the directories below; not `metadata.json` itself."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = prefix + entry.name
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                with directories.opened(entry.name, directory) as below:
                    _sync_files(below, f"{name}/", found)
                    os.fsync(below)
            elif not stat.S_ISREG(mode):
                raise ValueError(f"{name} is neither a file nor a directory")
            elif name != METADATA:
                found[name] = _hash_and_sync(entry.name, directory)


def _hash_and_sync(name: str, directory: int) -> File:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    with os.fdopen(descriptor, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(descriptor)
        return File(sha256=digest, bytes=file.tell())


def _write_metadata(directory: int, metadata: Metadata) -> None:
    entries = msgspec.to_builtins(metadata)
    details, listed = entries.pop("details"), entries.pop("files")
    text = msgspec.json.format(msgspec.json.encode(entries | details | {"files": listed}), indent=2) + b"\n"
    directories.remove(METADATA, directory)  # the workload's, perhaps
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(METADATA, flags, 0o666, dir_fd=directory), "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


# -- reading -----------------------------------------------------------------------------------------------------------


def metadata_in(directory: int) -> Metadata | None:
    try:
        with files.regular(METADATA, directory, follow=True) as file:
            if os.fstat(file.fileno()).st_size > MAX_METADATA_BYTES:
                return None
            entries = msgspec.json.decode(file.read(), type=dict[str, Any])
        details = {name: entries.pop(name) for name in tuple(entries) if name not in OWN_ENTRIES}
        return msgspec.convert(entries | {"details": details}, Metadata)
    except (OSError, msgspec.MsgspecError, RecursionError):
        return None


def _is_intact(directory: int, name: str, expected: File) -> bool:
    if name.startswith("/") or ".." in name.split("/"):
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
    """Whether `name` is the result of the window that is called so, or something else, as `remove_result` sees it."""
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

    With `fingerprints`, it must have one of them. False if it is not, or something else has come into it meanwhile,
    which stays. Raises OSError.
    """
    try:
        with directories.opened(name, dir_fd) as directory:
            paths = _paths(directory, label, owner, fingerprints)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return paths is not None and directories.remove_only(name, dir_fd, paths)


def _paths(
    directory: int, label: str, owner: int | None, fingerprints: Collection[str | None] | None = None
) -> Set[str] | None:
    """The files of a result, by their paths within it; None if it is not that, or holds anything else."""
    if owner is not None and os.fstat(directory).st_uid != owner:
        return None
    metadata = metadata_in(directory)
    if metadata is None or metadata.label != label:
        return None
    if fingerprints is not None and metadata.fingerprint not in fingerprints:
        return None
    paths = {METADATA, *metadata.files}
    return paths if directories.holds_only(directory, paths) else None
