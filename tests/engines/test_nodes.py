"""Nodes that fall silent, are lost, or are unlike the others."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import anyio
import msgspec
import pytest

from benchmarks.instant import ENDLESS
from gpusched import __version__
from gpusched.config import Cache, Config, Engine, Run
from gpusched.core.failures import Exit
from gpusched.engines.attendance import Awaited
from gpusched.engines.engine import End, Gone, Heard, LaunchRefused, Noticed, Silent
from gpusched.engines.ray import frames
from gpusched.engines.ray.engine import NoCluster, RayEngine
from gpusched.engines.ray.makes import Makes, make_here
from gpusched.engines.ray.members import Member, RayWindow
from tests.end_to_end.test_nodes import agents
from tests.engines.clusters import loopback
from tests.engines.test_contract import Bench

ALIKE = make_here("a processor")


@pytest.mark.thorough  # 10 s, in which it hears nothing
async def test_a_silent_node_keeps_its_windows_until_it_counts_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent is stopped, goes on, and is stopped for good."""
    monkeypatch.setattr(frames, "SILENT_S", 2.0)
    monkeypatch.setattr(frames, "LOST_S", 5.0)
    config = Config(
        run=Run(workload="tests.devices.workloads:writes"),
        cache=Cache(dir=tmp_path / "cache"),
        engine=loopback(tmp_path, "n1"),
    )
    noticed, received = anyio.create_memory_object_stream[Noticed](100)
    ends: list[End] = []
    async with noticed, received, RayEngine(config, tmp_path / "state") as engine, anyio.create_task_group() as tasks:
        bench = Bench(engine, tmp_path)
        tasks.start_soon(engine.run, lambda event: None, noticed.send_nowait)
        window = await bench.launch(ENDLESS)

        async def follow() -> None:
            ends.append(await window.wait(bench.hear))

        async with anyio.create_task_group() as following:
            following.start_soon(follow)
            await bench.until_it_waits()
            agent = agents(tmp_path)["n1"]
            os.kill(agent, signal.SIGSTOP)
            assert await received.receive() == Silent("n1", "nothing is heard of it")
            os.kill(agent, signal.SIGCONT)
            assert await received.receive() == Heard("n1")
            assert ends == []
            os.kill(agent, signal.SIGSTOP)
            assert isinstance(await received.receive(), Silent)
            gone = await received.receive()
        assert gone == Gone("n1", "the node n1 is lost: nothing was heard of it for 5 s")
        assert ends[0].exit.launcher_lost
        tasks.cancel_scope.cancel()


@pytest.mark.slow
async def test_an_agent_without_a_supervisor_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor goes on, but gives no signs of life: the agent ends after its lease."""
    monkeypatch.setattr(frames, "BEAT_S", 1e6)
    config = Config(cache=Cache(dir=tmp_path / "cache"), engine=loopback(tmp_path, "n1"))
    noticed, received = anyio.create_memory_object_stream[Noticed](100)
    async with noticed, received, RayEngine(config, tmp_path / "state") as engine, anyio.create_task_group() as tasks:
        tasks.start_soon(engine.run, lambda event: None, noticed.send_nowait)
        with anyio.fail_after(4 * frames.LEASE_S):
            assert await received.receive() == Gone("n1", "the node n1 is lost: its agent has ended")
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"lightgbm": "3.0"}, f"LightGBM 3.0 is installed there, and {ALIKE.lightgbm} here"),
        ({"workload": 0}, f"version 0 of the built-in workload is installed there, and {ALIKE.workload} here"),
        ({"python": "3.9"}, f"it runs Python 3.9, and the nodes before it Python {ALIKE.python}"),
        ({"processor": "another"}, "its processor is another, that of the nodes before it a processor"),
    ],
)
def test_a_node_that_is_unlike_the_others_is_refused(change: dict[str, object], why: str) -> None:
    makes = Makes()
    assert makes.refusal(ALIKE) is None
    assert makes.refusal(msgspec.structs.replace(ALIKE, **change)) == why
    assert makes.refusal(ALIKE) is None


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("bridge", "the bridge is not understood here: gpusched {0} must be installed for engine.python"),
        ("node", "the node n1 is refused: it is not understood here: gpusched {0} must be installed there"),
    ],
)
async def test_another_version_is_said_at_once(tmp_path: Path, who: str, why: str) -> None:
    """It was waited for until no node had answered for two minutes, and a run that had begun never went on."""
    interpreter = tmp_path / "interpreter"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.engines.garbled "$4" {who}\n')
    interpreter.chmod(0o755)
    settings = Engine(kind="ray", address="there", python=str(interpreter), scratch=str(tmp_path / "scratch"))
    config = Config(cache=Cache(dir=tmp_path / "cache"), engine=settings)
    with anyio.fail_after(30), pytest.raises(NoCluster, match=re.escape(why.format(__version__))):
        async with RayEngine(config, tmp_path / "state"):
            pass


async def test_what_an_old_attempt_says_is_dropped() -> None:
    """Its node was lost and is back: the numbers of orders belong to one time that a node is held."""
    before, after = Member("n1", None), Member("n1", None)  # type: ignore[arg-type]
    old, new = Awaited[RayWindow, frames.Ended](), Awaited[RayWindow, frames.Ended]()
    before.windows[1], after.windows[1] = old, new
    for node in (before, after):
        node.take(frames.Launched(id=1, pid=2))
    before.end()
    heard: list[object] = []
    ended = frames.Ended(id=1, end=End(exit=Exit(exit_code=0)), files={"metadata.json": b"{}"})
    for node, report in ((before, ended), (after, ended), (after, ended)):
        node.take(report)
    assert (await old.wait(heard.append)).end.exit.launcher_lost
    assert (await new.wait(heard.append)).end.exit.exit_code == 0
    assert heard == []
    with pytest.raises(LaunchRefused, match="the node n1 is lost"):
        await before.asked(frames.Abandon(id=2))
    before.send(frames.Beat())  # to nobody
