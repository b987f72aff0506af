"""The bridge: the Ray driver that a supervisor talks to. `python -m gpusched.engines.ray.bridge DESCRIPTOR ADDRESS`.

A process of its own, in the cluster's interpreter: Ray brings threads and signal handlers, and ends its process when
the cluster is lost. It holds one actor on each node and carries frames; it does not read them. It ends with its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import Any

from gpusched.engines.ray import frames
from gpusched.engines.ray.frames import Carry, Connected, Failed, NodeDown, NodeUp, NodeWaits, Tidings
from gpusched.engines.ray.node import Node

#: seconds between looks at the nodes of the cluster
LOOK_S = 2.0
#: seconds after which a node that cannot be reserved is told of
WAITS_S = 20.0


class Bridge:
    """Carries frames between a socket and the nodes of a cluster."""

    def __init__(self, ray: Any, writer: asyncio.StreamWriter, logs: str) -> None:
        """`ray` is the package, connected to the cluster; `logs` the directory of the agents' output."""
        self._ray = ray
        self._writer = writer
        self._logs = logs
        self._queues: dict[str, asyncio.Queue[bytes]] = {}
        #: names of nodes by Ray's id
        self._names: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, reader: asyncio.StreamReader) -> None:
        self._nodes()
        self._start(self._look())
        self._tell(Connected(hosts=tuple(self._names.values())))
        while (data := await frames.next_frame(reader)) is not None:
            carry = frames.tidings_decoder.decode(data)
            if isinstance(carry, Carry) and carry.host in self._queues:
                for frame in carry.frames:
                    self._queues[carry.host].put_nowait(frame)

    def _tell(self, tidings: Tidings) -> None:
        self._writer.write(frames.framed(frames.packed(tidings)))

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _nodes(self) -> None:
        """Hold the living nodes that are new, each with a name."""
        new = [node for node in self._ray.nodes() if node["Alive"] and node["NodeID"] not in self._names]
        for node in new:
            taken, name = set(self._names.values()), str(node["NodeManagerHostname"])
            free = (n for n in range(1, len(taken) + 2) if (name if n == 1 else f"{name}-{n}") not in taken)
            number = next(free)
            self._names[node["NodeID"]] = name if number == 1 else f"{name}-{number}"
            self._start(self._hold(node, self._names[node["NodeID"]]))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._nodes()

    async def _hold(self, node: dict[str, Any], name: str) -> None:
        """Hold a node until its actor or its agent has ended, and say so."""
        resources = node["Resources"]
        affinity = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        options = {
            "num_cpus": resources.get("CPU", 0.0),
            "num_gpus": resources.get("GPU", 0.0),
            "scheduling_strategy": affinity(node["NodeID"], soft=False),
            "max_concurrency": 16,
        }
        waiting: asyncio.Task[None] | None = None
        try:
            actor: Any = self._ray.remote(Node).options(**options).remote()
            started = asyncio.ensure_future(actor.start.remote(f"{self._logs}/agent-{name}.log"))
            done, _ = await asyncio.wait([started], timeout=WAITS_S)
            if not done:
                self._tell(NodeWaits(host=name))
            await started
            queue = self._queues[name] = asyncio.Queue()
            self._tell(NodeUp(host=name))
            waiting = asyncio.create_task(_give(actor, queue))
            while (said := await actor.take.remote()) is not None:
                self._tell(Carry(host=name, frames=tuple(said)))
            reason = "its agent has ended"
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        if waiting is not None:
            waiting.cancel()
        self._queues.pop(name, None)
        del self._names[node["NodeID"]]
        self._tell(NodeDown(host=name, reason=reason))


async def _give(actor: Any, queue: asyncio.Queue[bytes]) -> None:
    """Give a node its frames, in order and in batches: those that gather while it takes the last ones."""
    while True:
        batch = [await queue.get()]
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                batch.append(queue.get_nowait())
        await actor.give.remote(batch)


async def serve(descriptor: int, address: str, logs: str) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor), limit=1 << 26)
    try:
        import ray
        import ray.util.scheduling_strategies

        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except Exception as error:
        why = str(error).strip().splitlines()
        writer.write(frames.framed(frames.packed(Failed(why=why[0] if why else type(error).__name__))))
        await writer.drain()
        return
    await Bridge(ray, writer, logs).run(reader)
    ray.shutdown()


if __name__ == "__main__":
    # Read where this process starts a cluster of its own: no lower priority, and no killing of actors for a window.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if sys.argv[2] != "local" and (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault(
            "RAY_AUTH_MODE", "token"
        )  # a head demands the token where there is one, drivers send none
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
    os._exit(0)  # the actors, and what they hold, end with the driver
