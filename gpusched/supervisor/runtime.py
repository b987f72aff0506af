"""The runtime: store, engine, devices, supervisor and followers, put together.

A run, the service, their tests and the benchmarks all use it; they differ in their engine and in who follows.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.abc
import msgspec

from gpusched.config import Config
from gpusched.core.events import BatchAccepted, BatchFinished, BatchHeld, DeviceRead, WindowMoved
from gpusched.core.model import BatchSpec
from gpusched.devices.kind import Discovery
from gpusched.devices.slots import PoolRules
from gpusched.engines.engine import Engine
from gpusched.engines.opening import engine_of
from gpusched.store import STORE
from gpusched.store.store import Store
from gpusched.supervisor.fleet import Fleet
from gpusched.supervisor.followers import Follower, Followers, Noted
from gpusched.supervisor.hooks import Hooks
from gpusched.supervisor.imports import ImportNotes
from gpusched.supervisor.planner import Planner
from gpusched.supervisor.remembering import Remembering
from gpusched.supervisor.supervisor import Supervisor


class Runtime:
    """A supervisor and everything that it works with."""

    def __init__(self, rules: PoolRules, store: Store, engine: Engine, *followers: Follower) -> None:
        self.config = rules.config
        self.store = store
        self.state_dir = store.path.parent
        self.engine = engine
        self.condition = engine.condition
        self.followers = Followers(*followers)
        self.condition.heard_by(self.followers.follow)
        self.supervisor = Supervisor(store, engine, self.followers)
        self.hooks = Hooks(self.config.hooks, store.batch)
        self.fleet = Fleet(
            msgspec.structs.replace(rules, learned=tuple(store.learned())),
            engine,
            post=self.supervisor.post,
            on_note=lambda note: self.followers.follow(Noted(note.sentence)),
        )
        self.planner = Planner(engine, self.fleet, self.supervisor.estimates, store, self.state_dir)
        self.remembering = Remembering(store, engine.cache_dir)
        self.followers.add(self.hooks, BatchFinished, BatchHeld)
        self.followers.add(self.remembering, BatchAccepted, WindowMoved, BatchFinished)
        self.followers.add(self.fleet, DeviceRead)
        self.followers.add(ImportNotes(self.supervisor.scheduler, self.followers), WindowMoved)
        self.supervisor.post(engine.read_host())

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[anyio.abc.TaskGroup]:
        """Within the context, batches are worked on; whoever leaves it has waited until the supervisor stopped."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.remembering.close)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(self.supervisor.run)
            tasks.start_soon(self.fleet.run)
            tasks.start_soon(self.engine.run, self.supervisor.post, self.fleet.notice)
            tasks.start_soon(self.hooks.run)
            yield tasks
            tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def opened(
    config: Config, state_dir: Path, discovery: Discovery, *followers: Follower, spec: BatchSpec | None = None
) -> AsyncIterator[Runtime]:
    """The runtime of a state directory; `discovery`: the GPUs of this machine. Nothing works yet.

    `spec`: of the one batch that is run here; None: for a daemon. What an earlier supervisor has left is ended first.
    Raises StoreError.
    """
    rules = PoolRules(config) if spec is None else PoolRules(config, spec.device, spec.workers)
    with Store.open(state_dir / STORE) as store:
        async with engine_of(config, state_dir, discovery, mark=store.mark, standing=spec is None) as engine:
            ended = await engine.sweep()
            runtime = Runtime(rules, store, engine, *followers)
            for pid in ended:
                runtime.followers.follow(Noted(f"Ended the process {pid}, which an earlier supervisor had left here"))
            try:
                yield runtime
            finally:
                runtime.supervisor.claims.close()
