"""The daemon's clients: their connections, their users as the kernel reports them, and limits on their number."""

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
from collections.abc import AsyncIterator, Collection, Iterator

import anyio
import msgspec

from gpusched.errors import NO_DAEMON
from gpusched.protocol import MAX_REQUEST_BYTES, Problem, Reply, encode

#: connections at a time of all users together; root and the daemon's own user may each have as many besides
MAX_CLIENTS = 500
#: connections at a time of one user
MAX_OF_A_USER = 100
#: frames of so many bytes any connection may send at any time; a longer one needs one of the `MAX_LARGE` places of its
#: user from the first bytes to the answer, so that connections that stop amid a frame cannot fill the daemon's memory
SMALL_BYTES = 64 * 1024
MAX_LARGE = 16
#: seconds that a long frame waits for its place, less than a client waits to send; and that it may then take to arrive
PLACE_S, FRAME_S = 5.0, 10.0
#: seconds that a client may take to read a reply
SEND_S = 30.0
#: seconds that a client may take to read the last reply before its connection is closed
CLOSE_S = 2.0
#: unread bytes at which a subscriber is dropped
MAX_BEHIND_BYTES = 4 * 1024 * 1024
#: the remedy if the two sides do not understand each other
UPGRADE = "use the same version of gpusched for both: upgrade the older one, and restart the daemon"

#: socket option for the groups of the peer, as of its connection (Linux 4.13)
_SO_PEERGROUPS = 59

_CUT_OFF = "the connection was closed in the middle of a frame", UPGRADE

log = logging.getLogger("gpusched.server")


class Gone(Exception):
    """The client has gone. Only a `Connection` raises it: any other OSError is a fault of the daemon."""

    def __init__(self, why: str = "") -> None:
        #: a reason for the log, or empty
        self.why = why
        super().__init__(why)


class Over(Exception):
    """The daemon ends the conversation, with a problem for the client to read."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = Problem(problem=problem, remedy=remedy, exit_code=NO_DAEMON)
        super().__init__(problem)


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """The process and user at the other end of a connection, as the kernel reports them."""

    pid: int
    uid: int
    #: primary and supplementary
    gids: frozenset[int]


def may_connect(peer: Peer, *, owner: int, group: int | None) -> bool:
    """Whether a peer is the daemon's own user, root, or a member of the configured group, if any."""
    return peer.uid in (owner, 0) or (group is not None and group in peer.gids)


def peer_of(connection: socket.socket) -> Peer:
    pid, uid, gid = struct.unpack("iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid=pid, uid=uid, gids=frozenset({gid, *_supplementary(connection, uid, gid)}))


def _supplementary(connection: socket.socket, uid: int, gid: int) -> Collection[int]:
    try:
        return array.array("I", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024))
    except OSError:  # an older kernel, or more groups than fit: use the groups of the user database
        try:
            return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
        except KeyError:
            return ()


class Clients:
    """The connected clients, limited so that idle connections of others cannot keep root and the daemon's user out.

    These two are never refused: their connection that has been idle longest is closed for a new one.
    """

    def __init__(self, owner: int) -> None:
        self._owner = owner
        #: users whose excess of connections has been logged: once each, so that they cannot fill the log
        self._logged: set[int] = set()
        #: connections by uid
        self._connected: dict[int, list[Connection]] = {}
        #: places of long frames by uid
        self._large: dict[int, anyio.Semaphore] = {}

    @contextlib.contextmanager
    def admitted(self, client: Connection, peer: Peer) -> Iterator[None]:
        """Count a client within the context. Raises Over if there are too many."""
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
        client.large = self._large.setdefault(peer.uid, anyio.Semaphore(MAX_LARGE))
        try:
            yield
        finally:
            if client in theirs:  # else it was closed for a newer one
                theirs.remove(client)
            if len(theirs) < MAX_OF_A_USER // 2:
                self._logged.discard(peer.uid)
            if not theirs and self._connected.get(peer.uid) is theirs:
                del self._connected[peer.uid]

    def _log_once(self, peer: Peer, event: str) -> None:
        """Log an event of a user, and not again until the user has far fewer connections."""
        if peer.uid not in self._logged:
            self._logged.add(peer.uid)
            log.warning("%s pid=%d uid=%d", event, peer.pid, peer.uid)

    def _others(self) -> int:
        return sum(len(theirs) for uid, theirs in self._connected.items() if uid not in (0, self._owner))


def _make_room(connected: list[Connection]) -> None:
    """Close the connection that has been idle longest."""
    left = min(connected, key=lambda client: (client.busy, client.idle_since))
    connected.remove(left)
    why = f"your user has {MAX_CLIENTS} connections to the daemon, and this one was idle for the longest time"
    left.leave(Problem(problem=why, remedy="close those that are not used, and connect again", exit_code=NO_DAEMON))


class Connection:
    """The connection of a client; implements `gpusched.service.requests.Client`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        #: the client's user and process; None until they are known
        self.peer: Peer | None = None
        #: whether a request is being answered, and the monotonic time of the last answer, or else of the connection
        self.busy = False
        self.idle_since = time.monotonic()
        #: places of long frames that the client shares with the others of its user
        self.large = anyio.Semaphore(MAX_LARGE)

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """Mark the connection as busy within the context."""
        self.busy = True
        try:
            yield
        finally:
            self.busy, self.idle_since = False, time.monotonic()

    @contextlib.asynccontextmanager
    async def line(self) -> AsyncIterator[bytes | None]:
        """The next frame, or None if the client has hung up after the last one. Raises Over, Gone.

        Leave the context when it has been answered: until then, a long frame keeps its place.
        """
        async with contextlib.AsyncExitStack() as place:
            try:
                frame: bytes | None = await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                await self._take_place(place)
                frame = await self._long_frame()
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise Over(*_CUT_OFF) from None
                frame = None
            except OSError:
                raise Gone from None
            yield frame

    async def _take_place(self, place: contextlib.AsyncExitStack) -> None:
        try:
            with anyio.fail_after(PLACE_S):
                await place.enter_async_context(self.large)
        except TimeoutError:
            why = f"{MAX_LARGE} long requests of your user are not answered yet"
            raise Over(why, "send this one again when they are") from None

    async def _long_frame(self) -> bytes:
        frame = bytearray()
        try:
            with anyio.fail_after(FRAME_S):
                while len(frame) <= MAX_REQUEST_BYTES:
                    try:
                        return bytes(frame + await self._reader.readuntil(b"\n"))
                    except asyncio.LimitOverrunError as error:
                        frame += await self._reader.readexactly(error.consumed)
        except asyncio.IncompleteReadError:
            raise Over(*_CUT_OFF) from None
        except TimeoutError:
            raise Over(f"the rest of a frame did not come within {FRAME_S:g} s", UPGRADE) from None
        except OSError:
            raise Gone from None
        raise Over(f"a frame may have {MAX_REQUEST_BYTES} bytes at most", "send less at once")

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
        """End the conversation, with a last reply, to make room for another client."""
        self.tell(last_words)
        self._writer.close()

    def drop(self) -> None:
        """Close the connection at once, and discard unsent replies."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection after sending the unsent replies, if the client reads them soon."""
        self._writer.close()
        with anyio.move_on_after(CLOSE_S, shield=True) as scope, contextlib.suppress(OSError):
            await self._writer.wait_closed()
        if scope.cancelled_caught:
            self.drop()
