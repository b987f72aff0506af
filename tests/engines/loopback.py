"""A bridge without Ray: its nodes are agents that it starts.

`python -m tests.engines.loopback DESCRIPTOR HOSTS LOGS [DIRECTORY]`. An agent that ends is started again, as Ray's node
would be held again. With a directory, this process is as one of an actor that a driver has started there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from gpusched.engines.ray import connection, frames
from gpusched.engines.ray.node import Node


class Loopback:
    def __init__(self, writer: asyncio.StreamWriter, logs: Path) -> None:
        self._writer = writer
        self._logs = logs
        self._nodes: dict[str, Node] = {}
        #: PIDs
        self._agents: dict[str, int] = {}
        self._ending = False

    async def run(self, reader: asyncio.StreamReader, hosts: list[str]) -> None:
        self._tell(frames.Connected(hosts=tuple(hosts)))
        holding = [asyncio.ensure_future(self._hold(host)) for host in hosts]
        while (data := await connection.next_frame(reader)) is not None:
            match frames.tidings_decoder.decode(data):
                case frames.Carry(host=host, frames=carried) if host in self._nodes:
                    # Not `give`, which waits for the agent: others must not wait for one that is stopped.
                    self._nodes[host].writer.write(b"".join(map(connection.framed, carried)))
                case frames.Release(host=host) if host in self._nodes:
                    os.killpg(self._agents[host], signal.SIGKILL)
        self._ending = True
        for node in self._nodes.values():
            node.writer.close()
        await asyncio.gather(*holding)

    def _tell(self, tidings: frames.Tidings) -> None:
        connection.write(self._writer, tidings)

    async def _hold(self, host: str) -> None:
        while not self._ending:
            node = Node()
            self._agents[host] = agent = await node.start(str(self._logs / f"agent-{host}.log"))
            self._nodes[host] = node
            self._tell(frames.NodeUp(host=host))
            while (said := await node.take()) is not None:
                self._tell(frames.Carry(host=host, frames=tuple(said)))
            del self._nodes[host]
            with contextlib.suppress(ChildProcessError):  # it was waited for where another one was started
                await asyncio.to_thread(os.waitpid, agent, 0)
            self._tell(frames.NodeDown(host=host, reason="its agent has ended"))


def be_an_actor(directory: str) -> None:
    """Change the settings that Ray changes in the processes of actors."""
    if os.geteuid() == 0:  # nobody else may take it back
        os.nice(15)
    Path("/proc/self/oom_score_adj").write_text("1000")
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"}
    os.chdir(directory)
    sys.path.insert(0, directory)


async def serve(descriptor: int, hosts: str, logs: str) -> None:
    reader, writer = await connection.opened(socket.socket(fileno=descriptor))
    await Loopback(writer, Path(logs)).run(reader, hosts.split(","))


if __name__ == "__main__":
    if len(sys.argv) > 4:
        be_an_actor(sys.argv[4])
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
    os._exit(0)
