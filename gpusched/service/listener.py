"""The listener: the socket at which clients find the daemon, and the lock that keeps a second daemon off it."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
from pathlib import Path

from gpusched import files
from gpusched.errors import ConfigError, DaemonError
from gpusched.service.clients import MAX_CLIENTS

#: sun_path holds this many bytes and a null byte
_MAX_PATH_BYTES = 107


class SocketTaken(DaemonError):
    problem = "another daemon listens on {path}: {holder}"
    remedy = "stop that one, or give this one another socket (--socket, daemon.socket)"


class SocketUnusable(DaemonError):
    problem = "the socket {path} cannot be made: {cause}"
    remedy = "choose another one (--socket, daemon.socket), or mend its directory"


class UnknownGroup(ConfigError):
    problem = "daemon.group: there is no group {group} on this machine"
    remedy = "create it (`groupadd --system {group}`), or leave the setting out: then only the owner can connect"


class Listener:
    """The socket at `path` and the lock that keeps it ours, until `close`.

    Binding to the path of a live socket takes it over silently, so a lock is taken first: a socket that is still there
    must then be a dead daemon's. Raises SocketTaken, SocketUnusable, UnknownGroup.
    """

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        try:
            self.group = None if group is None else grp.getgrnam(group).gr_gid
        except KeyError:
            raise UnknownGroup(group=group) from None
        if len(os.fsencode(path)) > _MAX_PATH_BYTES:
            raise SocketUnusable(path=path, cause=f"its path is longer than {_MAX_PATH_BYTES} bytes")
        try:
            self._make_directory(path.parent)
            self._lock = self._take_lock()
            try:
                self.socket = self._bind()
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise SocketUnusable(path=path, cause=error.strerror or error) from error

    def close(self) -> None:
        self.socket.close()
        self.path.unlink(missing_ok=True)
        os.close(self._lock)

    def _make_directory(self, directory: Path) -> None:
        if files.is_directory(directory):
            return
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.group is not None:
            os.chown(directory, -1, self.group)
            directory.chmod(0o750)

    def _take_lock(self) -> int:
        try:
            return files.lock(self.path.with_name(self.path.name + ".lock"))
        except files.Locked as locked:
            raise SocketTaken(path=self.path, holder=locked.holder) from None

    def _bind(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise SocketUnusable(path=self.path, cause="there is something else at that path")
            self.path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            umask = os.umask(0o177)  # private from its first moment
            try:
                listener.bind(str(self.path))
            finally:
                os.umask(umask)
            if self.group is not None:
                os.chown(self.path, -1, self.group)
                self.path.chmod(0o660)
            listener.listen(MAX_CLIENTS)
        except BaseException:
            listener.close()
            raise
        return listener
