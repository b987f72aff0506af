"""Connections that carry frames, each behind its length, and frames that go together."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from gpusched.engines.ray.frames import Frame, packed

_LENGTH = struct.Struct(">I")
#: bytes that a reader keeps before it stops its writer
_UNREAD_BYTES = 1 << 26


async def opened(connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(sock=connection, limit=_UNREAD_BYTES)


def framed(data: bytes) -> bytes:
    """The bytes with their length before them."""
    return _LENGTH.pack(len(data)) + data


def write(writer: asyncio.StreamWriter, frame: Frame) -> None:
    writer.write(framed(packed(frame)))


async def next_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The bytes of the next frame; None at the end."""
    try:
        return await reader.readexactly(_LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0])
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class Gathering:
    """Calls `flush` after this turn of the loop, or, where all that has gathered may wait, `linger_s` seconds later."""

    def __init__(self, flush: Callable[[], None], linger_s: float) -> None:
        self._flush = flush
        self._linger_s = linger_s
        self._timer: asyncio.TimerHandle | None = None

    def due(self, *, may_wait: bool) -> None:
        """Take note of something to be flushed."""
        if self._timer is not None:
            if may_wait:
                return
            self._timer.cancel()
        delay_s = self._linger_s if may_wait else 0.0
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._go)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _go(self) -> None:
        self._timer = None
        self._flush()
