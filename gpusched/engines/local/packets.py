"""Packets between the supervisor and a launcher process; large requests go in memory files, large replies in pieces."""

from __future__ import annotations

import array
import os
import socket

import msgspec

from gpusched import files
from gpusched.worker.messages import CONTINUED, MAX_PACKET_BYTES, LauncherReply, LauncherRequest

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(LauncherReply)

_BRACE, _CONTINUED = b"{"[0], CONTINUED[0]


def packed(request: LauncherRequest, descriptors: tuple[int, ...]) -> tuple[bytes, tuple[int, ...]]:
    """A request's packet and its descriptors; a large request is in a memory file, the last of these.

    Raises OSError, with the descriptors closed, if there can be no memory file.
    """
    packet = _encoder.encode(request)
    if len(packet) <= MAX_PACKET_BYTES:
        return packet, descriptors
    try:
        return b"in memory file", (*descriptors, _memory_file(packet))
    except OSError:
        close_all(descriptors)
        raise


def rights(descriptors: tuple[int, ...]) -> list[tuple[int, int, array.array[int]]]:
    """Descriptors as `sendmsg` takes them."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []


def close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class Replies:
    """Decodes replies, the pieces of large ones together."""

    def __init__(self) -> None:
        self._pieces = b""

    def take(self, packet: bytes) -> LauncherReply | None:
        """The reply that is complete with this packet; None: there is more of it to come."""
        if packet[0] != _BRACE:
            self._pieces += packet[1:]
            if packet[0] == _CONTINUED:
                return None
            packet, self._pieces = self._pieces, b""
        reply: LauncherReply = _decoder.decode(packet)
        return reply


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("gpusched-request", os.MFD_CLOEXEC)
    files.write(descriptor, content)
    return descriptor
