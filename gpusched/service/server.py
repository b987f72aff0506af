"""The server: talks to the clients of one listener.

No behaviour of a client may disturb a window. An invalid frame gets one answer and ends its connection; a client that
does not read is dropped when its buffer is full; the number of clients, and so of descriptors, is bounded. A request
that fails through a fault of the daemon is answered like any other, with a reference to the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from pathlib import Path

import anyio
import anyio.abc

from gpusched import __version__, clock
from gpusched.errors import DaemonError, GpuschedError, ReplacementRefused, in_words
from gpusched.protocol import (
    PROTOCOL,
    BadFrame,
    Problem,
    Welcome,
    decode_hello,
    decode_request,
)
from gpusched.service.clients import SMALL_BYTES, UPGRADE, Clients, Connection, Gone, Over, Peer, may_connect, peer_of
from gpusched.service.listener import Listener
from gpusched.service.requests import Requests

#: seconds that a client may take to say hello
HELLO_S = 10.0
#: seconds between tries when no connection can be accepted, usually because there are no free descriptors
ACCEPT_PAUSE_S = 0.25

log = logging.getLogger("gpusched.server")


class Unanswered(DaemonError):
    """An unforeseen fault; the request may have been carried out in part."""

    problem = "the daemon could not answer: {why}"
    remedy = "its log tells more, under the reference {reference} (`journalctl -u gpusched | grep -A30 {reference}`)"


class Server:
    """Serves the clients of one listener until `run` is cancelled."""

    def __init__(self, listener: Listener, requests: Requests, *, state_dir: Path) -> None:
        self._listener = listener
        self._requests = requests
        self._welcome = Welcome(
            protocol=PROTOCOL,
            version=__version__,
            pid=os.getpid(),
            started_at=clock.wall(),
            state_dir=str(state_dir),
        )
        self._clients = Clients(os.geteuid())

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
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=SMALL_BYTES)
        except OSError:
            connection.close()
            return
        client = Connection(reader, writer)
        try:
            with self._clients.admitted(client, self._peer(client, connection)):
                await self._converse(client)
        except Over as over:
            client.tell(over.problem)
        except Gone as gone:
            if gone.why:
                log.warning("a client was dropped: %s", gone.why)
            client.drop()
        finally:
            await client.close()

    def _peer(self, client: Connection, connection: socket.socket) -> Peer:
        """The client's user and process. Raises Over if that user may not connect, Gone."""
        try:
            peer = peer_of(connection)
        except OSError:
            raise Gone from None
        if not may_connect(peer, owner=os.geteuid(), group=self._listener.group):
            log.warning("a client was turned away pid=%d uid=%d", peer.pid, peer.uid)
            raise Over(
                "this user may not talk to the daemon", "ask its operator to add you to the group of daemon.group"
            )
        client.peer = peer
        return peer

    async def _converse(self, client: Connection) -> None:
        try:
            with anyio.fail_after(HELLO_S):
                async with client.line() as line:
                    if line is None:
                        return
                    self._greeted(line)
        except TimeoutError:
            raise Over(f"no hello came within {HELLO_S:g} s", UPGRADE) from None
        await client.send(self._welcome)
        while await self._answered(client):
            pass

    def _greeted(self, line: bytes) -> None:
        """Raises Over unless the line is a hello of this protocol."""
        try:
            hello = decode_hello(line)
        except BadFrame as error:
            raise Over(f"a connection must open with a hello: {error}", UPGRADE) from error
        if hello.protocol != PROTOCOL:
            raise Over(
                f"the daemon is gpusched {__version__} and speaks protocol {PROTOCOL}; the client is gpusched"
                f" {hello.version[:40]} and speaks protocol {hello.protocol}",
                UPGRADE,
            )

    async def _answered(self, client: Connection) -> bool:
        """Answer the next request; return False if there is none, because the client has hung up. Raises Over, Gone."""
        async with client.line() as line:
            if line is None:
                return False
            try:
                request = decode_request(line)
            except BadFrame as error:
                raise Over(f"this is not a request: {error}", UPGRADE) from error
            try:
                with client.occupied():
                    await self._requests.answer(request, client)
            except Gone:
                raise
            except GpuschedError as error:
                await client.send(_problem(error))
            except Exception as error:  # any fault ends only this request: the daemon and the connection continue
                reference = secrets.token_hex(4)
                kind = type(request).__struct_config__.tag
                log.exception("a request could not be answered reference=%s request=%s", reference, kind)
                await client.send(_problem(Unanswered(why=in_words(error), reference=reference)))
        return True


def _problem(error: GpuschedError) -> Problem:
    kind = "WouldReplace" if isinstance(error, ReplacementRefused) else ""
    return Problem(problem=error.sentence, remedy=error.hint, exit_code=error.exit_code, kind=kind)
