"""The server: the socket that clients talk to.

Nothing that a client does, sends or leaves undone may reach a window. A frame that is not one is answered once and ends
its connection; a client that does not read is dropped when its buffer is full; what all clients together may take of
descriptors is bounded.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import grp
import logging
import os
import pwd
import socket
import stat
import struct
import time
from collections.abc import Collection
from pathlib import Path

import anyio
import anyio.abc
import msgspec

from gpusched import __version__, files
from gpusched.daemon.requests import Requests
from gpusched.errors import NO_DAEMON, ConfigError, DaemonError, GpuschedError, UsageError
from gpusched.protocol import (
    MAX_REQUEST_BYTES,
    PROTOCOL,
    BadFrame,
    Problem,
    Reply,
    Welcome,
    decode_hello,
    decode_request,
    encode,
)

SOCKET_NAME = "gpusched.sock"
#: connections at a time
MAX_CLIENTS = 500
#: seconds that a client may take to say hello
HELLO_S = 10.0
#: seconds that a client may take to read what it asked for
SEND_S = 30.0
#: seconds that the last words to a client may take
CLOSE_S = 2.0
#: bytes that a subscriber may be behind
MAX_BEHIND_BYTES = 4 * 1024 * 1024
#: seconds until the next try when no connection can be accepted: mostly, there are no descriptors left
ACCEPT_PAUSE_S = 0.25

#: of a connection's groups, when it was made (Linux 4.13)
_SO_PEERGROUPS = 59
#: sun_path holds this many bytes and a zero
_MAX_PATH_BYTES = 107

log = logging.getLogger("gpusched.server")


class SocketTaken(DaemonError):
    problem = "another daemon listens on {path}: {holder}"
    remedy = "stop that one, or give this one another socket (--socket, daemon.socket)"


class SocketUnusable(DaemonError):
    problem = "the socket {path} cannot be made: {cause}"
    remedy = "choose another one (--socket, daemon.socket), or mend its directory"


class UnknownGroup(ConfigError):
    problem = "daemon.group: there is no group {group} on this machine"
    remedy = "create it (`groupadd --system {group}`), or leave the setting out: then only the owner can connect"


class NoPlace(UsageError):
    problem = "there is no place for the daemon's socket: neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set"
    remedy = "give one with --socket or daemon.socket; clients then need it too (GPUSCHED_SOCKET)"


def listening_path(explicit: Path | None) -> Path:
    """Where a daemon listens: where it is told to, or else where clients look. Raises NoPlace."""
    if explicit is not None:
        return explicit.absolute()
    if directories := os.environ.get("RUNTIME_DIRECTORY"):  # of systemd
        return Path(directories.partition(":")[0]) / SOCKET_NAME
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "gpusched" / SOCKET_NAME
    if os.geteuid() == 0:
        return Path("/run/gpusched") / SOCKET_NAME
    raise NoPlace


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int
    #: primary and supplementary
    gids: frozenset[int]


def may_connect(peer: Peer, *, owner: int, group: int | None) -> bool:
    """The daemon's own user, root, and the members of the configured group, if there is one."""
    return peer.uid in (owner, 0) or (group is not None and group in peer.gids)


def peer_of(connection: socket.socket) -> Peer:
    pid, uid, gid = struct.unpack("iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid=pid, uid=uid, gids=frozenset({gid, *_supplementary(connection, uid, gid)}))


def _supplementary(connection: socket.socket, uid: int, gid: int) -> Collection[int]:
    try:
        return array.array("I", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024))
    except OSError:  # an older kernel, or more groups than fit: those that the user has by the books
        try:
            return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
        except KeyError:
            return ()


