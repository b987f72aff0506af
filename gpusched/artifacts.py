"""What a window leaves behind: a directory that is committed whole or not at all, and can be verified later.

A window process writes into a directory of its own under `<output>/.partial/`. `commit` hashes and fsyncs every file
in it, adds `metadata.json` and moves it to `<output>/<label>`; a result that was there before is exchanged in the same
system call. Whoever looks at `<output>/<label>`, also after a kill or a power cut between any two lines below, finds
the old result, none or the new one, never a part or a mixture.

A partial directory is locked (flock) by its process for as long as that lives, so `sweep_partial` can tell the
left-overs of dead attempts from the work of running ones, whoever started them.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime as dt
import errno
import fcntl
import hashlib
import itertools
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from gpusched.core.model import DeviceType, WindowResult

SCHEMA = 1
METADATA = "metadata.json"
PARTIAL = ".partial"

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_libc = ctypes.CDLL(None, use_errno=True)


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
    """A directory that a window is being written to; nobody sees it until `commit`."""

    def __init__(self, output_dir: Path, label: str) -> None:
        self.output_dir = output_dir
        self.label = label
        self.path, self._lock = _create_locked(output_dir / PARTIAL, label)

    def commit(self, metadata: Metadata) -> Path:
        """Make the directory durable and visible as `<output_dir>/<label>`; return that path.

        Raises OSError when it cannot be written, ValueError when it holds something other than files and directories.
        """
        files: dict[str, File] = {}
        directories = [self.path]
        for path in _walk(self.path):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ValueError(f"{path.relative_to(self.path)} is neither a file nor a directory")
            if path.is_dir():
                directories.append(path)
            elif path != self.path / METADATA:
                files[path.relative_to(self.path).as_posix()] = _hash_and_sync(path)
        _write_metadata(self.path / METADATA, msgspec.structs.replace(metadata, files=dict(sorted(files.items()))))
        for directory in reversed(directories):
            _sync_directory(directory)

        final = self.output_dir / self.label
        replaced = _move_into_place(self.path, final)
        _sync_directory(self.output_dir)
        if replaced is not None:
            _remove_tree(replaced)
        self._unlock()
        return final

    def discard(self) -> None:
        """Remove the directory of a window that failed."""
        _remove_tree(self.path)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def read_metadata(directory: Path) -> Metadata | None:
    """The metadata of a committed result, or None where there is none that can be read."""
    try:
        entries = msgspec.json.decode((directory / METADATA).read_bytes(), type=dict[str, Any])
        details = {name: entries.pop(name) for name in tuple(entries) if name not in OWN_ENTRIES}
        return msgspec.convert(entries | {"details": details}, Metadata)
    except (OSError, msgspec.MsgspecError):
        return None


def verify(directory: Path, fingerprints: Collection[str]) -> Metadata | None:
    """The metadata of a committed result that has one of `fingerprints` and is intact to the last byte, else None."""
    metadata = read_metadata(directory)
    if metadata is None or metadata.schema != SCHEMA or metadata.fingerprint not in fingerprints:
        return None
    intact = all(_is_intact(directory, name, expected) for name, expected in metadata.files.items())
    return metadata if intact else None


def sweep_partial(output_dir: Path) -> int:
    """Remove what attempts that died left in `output_dir`; return how many there were."""
    swept = 0
    try:
        left_over = sorted((output_dir / PARTIAL).iterdir())
    except FileNotFoundError:
        return 0
    for path in left_over:
        lock = _lock(path)
        if lock is None:
            continue
        try:
            _remove_tree(path)
            swept += 1
        finally:
            os.close(lock)
    return swept


# -- writing -----------------------------------------------------------------------------------------------------------


def _create_locked(parent: Path, label: str) -> tuple[Path, int]:
    """A new directory for `label` under `parent`, and a descriptor that holds its lock.

    Its name may be taken by the left-over of a dead attempt that had our pid, or by a process of another host or
    container that has it now; and a sweeper may take the directory between its creation and its lock.
    """
    for number in itertools.count():
        path = parent / (f"{label}.{number}.{os.getpid()}" if number else f"{label}.{os.getpid()}")
        try:
            path.mkdir()
        except FileNotFoundError:
            parent.mkdir(parents=True, exist_ok=True)
            continue
        except FileExistsError:
            continue
        lock = _lock(path)
        if lock is None:
            continue
        if path.exists():
            return path, lock
        os.close(lock)
    raise AssertionError("itertools.count ended")


def _lock(directory: Path) -> int | None:
    """A descriptor that holds the directory's lock, or None if another process has it or the directory is gone."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        # Some network file systems have no locks on directories: there the names' pids are all we have.
        if error.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL) or _owner_lives(directory):
            os.close(descriptor)
            return None
    return descriptor


def _owner_lives(directory: Path) -> bool:
    pid = directory.name.rpartition(".")[2]
    return pid.isdigit() and int(pid) != os.getpid() and Path(f"/proc/{pid}").exists()


def _hash_and_sync(path: Path) -> File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return File(sha256=digest, bytes=file.tell())


def _write_metadata(path: Path, metadata: Metadata) -> None:
    entries = msgspec.to_builtins(metadata)
    details, files = entries.pop("details"), entries.pop("files")
    text = msgspec.json.format(msgspec.json.encode(entries | details | {"files": files}), indent=2) + b"\n"
    with path.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_into_place(partial: Path, final: Path) -> Path | None:
    """Rename `partial` to `final`; return where a result that was there before has gone."""
    try:
        partial.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    else:
        return None
    if _exchange(partial, final):
        return partial
    # A file system without RENAME_EXCHANGE: for a moment there is no result, which is what a reader may also find.
    aside = partial.with_name(f"{partial.name}.old")
    final.rename(aside)
    partial.rename(final)
    return aside


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths atomically; False where the file system or the kernel cannot."""
    try:
        renameat2 = _libc.renameat2
    except AttributeError:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


# -- reading -----------------------------------------------------------------------------------------------------------


def _is_intact(directory: Path, name: str, expected: File) -> bool:
    if name.startswith("/") or ".." in name.split("/"):
        return False
    try:
        with (directory / name).open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size != expected.bytes:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256
    except OSError:
        return False


def _walk(directory: Path) -> list[Path]:
    """Everything below `directory`, parents before what they hold."""
    found: list[Path] = []
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            found.append(Path(entry.path))
            if entry.is_dir(follow_symlinks=False):
                found.extend(_walk(Path(entry.path)))
    return found


def _remove_tree(path: Path) -> None:
    """`shutil.rmtree` without what importing shutil costs every client; somebody else may be removing the same tree."""
    try:
        below = _walk(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        path.unlink(missing_ok=True)
        return
    for item in reversed(below):
        with contextlib.suppress(FileNotFoundError):
            if item.is_dir() and not item.is_symlink():
                item.rmdir()
            else:
                item.unlink()
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()
