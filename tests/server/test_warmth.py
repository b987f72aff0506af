"""A daemon that keeps a launcher ready."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import anyio

from benchmarks.instant import InstantEngine
from gpusched.config import Config
from gpusched.core.events import BatchFinished
from gpusched.core.model import BatchSpec
from gpusched.engines.engine import WorkloadNotLoadable
from gpusched.service.warmth import Warmth
from gpusched.supervisor.runtime import Runtime
from gpusched.worker.messages import Needs
from tests.waiting import PATIENCE_S


class Engine(InstantEngine):
    """Notes the modules to import, and cannot import them the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, Needs]] = []
        self.heard = anyio.Event()

    async def preload(self, spec: BatchSpec, needed_by: Needs = "window") -> None:
        self.asked.append((spec.workload, needed_by))
        self.heard.set()
        if len(self.asked) == 1:
            raise WorkloadNotLoadable(message="not now", traceback="")


async def test_the_launcher_is_ready_from_the_start_and_looked_after_when_a_batch_has_finished() -> None:
    engine = Engine()
    warmth = Warmth(cast(Runtime, SimpleNamespace(engine=engine, config=Config())))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(warmth.run)
        with anyio.fail_after(PATIENCE_S):
            await engine.heard.wait()
            engine.heard = anyio.Event()
            warmth.follow(BatchFinished(batch_id="b", at=0.0))
            await engine.heard.wait()
        tasks.cancel_scope.cancel()
    assert engine.asked == [("gpusched.teacher:train_window", "window")] * 2
