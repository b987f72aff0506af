"""An output directory as a whole: claim it, copy results to it, find missing ones, remove results and left-overs.

Only directories that gpusched wrote are removed; `gpusched.artifacts` tells them from everything else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Collection, Mapping
from io import BufferedReader, BufferedWriter
from pathlib import Path

from gpusched import artifacts, directories, files
from gpusched.errors import InputError
from gpusched.metadata import METADATA, metadata_in

#: bytes that the kernel is asked to copy at a time
_MOST_BYTES = 1 << 30


class OutputInUse(InputError):
    problem = "{holder} trains a batch into {path}"
    remedy = "wait until that batch is finished, or give this one another output directory"


def claim(output_dir: Path, *, guarded: bool = False, make: bool = True) -> int:
    """A descriptor that keeps other supervisors from claiming this directory until it is closed.

    Raises OutputInUse, OSError, `directories.NotOurs`.
    """
    with directories.opened_output(output_dir, guarded=guarded, make=make) as directory:
        try:
            return files.lock_directory(directory)
        except files.Locked as locked:
            raise OutputInUse(holder=locked.holder, path=output_dir) from None


def ignores_case(path: Path) -> bool:
    """Whether `a` and `A` are one name in a directory, or where it will be made, as far as an entry there shows it."""
    for directory in (path, *path.parents):
        try:
            names = os.listdir(directory)  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            continue
        except OSError:
            return False
        shown = next((name for name in names if name.swapcase() != name), None)
        return shown is not None and shown.swapcase() not in names and Path(directory, shown.swapcase()).exists()
    return False


def missing(output_dir: Path, labels: Collection[str]) -> list[str]:
    """The labels that have no result at `<output_dir>/<label>`; a result that cannot be checked counts as present."""
    return [label for label in labels if _is_gone(output_dir / label / METADATA)]


def remove_results(
    output_dir: Path, fingerprints: Mapping[str, str | None], *, guarded: bool = False
) -> tuple[int, list[str]]:
    """Remove the results of windows (label → fingerprint); return how many, and the labels that are still taken.

    Only provable results are removed: a directory of this user whose `metadata.json` names that window and that
    fingerprint and lists every file in it. It is first renamed into `.partial`, where nobody else can exchange it, and
    checked again there. Raises OSError, `directories.NotOurs`.
    """
    removed, kept = 0, list[str]()
    with contextlib.ExitStack() as stack:
        try:
            output = stack.enter_context(directories.opened_output(output_dir, guarded=guarded, make=False))
        except FileNotFoundError:
            return 0, []
        parent = directories.own_directory(artifacts.PARTIAL, output, shown=output_dir / artifacts.PARTIAL)
        stack.callback(os.close, parent)
        owner = os.fstat(parent).st_uid
        for label, fingerprint in fingerprints.items():
            if artifacts.standing_in(output, label, owner, (fingerprint,)) == "result":
                # Into `.partial`, where nobody else can exchange it.
                name = directories.move_aside(label, output, f"{artifacts.OURS}.{os.getpid()}", parent)
                if artifacts.remove_result(name, parent, label, owner, (fingerprint,)):
                    removed += 1
                elif not directories.place(name, parent, label, output):
                    directories.move_aside(name, parent, artifacts.ASIDE, output, called=label)
            if artifacts.standing_in(output, label) != "nothing":
                kept.append(label)
        _sweep(parent)
        with contextlib.suppress(OSError):  # an attempt is writing there
            os.rmdir(artifacts.PARTIAL, dir_fd=output)
    return removed, kept


def take_over(
    source: Path, output_dir: Path, fingerprint: str, *, own: bool = False, guarded: bool = False
) -> Path | None:
    """Copy the result at `source` to `<output_dir>/<its label>`, and return that path.

    None if there is no intact result with that fingerprint, if it contains a link, or if it has to be this user's `own`
    and a part of it is not. Its bytes are copied, or shared by a file system that copies on write; no file is linked,
    since a program that writes to one of two linked files would change both results. Raises OSError,
    `directories.NotOurs`.
    """
    with (
        directories.opened_output(source.parent, guarded=guarded, make=False) as parent,
        directories.opened(source.name, parent) as directory,
    ):
        metadata = metadata_in(directory)
        if metadata is None or not metadata.is_of(source.name, (fingerprint,)):
            return None
        listed = {METADATA, *metadata.files}
        if not metadata.files or not directories.holds_only(directory, listed):
            return None
        partial = artifacts.Partial(output_dir, metadata.label, guarded=guarded)
        try:
            _copy(directory, partial.path, os.geteuid() if own else None)
            return partial.commit(metadata)
        except (artifacts.NotCommittable, artifacts.NotAsListed):
            partial.discard()
            return None
        except BaseException:
            with contextlib.suppress(OSError):  # it is swept later
                partial.discard()
            raise


def _copy(directory: int, into: Path, owner: int | None) -> None:
    """Copy the files below an open directory, but no metadata, which is written anew.

    Raises NotAsListed if a file or a directory does not belong to `owner`; None: anybody's will do.
    """
    _require(owner, directory)
    with os.scandir(directory) as entries:
        held = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in held:
        if is_directory:
            (into / name).mkdir()
            with directories.opened(name, directory) as below:
                _copy(below, into / name, owner)
        elif name != METADATA:
            with files.regular(name, directory) as file, (into / name).open("xb") as copy:
                _require(owner, file.fileno())
                _copy_bytes(file, copy)


def _require(owner: int | None, descriptor: int) -> None:
    if owner is not None and os.fstat(descriptor).st_uid != owner:
        raise artifacts.NotAsListed("a part of it belongs to another user")


def _copy_bytes(file: BufferedReader, copy: BufferedWriter) -> None:
    """Copy within the kernel, where the file systems can, which may share the bytes instead."""
    try:
        while os.copy_file_range(file.fileno(), copy.fileno(), _MOST_BYTES):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
            raise
        copy.seek(0)
        shutil.copyfileobj(file, copy)


def sweep_partial(output_dir: Path, *, guarded: bool = False) -> int:
    """Remove the partial directories of dead attempts from `output_dir`; return how many were removed.

    Raises OSError where nothing can be written there, and `directories.NotOurs` as `Partial` does.
    """
    try:
        with directories.opened_output(output_dir, guarded=guarded, make=False) as output:
            os.stat(artifacts.PARTIAL, dir_fd=output, follow_symlinks=False)
            parent = directories.own_directory(artifacts.PARTIAL, output, shown=output_dir / artifacts.PARTIAL)
    except FileNotFoundError:
        return 0
    try:
        return _sweep(parent)
    finally:
        os.close(parent)


def _sweep(parent: int) -> int:
    swept = 0
    for name in sorted(filter(artifacts.PARTIAL_NAME.fullmatch, directories.names(parent))):
        lock = artifacts.lock_partial(name, parent)
        if lock is None:
            continue
        try:
            with contextlib.suppress(OSError):
                directories.remove(name, parent)
                swept += 1
        finally:
            os.close(lock)
    return swept


def _is_gone(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