class Listener:
    """The socket at `path` and the lock that keeps it ours, until `close`.

    Binding to the path of a live socket takes it over silently, so a lock is taken first; a socket that is left is then
    known to be dead. Raises SocketTaken, SocketUnusable, UnknownGroup.
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
        if directory.is_dir():
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


class Server:
    """Serves the clients of one listener until `run` is cancelled."""

    def __init__(self, listener: Listener, requests: Requests, *, state_dir: Path) -> None:
        self._listener = listener
        self._requests = requests
        self._welcome = Welcome(
            protocol=PROTOCOL,
            version=__version__,
            pid=os.getpid(),
            started_at=time.time(),
            state_dir=str(state_dir),
        )
        self._clients = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        failing = False
        async with anyio.create_task_group() as tasks:
            while True:
                try:
                    connection, _ = await loop.sock_accept(self._listener.socket)
                except OSError as error:
                    if not failing:
                        log.warning("no connection can be accepted error=%r", error.strerror)
                    failing = True
                    await anyio.sleep(ACCEPT_PAUSE_S)
                    continue
                failing = False
                tasks.start_soon(self._serve, connection)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_REQUEST_BYTES)
        except OSError:
            connection.close()
            return
        client = Connection(reader, writer)
        self._clients += 1
        try:
            await self._converse(client, connection)
        except _Over as over:
            if over.problem is not None:
                client.tell(over.problem)
        except TimeoutError:
            log.warning("a client that does not read its answers was dropped")
            client.drop()
        except OSError:
            client.drop()
        except Exception:
            log.exception("a request failed")
            client.tell(_problem(DaemonError(problem="the daemon failed to answer", remedy="its log says why")))
        finally:
            self._clients -= 1
            await client.close()

    async def _converse(self, client: Connection, connection: socket.socket) -> None:
        if not may_connect(peer := peer_of(connection), owner=os.geteuid(), group=self._listener.group):
            log.warning("a client was turned away pid=%d uid=%d", peer.pid, peer.uid)
            raise _Over(
                "this user may not talk to the daemon", "ask its operator to add you to the group of daemon.group"
            )
        if self._clients > MAX_CLIENTS:
            raise _Over(f"the daemon has {MAX_CLIENTS} clients already", "try again when some of them have left")
        try:
            with anyio.fail_after(HELLO_S):
                line = await client.line()
        except TimeoutError:
            raise _Over(f"no hello came within {HELLO_S:g} s", _UPGRADE) from None
        if line is None:
            return
        try:
            hello = decode_hello(line)
        except BadFrame as error:
            raise _Over(f"a connection must open with a hello: {error}", _UPGRADE) from error
        if hello.protocol != PROTOCOL:
            raise _Over(
                f"the daemon is gpusched {__version__} and speaks protocol {PROTOCOL}; the client is gpusched"
                f" {hello.version[:40]} and speaks protocol {hello.protocol}",
                _UPGRADE,
            )
        await client.send(self._welcome)
        while (line := await client.line()) is not None:
            try:
                request = decode_request(line)
            except BadFrame as error:
                raise _Over(f"this is not a request: {error}", _UPGRADE) from error
            try:
                await self._requests.answer(request, client)
            except GpuschedError as error:
                await client.send(_problem(error))


_UPGRADE = "use the same version of gpusched for both: upgrade the older one, and restart the daemon"


class _Over(Exception):
    """The conversation ends here, with last words if the client can still hear them."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = Problem(problem=problem, remedy=remedy, exit_code=NO_DAEMON)
        super().__init__(problem)


def _problem(error: GpuschedError) -> Problem:
    place = f"{error.place}: " if error.place else ""
    return Problem(
        problem=place + error.problem.format(**error.details),
        remedy=error.remedy.format(**error.details),
        exit_code=error.exit_code,
    )


class Connection:
    """One client; see `gpusched.daemon.requests.Client`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def line(self) -> bytes | None:
        """The next frame, or None if the client has hung up between two."""
        try:
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                return None
            raise _Over("the connection was closed in the middle of a frame", _UPGRADE) from None
        except asyncio.LimitOverrunError:
            raise _Over(f"a frame may have {MAX_REQUEST_BYTES} bytes at most", "send less at once") from None

    async def send(self, reply: Reply) -> None:
        self._writer.write(encode(reply))
        with anyio.fail_after(SEND_S):
            await self._writer.drain()

    def tell(self, reply: Reply) -> None:
        self.push(encode(reply))

    def push(self, frames: bytes) -> None:
        if self._writer.transport.is_closing():
            return
        behind = self._writer.transport.get_write_buffer_size()
        if behind > MAX_BEHIND_BYTES:
            log.warning("a client that does not read was dropped behind_bytes=%d", behind)
            self.drop()
        else:
            self._writer.write(frames)

    @property
    def gone(self) -> bool:
        return self._writer.transport.is_closing() or self._reader.at_eof()

    async def hung_up(self) -> None:
        with contextlib.suppress(OSError):
            await self._reader.read(1)

    def drop(self) -> None:
        """Forget what it was to be told."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Send what is left to be sent, if the client reads it soon."""
        self._writer.close()
        with anyio.move_on_after(CLOSE_S, shield=True) as scope, contextlib.suppress(OSError):
            await self._writer.wait_closed()
        if scope.cancelled_caught:
            self.drop()
