"""A run that is watched: its supervisor answers one client in the same process, as the daemon's answers all clients.

The socket is in a new private directory, whose name only that client gets.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from gpusched.engines.condition import Condition
from gpusched.engines.local.launcher import Launcher
from gpusched.engines.local.warm_up import WarmUp
from gpusched.protocol.places import SOCKET_NAME
from gpusched.service.admission import Admission
from gpusched.service.hub import Hub
from gpusched.service.listener import Listener
from gpusched.service.requests import Requests
from gpusched.service.server import Server
from gpusched.service.territory import Territory
from gpusched.store.store import Store
from gpusched.supervisor.choice import Chooser
from gpusched.supervisor.fleet import Fleet
from gpusched.supervisor.supervisor import Supervisor

#: Called with the path of the run's socket and an event that ends the run; returns when its user leaves, or soon after
#: the event is set.
Watch = Callable[[Path, anyio.Event], Awaitable[None]]


async def be_watched(
    watch: Watch,
    over: anyio.Event,
    *,
    store: Store,
    supervisor: Supervisor,
    launcher: Launcher,
    warm_up: WarmUp,
    fleet: Fleet,
    chooser: Chooser,
    hub: Hub,
    output_dir: Path,
    cache_dir: Path,
    state_dir: Path,
    condition: Condition,
) -> None:
    """Serve `watch` until it returns. Raises SocketUnusable."""
    admission = Admission(
        store=store,
        supervisor=supervisor,
        launcher=launcher,
        warm_up=warm_up,
        fleet=fleet,
        chooser=chooser,
        territory=Territory(output_root=output_dir),
        cache_dir=cache_dir,
        logs_dir=state_dir / "logs",
        condition=condition,
    )
    condition.draining = True  # a run has but one batch
    requests = Requests(store=store, supervisor=supervisor, hub=hub, admission=admission)
    with tempfile.TemporaryDirectory(prefix="gpusched-") as directory:
        listener = Listener(Path(directory) / SOCKET_NAME, None)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Server(listener, requests, state_dir=state_dir).run)
                await watch(listener.path, over)
                tasks.cancel_scope.cancel()
        finally:
            listener.close()
