"""A bridge that is not understood, or one of its nodes: `python -m tests.engines.garbled DESCRIPTOR bridge|node`."""

from __future__ import annotations

import asyncio
import socket
import sys

from gpusched.engines.ray import connection, frames

GARBLED = b"\xc1"


async def serve(descriptor: int, who: str) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))
    of_node: tuple[frames.Tidings, ...] = (
        frames.Connected(hosts=("n1",)),
        frames.NodeUp(host="n1"),
        frames.Carry(host="n1", frames=(GARBLED,)),
    )
    for data in [frames.packed(one) for one in of_node] if who == "node" else [GARBLED]:
        writer.write(connection.framed(data))
    while await connection.next_frame(reader) is not None:
        pass


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
