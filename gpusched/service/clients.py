"""Who is connected to the daemon: one connection each, what the kernel says of its user, and how many there may be."""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import pwd
import socket
import struct
import time
from collections.abc import Collection, Iterator

import anyio
import msgspec

from gpusched.errors import NO_DAEMON
from gpusched.protocol import MAX_REQUEST_BYTES, Problem, Reply, encode

#: connections at a time of all users together; root and the daemon's own user have as many each beside them
MAX_CLIENTS = 500
#: of one user
MAX_OF_A_USER = 100
#: seconds that a client may take to read what it asked for
SEND_S = 30.0
#: seconds that the last words to a client may take
CLOSE_S = 2.0
#: bytes that a subscriber may be behind
MAX_BEHIND_BYTES = 4 * 1024 * 1024
#: the remedy where the two sides do not understand each other
UPGRADE = "use the same version of gpusched for both: upgrade the older one, and restart the daemon"

#: of a connection's groups, when it was made (Linux 4.13)
_SO_PEERGROUPS = 59

log = logging.getLogger("gpusched.server")


class Gone(Exception):
    """There is nobody to talk to any more. Raised by a `Connection` alone: any other OSError is the daemon's own."""

    def __init__(self, why: str = "") -> None:
        #: for the log, where it is worth a word
        self.why = why
        super().__init__(why)


class Over(Exception):
    """The conversation ends here, with last words if the client can still hear them."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = Problem(problem=problem, remedy=remedy, exit_code=NO_DAEMON)
        super().__init__(problem)


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


class Clients:
    """Who is connected, and how many they may be: nobody's idle connections keep root and the daemon's user out.

    These two are never refused: the longest idle of their connections makes room for a new one.
    """

    def __init__(self, owner: int) -> None:
        self._owner = owner
        #: users of whom it was logged that they have too many; the log must not be what they fill
        self._told: set[int] = set()
        #: by user
        self._connected: dict[int, list[Connection]] = {}

    @contextlib.contextmanager
    def admitted(self, client: Connection, peer: Peer) -> Iterator[None]:
        """While it is connected. Raises Over where there are too many."""
        theirs = self._connected.setdefault(peer.uid, [])
        if peer.uid in (0, self._owner):
            if len(theirs) >= MAX_CLIENTS:
                self._log_once(peer, "idle connections make room for new ones of the same user")
                _make_room(theirs)
        elif len(theirs) >= MAX_OF_A_USER:
            self._log_once(peer, "clients of a user who has too many are turned away")
            raise Over(f"your user has {len(theirs)} connections to the daemon already", "close some of them")
        elif self._others() >= MAX_CLIENTS:
            raise Over(f"the daemon has {MAX_CLIENTS} clients already", "try again when some of them have left")
        theirs.append(client)
        try:
            yield
        finally:
            if client in theirs:  # else it has made room for another one
                theirs.remove(client)
            if len(theirs) < MAX_OF_A_USER // 2:
                self._told.discard(peer.uid)
            if not theirs and self._connected.get(peer.uid) is theirs:
                del self._connected[peer.uid]

    def _log_once(self, peer: Peer, what: str) -> None:
        """Again only after the user had far fewer."""
        if peer.uid not in self._told:
            self._told.add(peer.uid)
            log.warning("%s pid=%d uid=%d", what, peer.pid, peer.uid)

    def _others(self) -> int:
        return sum(len(theirs) for uid, theirs in self._connected.items() if uid not in (0, self._owner))


def _make_room(connected: list[Connection]) -> None:
    """End the connection that nothing was asked on for the longest time."""
    left = min(connected, key=lambda client: (client.busy, client.idle_since))
    connected.remove(left)
    why = f"your user has {MAX_CLIENTS} connections to the daemon, and this one was idle for the longest time"
    left.leave(Problem(problem=why, remedy="close those that are not used, and connect again", exit_code=NO_DAEMON))


class Connection:
    """One client; see `gpusched.service.requests.Client`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        #: who it is, once that is known
        self.peer: Peer | None = None
        #: whether a request of it is being answered, and when the last one was, or else when it came
        self.busy = False
        self.idle_since = time.monotonic()

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """While a request is being answered."""
        self.busy = True
        try:
            yield
        finally:
            self.busy, self.idle_since = False, time.monotonic()

    async def line(self) -> bytes | None:
        """The next frame, or None if the client has hung up between two."""
        try:
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                return None
            raise Over("the connection was closed in the middle of a frame", UPGRADE) from None
        except asyncio.LimitOverrunError:
            raise Over(f"a frame may have {MAX_REQUEST_BYTES} bytes at most", "send less at once") from None
        except OSError:
            raise Gone from None

    async def send(self, reply: Reply) -> None:
        self._writer.write(encode(reply))
        with anyio.move_on_after(SEND_S) as scope:
            try:
                await self._writer.drain()
            except OSError:
                raise Gone from None
        if scope.cancelled_caught:
            raise Gone("it does not read its answers")

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

    def leave(self, last_words: Reply) -> None:
        """End the conversation in favour of somebody else."""
        self.tell(last_words)
        self._writer.close()

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
