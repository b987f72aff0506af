"""Windows that are ahead on a node: they start when another one ends there, or are taken back."""

from __future__ import annotations

import signal
from pathlib import Path

import anyio
import pytest

from benchmarks.instant import ENDLESS
from gpusched.config import Cache, Config, Run
from gpusched.devices.processors import cpu_device
from gpusched.engines.attendance import Awaited
from gpusched.engines.engine import End, Launched, Withdrawn
from gpusched.engines.ray.engine import RayEngine
from tests.engines.clusters import loopback
from tests.engines.test_contract import Bench, planned


async def test_a_window_that_is_ahead_starts_when_another_ends_or_is_taken_back(tmp_path: Path) -> None:
    config = Config(
        run=Run(workload="tests.devices.workloads:writes"),
        cache=Cache(dir=tmp_path / "cache"),
        engine=loopback(tmp_path, "n1"),
    )
    async with RayEngine(config, tmp_path / "state") as engine:
        bench = Bench(engine, tmp_path)

        def ahead(symbol: str) -> Awaited[Launched, End]:
            window, cpu = planned(symbol), cpu_device(engine.machines[0].machine, 1)
            awaited: Awaited[Launched, End] = Awaited()
            engine.start(bench.batch, window, cpu, awaited, log=f"b/{window.window.label}.1.log", at_once=1)
            return awaited

        first = await bench.launch(ENDLESS)
        waiting, withdrawn = ahead("A"), ahead("B")
        engine.withdraw(f"b/{planned('B').window.label}.1.log")  # its inputs are on their way
        with pytest.raises(Withdrawn):
            await withdrawn.launched()
        withdrawn = ahead("B")
        await engine.preload(bench.batch.spec)  # answered after the orders before it have come
        engine.withdraw(f"b/{planned('B').window.label}.1.log")
        with pytest.raises(Withdrawn):
            await withdrawn.launched()
        first.signal(signal.SIGKILL)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.wait, bench.hear)
            end = await (await waiting.launched()).wait(bench.hear)
        assert end.exit.exit_code == 0
