"""The territory of clients: directories that the daemon reads and writes for them, and workloads that it runs.

The daemon reads and writes with the rights of its own user. So that a client cannot use it to do more than with its own
rights, the client must be able to read the data root and to write to the output directory, unless the daemon has made
that directory for the same client. Permissions are judged as the kernel would, on descriptors along a path without
links, so the directory that was judged is the one that is used. Later writers take the same path without links
(`directories.opened_output`), so a link that is put there afterwards is not followed.

The daemon's own user and root are not judged here: the kernel checks the daemon's rights.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from gpusched import directories, users
from gpusched.core.entry_point import entry_point
from gpusched.errors import InputError
from gpusched.service.clients import Peer

_READ, _WRITE, _SEARCH = 4, 2, 1
#: tags of entries in an access control list (acl(5), `linux/posix_acl.h`)
_USER_OWNER, _USER, _GROUP_OWNER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_ENTRY = struct.Struct("<HHI")


class DataUnreadable(InputError):
    problem = "the daemon cannot read the {role} {path}: {cause}"
    remedy = "it runs as user {user}: check that the path exists on its machine and that this user may read it"


class OutputUnwritable(InputError):
    problem = "gpusched cannot write to the output directory {path}: {cause}"
    remedy = "it runs as user {user}: choose a directory that this user may write, with -o or run.output"


class DataNotYours(InputError):
    problem = "user {user} cannot read the data root {path}: {cause}"
    remedy = "the daemon reads for a client only what that client can read itself: name other data"


class OutputNotYours(InputError):
    problem = "user {user} cannot write to the output directory {path}: {cause}"
    remedy = "the daemon writes only where its client could: choose a directory of your own with -o, or leave -o out"


class ResultsNotYours(InputError):
    problem = "no batch of user {user} has its results in {path}"
    remedy = "the daemon copies results for a client only from the directories of that client's own batches"


class OutputPrivate(InputError):
    problem = "the output directory {path} {where} {private}, where gpusched keeps its own files"
    remedy = "choose another directory with -o, or leave -o out"


class OutsideRoots(InputError):
    problem = "the {what} {path} lies outside of the directories that this daemon works in: {roots}"
    remedy = "choose one within them, or have its operator add this one to daemon.roots"


class CodeUnreadable(InputError):
    problem = "the daemon cannot read the workload's code in {path}: {cause}"
    remedy = "it runs as user {user}: put the code where this user may read it, or install it where the daemon is"


class CodeNotYours(InputError):
    problem = "user {user} cannot read the workload's code in {path}: {cause}"
    remedy = "the daemon imports for a client only what that client can read itself"


class WorkloadRefused(InputError):
    problem = "the workload {workload} is none of those that this daemon runs: {workloads}"
    remedy = "choose one of them, or have its operator add this one to daemon.workloads"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The output directory of a batch."""

    #: without links
    path: Path
    #: whether the path may contain no link, now or later
    guarded: bool
    #: uid of the client; None if it is root or the daemon's own user
    owner: int | None


