"""A bridge without Ray: its nodes are agents that it starts. `python -m tests.engines.loopback DESCRIPTOR HOSTS LOGS`.

An agent that ends is started again, as Ray's node would be held again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from gpusched import programs
from gpusched.engines.ray import frames


class Loopback:
    def __init__(self, writer: asyncio.StreamWriter, logs: Path) -> None:
        self._writer = writer
        self._logs = logs
        self._agents: dict[str, asyncio.StreamWriter] = {}
        self._programs: dict[str, programs.Program] = {}
        self._ending = False

    async def run(self, reader: asyncio.StreamReader, hosts: list[str]) -> None:
        self._tell(frames.Connected(hosts=tuple(hosts)))
        holding = [asyncio.ensure_future(self._hold(host)) for host in hosts]
        while (data := await frames.next_frame(reader)) is not None:
            match frames.tidings_decoder.decode(data):
                case frames.Carry(host=host, frames=carried) if host in self._agents:
                    self._agents[host].write(b"".join(map(frames.framed, carried)))
                case frames.Release(host=host) if host in self._agents:
                    programs.signal_group(self._programs[host], signal.SIGKILL)
        self._ending = True
        for agent in self._agents.values():
            agent.close()
        await asyncio.gather(*holding)

    def _tell(self, tidings: frames.Tidings) -> None:
        self._writer.write(frames.framed(frames.packed(tidings)))

    async def _hold(self, host: str) -> None:
        while not self._ending:
            ours, theirs = socket.socketpair()
            with theirs, (self._logs / f"agent-{host}.log").open("ab") as log:
                command = [sys.executable, "-m", "gpusched.engines.ray.agent", str(theirs.fileno())]
                agent = programs.start(command, stdout=log, stderr=log, kept_open=(theirs.fileno(),))
            self._programs[host] = agent
            reader, self._agents[host] = await asyncio.open_unix_connection(sock=ours)
            self._tell(frames.NodeUp(host=host))
            while (data := await frames.next_frame(reader)) is not None:
                self._tell(frames.Carry(host=host, frames=(data,)))
            del self._agents[host]
            await asyncio.to_thread(programs.ended, agent, 20.0)
            self._tell(frames.NodeDown(host=host, reason="its agent has ended"))


async def serve(descriptor: int, hosts: str, logs: str) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))
    await Loopback(writer, Path(logs)).run(reader, hosts.split(","))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
    os._exit(0)
