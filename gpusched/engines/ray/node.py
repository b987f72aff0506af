"""The actor that holds a node: it reserves the node in Ray, and passes frames to its child, the agent, and back.

Frames go in batches: `give` takes what has gathered since the last call, and `take` returns what the agent has said
since, or waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import IO

from gpusched import programs
from gpusched.engines.ray import connection

#: frames of the agent in one answer
MOST_FRAMES = 10_000


class Node:
    """One of them on each node. Its methods run in the actor's event loop."""

    def __init__(self) -> None:
        #: to the agent, which ends when it is closed
        self.writer: asyncio.StreamWriter
        self._said: list[bytes] = []
        self._more = asyncio.Event()
        self._over = False
        self._reading: asyncio.Task[None]

    async def start(self, log_path: str) -> int:
        """Start the agent; return its PID. Its output goes to `log_path`, or to Ray's log where that is not shared."""
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.enter_context(theirs)
            log: IO[bytes] | int = sys.stderr.fileno()
            with contextlib.suppress(OSError):
                log = stack.enter_context(open(log_path, "ab"))  # noqa: ASYNC230, PTH123  # once
            command = [sys.executable, "-P", "-m", "gpusched.engines.ray.agent", str(theirs.fileno())]
            agent = programs.start(command, stdout=log, stderr=log, kept_open=(theirs.fileno(),))
        reader, self.writer = await connection.opened(ours)
        self._reading = asyncio.create_task(self._read(reader))
        return agent.pid

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while (data := await connection.next_frame(reader)) is not None:
            self._said.append(data)
            self._more.set()
        self._over = True
        self._more.set()

    async def give(self, batch: list[bytes]) -> None:
        """Pass frames to the agent, in order: the caller waits for each batch before the next."""
        self.writer.write(b"".join(map(connection.framed, batch)))
        await self.writer.drain()

    async def take(self) -> list[bytes] | None:
        """What the agent has said, at once if there is something; None: it has ended."""
        await self._more.wait()
        said, self._said = self._said[:MOST_FRAMES], self._said[MOST_FRAMES:]
        if not self._said and not self._over:
            self._more.clear()
        return said or None

    def pid(self) -> int:
        return os.getpid()
