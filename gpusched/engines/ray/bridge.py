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
import time
from typing import Any

from gpusched.engines.ray import connection, frames
from gpusched.engines.ray.node import Node
from gpusched.users import home

#: seconds between looks at the nodes of the cluster
LOOK_S = 2.0
#: seconds after which a node counts as held; and the longest wait between tries at one that is never held so long
STEADY_S, RARELY_S = 30.0, 60.0
#: seconds after which the supervisor is told that a node cannot be reserved
WAITS_S = 20.0


class Bridge:
    """Carries frames between a socket and the nodes of a cluster."""

    def __init__(self, ray: Any, writer: asyncio.StreamWriter, logs: str) -> None:
        """`ray` is the package, connected to the cluster; `logs` the directory of the agents' output."""
        self._ray = ray
        self._writer = writer
        self._logs = logs
        self._queues: dict[str, asyncio.Queue[bytes]] = {}
        #: names of the living nodes by Ray's id
        self._names: dict[str, str] = {}
        #: tasks that hold nodes, by name
        self._holding: dict[str, asyncio.Task[None]] = {}
        #: by name: how often in a row a node was not held for long, and the monotonic instant of the next try
        self._failures: dict[str, tuple[int, float]] = {}

    async def run(self, reader: asyncio.StreamReader) -> None:
        self._nodes()
        looking = asyncio.create_task(self._look())
        self._tell(frames.Connected(hosts=tuple(self._names.values())))
        while (data := await connection.next_frame(reader)) is not None:
            match frames.tidings_decoder.decode(data):
                case frames.Carry(host=host, frames=carried) if host in self._queues:
                    for frame in carried:
                        self._queues[host].put_nowait(frame)
                case frames.Release(host=host) if host in self._holding:
                    self._holding[host].cancel()
        looking.cancel()

    def _tell(self, tidings: frames.Tidings) -> None:
        connection.write(self._writer, tidings)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _nodes(self) -> None:
        """Hold the living nodes that are not held, each with a name."""
        alive = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        for id_ in [id_ for id_, name in self._names.items() if id_ not in alive and name not in self._holding]:
            self._tell(frames.NodeLeft(host=self._names.pop(id_)))
        for id_, node in alive.items():
            if id_ not in self._names:
                self._names[id_] = self._new_name(str(node["NodeManagerHostname"]))
            name = self._names[id_]
            _, again_at = self._failures.get(name, (0, 0.0))
            if name not in self._holding and again_at <= time.monotonic():
                self._holding[name] = asyncio.create_task(self._keep(node, name))

    def _new_name(self, hostname: str) -> str:
        taken = set(self._names.values())
        numbered = (f"{hostname}-{number}" for number in range(2, len(taken) + 3))
        return hostname if hostname not in taken else next(name for name in numbered if name not in taken)

    async def _keep(self, node: dict[str, Any], name: str) -> None:
        """Hold a node, and say how that ended; one that is never held for long is tried more and more rarely."""
        began = time.monotonic()
        try:
            reason = await self._hold(node, name)
        except asyncio.CancelledError:
            reason = "it was let go"
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        count = 0 if time.monotonic() >= began + STEADY_S else self._failures.get(name, (0, 0.0))[0] + 1
        self._failures[name] = (count, time.monotonic() + min(LOOK_S * 2**count, RARELY_S) if count > 1 else 0.0)
        del self._holding[name]
        self._tell(frames.NodeDown(host=name, reason=reason))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._nodes()

    async def _hold(self, node: dict[str, Any], name: str) -> str:
        """Hold a node until its actor or its agent has ended; return why."""
        resources = node["Resources"]
        affinity = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        options = {
            "num_cpus": resources.get("CPU", 0.0),
            "num_gpus": resources.get("GPU", 0.0),
            "scheduling_strategy": affinity(node["NodeID"], soft=False),
            "max_concurrency": 16,
        }
        actor: Any = self._ray.remote(Node).options(**options).remote()
        giving: asyncio.Task[None] | None = None
        try:
            started = asyncio.ensure_future(actor.start.remote(f"{self._logs}/agent-{name}.log"))
            done, _ = await asyncio.wait([started], timeout=WAITS_S)
            if not done:
                self._tell(frames.NodeWaits(host=name))
            await started
            queue = self._queues[name] = asyncio.Queue()
            self._tell(frames.NodeUp(host=name))
            giving = asyncio.create_task(_give(actor, queue))
            while (said := await actor.take.remote()) is not None:
                self._tell(frames.Carry(host=name, frames=tuple(said)))
            return "its agent has ended"
        finally:
            if giving is not None:
                giving.cancel()
            self._queues.pop(name, None)
            with contextlib.suppress(Exception):  # it is gone already
                self._ray.kill(actor)


async def _give(actor: Any, queue: asyncio.Queue[bytes]) -> None:
    """Give a node its frames, in order and in batches: those that gather while it takes the last ones."""
    while True:
        batch = [await queue.get()]
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                batch.append(queue.get_nowait())
        await actor.give.remote(batch)


async def serve(descriptor: int, address: str, logs: str) -> None:
    reader, writer = await connection.opened(socket.socket(fileno=descriptor))
    try:
        import ray
        import ray.util.scheduling_strategies

        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except Exception as error:
        why = str(error).strip().splitlines()
        connection.write(writer, frames.Failed(why=why[0] if why else type(error).__name__))
        await writer.drain()
        return
    await Bridge(ray, writer, logs).run(reader)
    ray.shutdown()
    # At once: after this, a call of Ray in a task that is being cancelled would start a cluster of its own.
    os._exit(0)  # the actors and their reservations end with the driver


if __name__ == "__main__":
    # Read where this process starts a cluster of its own: no lower priority, and no killing of actors for a window.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if sys.argv[2] != "local" and (home() / ".ray" / "auth_token").exists():
        # Where there is a token, the head demands it, but drivers do not send it by themselves.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
