"""Ray's settings of an actor's processes do not reach the windows of its node."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpusched.config import Cache, Config, Run
from gpusched.config import Engine as Settings
from gpusched.core.model import Device
from gpusched.devices.kind import Discovery
from gpusched.engines.engine import Engine, launched
from gpusched.engines.local.engine import LocalEngine
from gpusched.engines.ray.engine import RayEngine
from tests.devices.fake_nvml import FakeNvml, uuid
from tests.engines.clusters import loopback, needs_ray
from tests.engines.test_contract import Bench, planned

LOOK = "tests.engines.workloads:look"


def config(directory: Path, engine: Settings | None = None) -> Config:
    return Config(run=Run(workload=LOOK), cache=Cache(dir=directory / "cache"), engine=engine or Settings())


async def seen_on(engine: Engine, directory: Path, device: Device | None = None) -> dict[str, Any]:
    """The settings that a window of an engine sees, on the processors by default."""
    bench = Bench(engine, directory)
    bench.workload(LOOK)
    if device is None:
        await bench.train("A")
    else:
        spec = msgspec.structs.replace(bench.batch.spec, device="auto")
        batch = msgspec.structs.replace(bench.batch, spec=spec)
        await (await launched(engine, batch, planned("A"), device, log="b/gpu.log")).wait(bench.hear)
    (path,) = (directory / "output").glob("*/seen.json")
    found: dict[str, Any] = json.loads(path.read_text())
    # Modules are looked for in the directory of the command, too, after all others.
    assert found["path"].pop() == found["cwd"]
    return found


async def seen_here(directory: Path) -> dict[str, Any]:
    nothing, mark = Discovery(devices=(), notes=()), secrets.token_hex(8)
    async with LocalEngine(config(directory), directory / "state", nothing, mark=mark) as engine:
        return await seen_on(engine, directory)


async def test_windows_of_an_actor_see_what_those_of_this_machine_see(tmp_path: Path) -> None:
    driver, here, there = directories = [tmp_path / name for name in ("driver", "here", "there")]
    for directory in directories:
        directory.mkdir()
    (driver / "msgspec.py").write_text("raise ImportError('of the directory of the driver')")
    expected = await seen_here(here) | {"cwd": str(there / "scratch" / "n1")}
    async with RayEngine(config(there, loopback(there, "n1", driver=driver)), there / "state") as engine:
        assert await seen_on(engine, there) == expected


async def test_the_mask_of_an_actor_is_that_of_the_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray has reserved the GPUs that it leaves visible, and names them by their numbers."""
    for name, value in FakeNvml(tmp_path).gpus(2).environment.items():
        monkeypatch.setenv(name, value)
    async with RayEngine(config(tmp_path, loopback(tmp_path, "n1", driver=tmp_path)), tmp_path / "state") as engine:
        (gpu,) = engine.machines[0].discovery.devices
        assert gpu.id == uuid(0)
        seen = await seen_on(engine, tmp_path, gpu)
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == uuid(0)


@pytest.mark.parametrize("cluster", [pytest.param("", marks=needs_ray)], indirect=True)
async def test_windows_of_ray_see_what_those_of_this_machine_see(tmp_path: Path, cluster: str) -> None:
    here, there = directories = [tmp_path / name for name in ("here", "there")]
    for directory in directories:
        directory.mkdir()
    expected = await seen_here(here)
    settings = Settings(address=cluster, scratch=str(there / "scratch"))
    async with RayEngine(config(there, settings), there / "state") as engine:
        found = await seen_on(engine, there)
    assert Path(found["cwd"]).parent == there / "scratch"
    assert found | {"cwd": expected["cwd"]} == expected
