"""A launcher that is kept ready, so that no batch waits for the modules of the workload to be imported."""

from __future__ import annotations

import datetime as dt
import logging

import anyio

from gpusched.config.workloads import workload_settings
from gpusched.core.events import BatchFinished
from gpusched.core.model import BatchSpec
from gpusched.errors import LaunchError
from gpusched.supervisor.followers import News
from gpusched.supervisor.runtime import Runtime

log = logging.getLogger("gpusched.daemon")


class Warmth:
    """Keeps the launcher of the configured workload ready; one that has died is replaced after the next batch."""

    def __init__(self, runtime: Runtime) -> None:
        self._engine = runtime.engine
        config = runtime.config
        #: a batch of nothing, since a launcher is asked for by a batch
        self._nothing = BatchSpec(
            symbols=(),
            start=dt.date.min,
            end=dt.date.min,
            window_days=1,
            data_root="",
            workload=config.run.workload,
            settings=workload_settings(config),
        )
        self._cooled = anyio.Event()

    def follow(self, news: News) -> None:
        if isinstance(news, BatchFinished):
            self._cooled.set()

    async def run(self) -> None:
        """Warm the launcher up now, and look after it whenever a batch has finished."""
        while True:
            try:
                await self._engine.preload(self._nothing)
            except (LaunchError, OSError) as error:
                log.warning("no launcher is kept ready (daemon.warm) why=%r", str(error))
            await self._cooled.wait()
            self._cooled = anyio.Event()