class Territory(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's rules. Empty `roots` or `workloads`: any."""

    #: parent of the output directories of batches that name none
    output_root: Path
    #: directories of the daemon alone: its state, its cache, its socket
    private: tuple[Path, ...] = ()
    roots: tuple[Path, ...] = ()
    workloads: tuple[str, ...] = ()
    #: the group and the mode of new output directories; None: the daemon's group, and the mode that its umask gives
    output_group: int | None = None
    output_mode: int | None = None

    def workload(self, peer: Peer | None, workload: str) -> str:
        """The workload to run for a client who names this one. Raises InputError.

        Its name may have the directory of its code, which the client offers. Where only some workloads may be named,
        the daemon runs its own code of that name.
        """
        entry = entry_point(workload)
        assert entry is not None
        if self.workloads:
            for name in (workload, entry.name):
                if name in self.workloads:
                    return name
            raise WorkloadRefused(workload=entry.name, workloads=", ".join(self.workloads))
        if entry.directory:
            self._try_to_read_code(_judged(peer), Path(entry.directory))
        return workload

    def _try_to_read_code(self, client: Peer | None, path: Path) -> None:
        try:
            self._try_to_read(client, path, "code directory")
        except _Denied:
            raise CodeNotYours(path=path, user=user_name(client), cause=os.strerror(errno.EACCES)) from None
        except OSError as error:
            raise CodeUnreadable(path=path, cause=error.strerror or error, user=user_name()) from error

    def place(self, peer: Peer | None, output_dir: Path) -> Place:
        """The output directory of a client's batch, which is not made yet. Raises OutputPrivate, OutsideRoots."""
        real, root = _real(output_dir), _real(self.output_root)
        private = tuple(map(_real, self.private))
        for one in private:
            if real in one.parents:
                raise OutputPrivate(path=output_dir, where="holds", private=one)
        if _refuse_within(output_dir, private, exempt=root) is None:
            self._check_roots("output directory", real)
        owner = foreign(peer)
        return Place(path=real, guarded=owner is not None or bool(self.roots), owner=owner)

    def results(self, peer: Peer | None, path: Path, owner_of: Callable[[str], int | None]) -> Path:
        """A directory without links whose results may be copied for a client.

        `owner_of` an output directory is the client whose batch was the last to write to it. Raises InputError.
        """
        real, role, owner = _real(path), "directory of results", foreign(peer)
        # The daemon may read more than the client may: it copies only results that it wrote for that client.
        if owner is not None and owner != owner_of(str(real)):
            raise ResultsNotYours(path=path, user=user_name(peer))
        if _real(self.output_root) not in real.parents:
            self._check_roots(role, real)
        try:
            os.scandir(real).close()
        except OSError as error:
            raise DataUnreadable(role=role, path=path, cause=error.strerror or error, user=user_name()) from error
        return real

    def prepare(self, peer: Peer | None, data_root: Path | None, place: Place, *, is_theirs: bool) -> bool:
        """Try to read the data root if there is one, make the output directory and try to write to it.

        `is_theirs`: the daemon has chosen the output directory, or made it for the same client. Returns whether that
        client can read results which are written there. Raises InputError.
        """
        client = _judged(peer)
        if data_root is not None:
            self._try_to_read_data(client, data_root)
        try:
            judged = None if is_theirs else client
            with directories.descended(place.path, _judge(judged, _SEARCH)) as (directory, missing):
                _judge(judged, _WRITE)(directory)
                with directories.made(directory, missing, self._share) as output:
                    return _try_to_write(output, client)
        except _Denied:
            raise OutputNotYours(path=place.path, user=user_name(client), cause=os.strerror(errno.EACCES)) from None
        except OSError as error:
            raise OutputUnwritable(path=place.path, cause=error.strerror or error, user=user_name()) from error

    def _share(self, directory: int) -> None:
        """Give a new output directory its group and mode; files made in it later get their group from it."""
        if self.output_mode is None:
            return
        if self.output_group is not None:
            os.fchown(directory, -1, self.output_group)
        os.fchmod(directory, self.output_mode | (0 if self.output_group is None else stat.S_ISGID))

    def _try_to_read_data(self, client: Peer | None, path: Path) -> None:
        try:
            self._try_to_read(client, path, "data root")
        except _Denied:
            raise DataNotYours(path=path, user=user_name(client), cause=os.strerror(errno.EACCES)) from None
        except OSError as error:
            raise DataUnreadable(
                role="data root", path=path, cause=error.strerror or error, user=user_name()
            ) from error

    def _try_to_read(self, client: Peer | None, path: Path, role: str) -> None:
        """List a directory. Raises OutsideRoots, _Denied if the client could not, OSError if the daemon cannot."""
        real = _real(path)
        self._check_roots(role, real)
        with directories.descended(real, _judge(client, _SEARCH)) as (directory, missing):
            if missing:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            _judge(client, _READ)(directory)
            with directories.opened(".", directory) as listed:
                directories.names(listed)

    def _check_roots(self, role: str, real: Path) -> None:
        if self.roots and not any(root == real or root in real.parents for root in map(_real, self.roots)):
            raise OutsideRoots(what=role, path=real, roots=", ".join(map(str, self.roots)))


def unreadable(peer: Peer | None, path: Path) -> str:
    """The note for a client who cannot read the results that it asked for."""
    return (
        f"User {user_name(peer)} cannot read the results in {path}, which will be user {user_name()}'s:"
        " `gpusched results` and `report` show them, and the daemon's operator opens them by daemon.output_mode"
    )


def foreign(peer: Peer | None) -> int | None:
    """The uid of a client whose rights are judged; None for root and the daemon's own user."""
    return None if peer is None or peer.uid in (os.geteuid(), 0) else peer.uid


def _judged(peer: Peer | None) -> Peer | None:
    return None if foreign(peer) is None else peer


def refuse_within(output_dir: Path, private: Sequence[Path]) -> None:
    """Raise OutputPrivate if an output directory is one of the `private` directories, or in one."""
    _refuse_within(output_dir, tuple(map(_real, private)))


def _refuse_within(output_dir: Path, private: Sequence[Path], exempt: Path | None = None) -> Path | None:
    """The innermost of the given directories that contains an output directory. Raises OutputPrivate if it is private.

    `private` and `exempt` are paths without links.
    """
    real = _real(output_dir)
    candidates = private if exempt is None else (*private, exempt)
    around = [one for one in candidates if one == real or one in real.parents]
    nearest = max(around, key=lambda one: len(one.parts), default=None)
    if nearest in private:
        raise OutputPrivate(path=output_dir, where="is" if nearest == real else "lies in", private=nearest)
    return nearest


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def user_name(client: Peer | None = None) -> str:
    return users.user_name(os.geteuid() if client is None else client.uid)


def _try_to_write(directory: int, client: Peer | None) -> bool:
    """Make a directory as for a window, and remove it; return whether the client could read it."""
    probe = f".gpusched.{os.getpid()}.{time.monotonic_ns()}"
    os.mkdir(probe, dir_fd=directory)
    try:
        with directories.opened(probe, directory) as made:
            return client is None or may(client, os.fstat(made), _access_list(made), _READ | _SEARCH)
    finally:
        os.rmdir(probe, dir_fd=directory)


# -- permissions of another user ---------------------------------------------------------------------------------------


class _Denied(PermissionError):
    """The client lacks a permission, whether or not the daemon has it."""


def _judge(client: Peer | None, wanted: int) -> Callable[[int], None]:
    """A function that raises _Denied for a directory on which the client lacks the `wanted` permissions."""

    def judge(directory: int) -> None:
        if client is not None and not may(client, os.fstat(directory), _access_list(directory), wanted):
            raise _Denied

    return judge


def _access_list(directory: int) -> bytes:
    """The access control list of a directory; empty if it has only its mode."""
    try:
        return os.getxattr(f"/proc/self/fd/{directory}", "system.posix_acl_access")
    except OSError:
        return b""


def may(client: Peer, status: os.stat_result, access_list: bytes, wanted: int) -> bool:
    """Whether a user who is not root is granted all of `wanted`, by the rules of acl(5)."""
    entries: list[tuple[int, int, int]] = list(_ENTRY.iter_unpack(access_list[4:])) or _entries_of_mode(status.st_mode)
    mask = next((granted for tag, granted, _ in entries if tag == _MASK), 0o7)
    if client.uid == status.st_uid:
        return any(tag == _USER_OWNER and granted & wanted == wanted for tag, granted, _ in entries)
    if named := [granted for tag, granted, uid in entries if tag == _USER and uid == client.uid]:
        return named[0] & mask & wanted == wanted
    groups = [
        granted
        for tag, granted, gid in entries
        if (tag == _GROUP_OWNER and status.st_gid in client.gids) or (tag == _GROUP and gid in client.gids)
    ]
    if groups:
        return any(granted & mask & wanted == wanted for granted in groups)
    return any(tag == _OTHER and granted & wanted == wanted for tag, granted, _ in entries)


def _entries_of_mode(mode: int) -> list[tuple[int, int, int]]:
    return [(_USER_OWNER, mode >> 6 & 7, 0), (_GROUP_OWNER, mode >> 3 & 7, 0), (_OTHER, mode & 7, 0)]
