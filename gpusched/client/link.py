"""A connected socket as frames: the greeting, sending, receiving, and the errors of a peer that does not keep to it."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

from gpusched import __version__
from gpusched.errors import NO_DAEMON, USAGE, DaemonError, GpuschedError, InputError, ReplacementRefused, UsageError
from gpusched.protocol import (
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    PROTOCOL,
    BadFrame,
    Hello,
    Problem,
    Reply,
    Request,
    Welcome,
    decode_reply,
    encode,
)

#: seconds that a daemon may take to take a connection and to say welcome
GREETING_S = 10

_READ_BYTES = 256 * 1024


class OtherVersion(DaemonError):
    problem = "the daemon at {path} speaks protocol {theirs}, and this gpusched {version} speaks {ours}"
    remedy = "use the same version of gpusched for both: upgrade the older one, and restart the daemon"


class NotADaemon(DaemonError):
    problem = "the process that listens at {path} is not a gpusched daemon: {cause}"
    remedy = "check --socket and GPUSCHED_SOCKET"


class Unresponsive(DaemonError):
    problem = "the daemon at {path} does not answer"
    remedy = "look at its log (`journalctl -u gpusched`); its windows may be running all the same"


class HungUp(DaemonError):
    problem = "the daemon at {path} closed the connection"
    remedy = "it may have been stopped, or this client was too slow; accepted batches are safe: `gpusched status`"


class RequestTooLarge(InputError):
    problem = "the request takes {size} MiB, and the daemon takes {most} MiB at most"
    remedy = "submit the batch in parts: several files with fewer windows each, or fewer points of a sweep"


def limit_wait(peer: socket.socket, option: int, seconds: int) -> None:
    """Let a call on `peer` that waits longer raise BlockingIOError; 0: never."""
    peer.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))


class Link:
    """A connected socket that carries frames; it closes itself if the greeting fails.

    Its methods raise GpuschedError: OtherVersion or the daemon's refusal (greeting), HungUp, Unresponsive, NotADaemon.
    """

    def __init__(self, peer: socket.socket, path: Path) -> None:
        #: the socket's path
        self.path = path
        self._socket = peer
        self._received = bytearray()
        #: up to here there is no end of a line in it
        self._searched = 0
        try:
            #: version, pid and state directory, as the daemon gave them
            self.daemon = self._greet()
        except BaseException:
            peer.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def abort(self) -> None:
        """From any thread: whoever waits for a frame gets HungUp."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def fileno(self) -> int:
        return self._socket.fileno()

    def limit_waiting(self, seconds: int) -> None:
        """Let a `receive` that waits longer raise BlockingIOError; 0: never."""
        limit_wait(self._socket, socket.SO_RCVTIMEO, seconds)

    def _greet(self) -> Welcome:
        self.limit_waiting(GREETING_S)
        self.send(Hello(protocol=PROTOCOL, version=__version__))
        try:
            reply = self.receive()
        except BlockingIOError:
            raise Unresponsive(path=self.path) from None
        self.limit_waiting(0)
        match reply:
            case Welcome() as welcome:
                if welcome.protocol != PROTOCOL:
                    raise OtherVersion(path=self.path, theirs=welcome.protocol, ours=PROTOCOL, version=__version__)
                return welcome
            case Problem() as problem:
                raise refusal(problem)
            case _:
                raise NotADaemon(path=self.path, cause="no welcome")

    def send(self, message: Hello | Request) -> None:
        """Send a frame. Raises Unresponsive if the daemon does not take it, RequestTooLarge if it would not."""
        frame = encode(message)
        if len(frame) > MAX_REQUEST_BYTES:
            raise RequestTooLarge(size=f"{len(frame) / 2**20:.1f}", most=MAX_REQUEST_BYTES >> 20)
        # A daemon that has closed the connection may have sent its reason first: `receive` finds it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            try:
                self._socket.sendall(frame)
            except BlockingIOError:
                raise Unresponsive(path=self.path) from None

    def receive(self) -> Reply:
        """The next frame; waits for it."""
        while (frame := self._take_frame()) is None:
            self._fill()
        return self._decode(frame)

    def arrived(self) -> list[Reply]:
        """Frames that have arrived, without waiting."""
        with contextlib.suppress(BlockingIOError):
            self._fill(socket.MSG_DONTWAIT)
        return [self._decode(frame) for frame in iter(self._take_frame, None)]

    def _take_frame(self) -> bytes | None:
        """A frame that has been received whole, if there is one."""
        end = self._received.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._received)
            if self._searched > MAX_REPLY_BYTES:
                raise NotADaemon(path=self.path, cause="an endless line")
            return None
        frame = bytes(memoryview(self._received)[:end])
        del self._received[: end + 1]
        self._searched = 0
        return frame

    def _fill(self, flags: int = 0) -> None:
        try:
            data = self._socket.recv(_READ_BYTES, flags)
        except ConnectionResetError:
            data = b""
        if not data:
            raise HungUp(path=self.path)
        self._received += data

    def _decode(self, frame: bytes) -> Reply:
        try:
            return decode_reply(frame)
        except BadFrame as error:
            raise NotADaemon(path=self.path, cause=error) from error


def refusal(problem: Problem) -> GpuschedError:
    """The daemon's error as the class that the same error has here."""
    if problem.kind == "WouldReplace":
        return ReplacementRefused(problem=problem.problem, remedy=problem.remedy)
    kinds: dict[int, type[GpuschedError]] = {NO_DAEMON: DaemonError, USAGE: UsageError}
    kind = kinds.get(problem.exit_code, InputError)
    return kind(problem=problem.problem, remedy=problem.remedy)
