"""A run that is watched: its supervisor answers one client in the same process, as the daemon's answers all clients.

The socket is in a new private directory, whose name only that client gets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from gpusched import directories
from gpusched.protocol.places import SOCKET_NAME
from gpusched.service.admission import Admission
from gpusched.service.hub import Hub
from gpusched.service.listener import Listener
from gpusched.service.requests import Requests
from gpusched.service.server import Server
from gpusched.service.territory import Territory
from gpusched.supervisor.runtime import Runtime

#: Called with the path of the run's socket and an event that ends the run; returns when its user leaves, or soon after
#: the event is set.
Watch = Callable[[Path, anyio.Event], Awaitable[None]]


async def be_watched(runtime: Runtime, output_dir: Path, watch: Watch, over: anyio.Event) -> None:
    """Serve `watch` until it returns. Raises SocketUnusable, NoTemporaryDirectory."""
    runtime.condition.draining = True  # a run has but one batch
    hub = Hub(runtime)
    runtime.followers.add(hub)
    requests = Requests(runtime, hub, Admission(runtime, Territory(output_root=output_dir)))
    place = directories.temporary_place()
    with directories.temporary(place) as path, directories.opened(path) as directory:
        # Its only client is in this process; the path of a socket may be no longer than 107 bytes, and TMPDIR may be.
        listener = Listener(Path(f"/proc/self/fd/{directory}") / SOCKET_NAME, None)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Server(listener, requests, state_dir=runtime.state_dir).run)
                await watch(listener.path, over)
                tasks.cancel_scope.cancel()
        finally:
            listener.close()
