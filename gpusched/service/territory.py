"""Where clients may have the daemon work: what it reads and writes for them, and the code that it runs.

The daemon reads and writes with the rights of its own user. So that a client gets no more done than that client could,
a data root must be one that the client can read, and an output directory one that the client can write to, or that the
daemon has made for the same client. Permissions are judged as the kernel would judge them, on descriptors, on a way
that no link leads along: what was judged is what is used. Whoever writes there later takes the same way again
(`directories.opened_output`), so that a link that is put there afterwards leads nowhere.

The daemon's own user and root are asked for nothing: the kernel does that.
"""

from __future__ import annotations

import errno
import os
import pwd
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from gpusched import directories
from gpusched.errors import InputError
from gpusched.service.clients import Peer

_READ, _WRITE, _SEARCH = 4, 2, 1
#: of an access control list (acl(5), `linux/posix_acl.h`)
_USER_OWNER, _USER, _GROUP_OWNER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_ENTRY = struct.Struct("<HHI")


class DataUnreadable(InputError):
    problem = "the daemon cannot read the data root {path}: {cause}"
    remedy = "it runs as user {user}: check that the path exists on its machine and that this user may read it"


class OutputUnwritable(InputError):
    problem = "the daemon cannot write to the output directory {path}: {cause}"
    remedy = "it runs as user {user}: choose a directory that this user may write, with -o or run.output"


class DataNotYours(InputError):
    problem = "user {user} cannot read the data root {path}: {cause}"
    remedy = "the daemon reads for a client only what that client can read itself: name other data"


class OutputNotYours(InputError):
    problem = "user {user} cannot write to the output directory {path}: {cause}"
    remedy = "the daemon writes only where its client could: choose a directory of your own with -o, or leave -o out"


class OutputPrivate(InputError):
    problem = "the output directory {path} {where} {private}, where gpusched keeps what is its own"
    remedy = "choose another directory with -o, or leave -o out"


class OutsideRoots(InputError):
    problem = "the {what} {path} lies outside of the directories that this daemon works in: {roots}"
    remedy = "choose one within them, or have its operator add this one to daemon.roots"


class WorkloadRefused(InputError):
    problem = "the workload {workload} is none of those that this daemon runs: {workloads}"
    remedy = "choose one of them, or have its operator add this one to daemon.workloads"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a batch writes."""

    #: a real path
    path: Path
    #: no link may lead there, now or later
    guarded: bool
    #: the client, where it is neither root nor the daemon's own user
    owner: int | None


class Territory(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's rules. Empty `roots` or `workloads`: any."""

    #: where outputs go that name no directory of their own
    output_root: Path
    #: of the daemon alone: its state, its cache, its socket
    private: tuple[Path, ...] = ()
    roots: tuple[Path, ...] = ()
    workloads: tuple[str, ...] = ()

    def check_workload(self, workload: str) -> None:
        if self.workloads and workload not in self.workloads:
            raise WorkloadRefused(workload=workload, workloads=", ".join(self.workloads))

    def place(self, peer: Peer | None, output_dir: Path) -> Place:
        """Where a client's batch would write; nothing is made yet. Raises OutputPrivate, OutsideRoots."""
        real, root = _real(output_dir), _real(self.output_root)
        private = tuple(map(_real, self.private))
        for one in private:
            if real in one.parents:
                raise OutputPrivate(path=output_dir, where="holds", private=one)
        if _refuse_within(output_dir, private, exempt=root) is None:
            self._check_roots("output directory", real)
        owner = foreign(peer)
        return Place(path=real, guarded=owner is not None or bool(self.roots), owner=owner)

    def prepare(self, peer: Peer | None, data_root: Path, place: Place, *, is_theirs: bool) -> None:
        """Try what windows will do, and make the output directory. Raises InputError.

        `is_theirs`: the daemon has chosen the place, or made it for the same client.
        """
        client = peer if place.owner is not None else None
        real = _real(data_root)
        self._check_roots("data root", real)
        try:
            with directories.descended(real, _judge(client, _SEARCH)) as (directory, missing):
                if missing:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                _judge(client, _READ)(directory)
                with directories.opened(".", directory) as listed:
                    directories.names(listed)
        except _Denied:
            raise DataNotYours(path=data_root, user=_user(client), cause=os.strerror(errno.EACCES)) from None
        except OSError as error:
            raise DataUnreadable(path=data_root, cause=error.strerror or error, user=_user()) from error
        try:
            judged = None if is_theirs else client
            with directories.descended(place.path, _judge(judged, _SEARCH)) as (directory, missing):
                _judge(judged, _WRITE)(directory)
                with directories.made(directory, missing) as output:
                    _try_to_write(output)
        except _Denied:
            raise OutputNotYours(path=place.path, user=_user(client), cause=os.strerror(errno.EACCES)) from None
        except OSError as error:
            raise OutputUnwritable(path=place.path, cause=error.strerror or error, user=_user()) from error

    def _check_roots(self, what: str, real: Path) -> None:
        if self.roots and not any(root == real or root in real.parents for root in map(_real, self.roots)):
            raise OutsideRoots(what=what, path=real, roots=", ".join(map(str, self.roots)))


def foreign(peer: Peer | None) -> int | None:
    """The uid of a client that is neither root nor the daemon's own user; None for those, who are asked for nothing."""
    return None if peer is None or peer.uid in (os.geteuid(), 0) else peer.uid


def refuse_within(output_dir: Path, private: Sequence[Path]) -> None:
    """Raise OutputPrivate if an output directory is one of these, or lies in one."""
    _refuse_within(output_dir, tuple(map(_real, private)))


def _refuse_within(output_dir: Path, private: Sequence[Path], exempt: Path | None = None) -> Path | None:
    """The nearest of all these real directories around an output; raises OutputPrivate if it is a private one."""
    real = _real(output_dir)
    known = private if exempt is None else (*private, exempt)
    around = [one for one in known if one == real or one in real.parents]
    nearest = max(around, key=lambda one: len(one.parts), default=None)
    if nearest in private:
        raise OutputPrivate(path=output_dir, where="is" if nearest == real else "lies in", private=nearest)
    return nearest


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same directory, however they are written."""
    try:
        return one.samefile(other)
    except OSError:
        return _real(one) == _real(other)


def _user(client: Peer | None = None) -> str:
    uid = os.geteuid() if client is None else client.uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _try_to_write(directory: int) -> None:
    probe = f".gpusched.{os.getpid()}.{time.monotonic_ns()}"
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory))
    os.unlink(probe, dir_fd=directory)


# -- permissions of another user ---------------------------------------------------------------------------------------


class _Denied(PermissionError):
    """The client may not do it; what the daemon may is another question."""


def _judge(client: Peer | None, wanted: int) -> Callable[[int], None]:
    """Raises _Denied for a directory with which the client may not do what is wanted."""

    def judge(directory: int) -> None:
        if client is not None and not may(client, os.fstat(directory), _access_list(directory), wanted):
            raise _Denied

    return judge


def _access_list(directory: int) -> bytes:
    """The access control list of a directory; empty where it has none but its mode."""
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
