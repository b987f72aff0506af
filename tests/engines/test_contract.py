"""The contract of an engine: the same tests for this machine, for nodes without Ray, for a Ray cluster that is started
here (slow), with shared files and without, and for the engine of the benchmarks, which has no processes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import signal
from collections.abc import AsyncIterator
from itertools import groupby
from pathlib import Path

import anyio
import msgspec
import pytest

from benchmarks.instant import ENDLESS, NOWHERE, InstantEngine
from gpusched import artifacts
from gpusched import config as config_module
from gpusched.config import Cache, Config, Run
from gpusched.core.model import Batch, BatchSpec, Device, PlannedWindow, Window, WindowResult
from gpusched.devices.kind import Discovery
from gpusched.devices.processors import cpu_device
from gpusched.engines.attendance import Awaited
from gpusched.engines.engine import End, Engine, Launched, Verdict, WorkloadNotLoadable, launched
from gpusched.engines.local.engine import LocalEngine
from gpusched.engines.ray.engine import RayEngine
from gpusched.worker.messages import PipeMessage, Progress, SurveyedWindow, SurveyJob, SymbolWindows
from tests.engines.clusters import loopback, needs_ray
from tests.engines.workloads import FINGERPRINT, LARGE, LARGE_BYTES

WORKLOAD = "tests.engines.workloads:train"
START, END = dt.date(2022, 1, 1), dt.date(2022, 6, 30)
CARDS = tuple(Device(id=f"GPU-{number}", name="card", lightgbm_type="gpu", capacity=1) for number in range(2))


class Bench:
    """An engine, and a batch whose windows it is asked to train."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.engine = engine
        spec = BatchSpec(
            symbols=("A",),
            start=START,
            end=END,
            window_days=181,
            data_root=str(directory),
            workload=WORKLOAD,
            settings={},
            device="cpu",
        )
        self.batch = Batch(id="b", digest="", output_dir=str(directory / "output"), submitted_at=0.0, spec=spec)
        self.messages: list[PipeMessage] = []
        #: by symbol, where a survey has looked
        self.plans: dict[str, PlannedWindow] = {}
        self._more = anyio.Event()

    def hear(self, message: PipeMessage) -> None:
        self.messages.append(message)
        self._more.set()

    def workload(self, name: str) -> None:
        spec = msgspec.structs.replace(self.batch.spec, workload=name)
        self.batch = msgspec.structs.replace(self.batch, spec=spec)

    async def launch(self, symbol: str) -> Awaited[Launched, End]:
        window, found = self.plans.get(symbol, planned(symbol)), self.engine.machines[0]
        cpu = cpu_device(found.machine, 2)
        return await launched(self.engine, self.batch, window, cpu, log=f"b/{window.window.label}.1.log")

    async def train(self, symbol: str) -> End:
        return await (await self.launch(symbol)).wait(self.hear)

    async def survey(self, *windows: Window) -> list[PlannedWindow]:
        job = SurveyJob(
            workload=WORKLOAD,
            data_root=self.batch.spec.data_root,
            cache_dir=str(self.engine.cache_dir),
            settings={"": {}},
            symbols=tuple(SymbolWindows(symbol, tuple(own)) for symbol, own in groupby(windows, lambda w: w.symbol)),
            output_dir=self.batch.output_dir,
            device_types=("cpu",),
        )
        messages: list[PipeMessage] = []
        await self.engine.preload(self.batch.spec, "survey")
        assert await self.engine.inspect(job, messages.append, log="b/survey.log") == "exit code 0"
        return [message.planned for message in messages if isinstance(message, SurveyedWindow)]

    async def until_it_waits(self) -> None:
        """Wait until an endless window has said that it waits."""
        while not any(isinstance(message, Progress) for message in self.messages):
            self._more = anyio.Event()
            await self._more.wait()

    async def log(self, symbol: str, offset: int = 0) -> bytes | None:
        """What is left of a window's log from an offset on."""
        name, text = f"b/{planned(symbol).window.label}.1.log", b""
        while (piece := await self.engine.read_log(name, offset)) is not None and piece.data:
            text, offset = text + piece.data, piece.offset + len(piece.data)
        return text if piece is not None else None


def planned(symbol: str) -> PlannedWindow:
    return PlannedWindow(window=Window(symbol, START, END), usable_rows=100, fingerprint=FINGERPRINT)


RAY = [pytest.param(name, marks=needs_ray) for name in ("ray", "ray with shared files")]


@pytest.fixture(params=["local", "instant", "nodes", *RAY])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    found = Discovery(devices=CARDS, notes=())
    async with contextlib.AsyncExitStack() as stack:
        engine: Engine
        config = Config(
            run=Run(workload="tests.devices.workloads:writes"),
            cache=Cache(dir=tmp_path / "cache"),
        )
        match request.param:
            case "local":
                engine = await stack.enter_async_context(
                    LocalEngine(config, tmp_path / "state", found, mark=secrets.token_hex(8))
                )
            case "nodes":
                config = msgspec.structs.replace(config, engine=loopback(tmp_path, "n1"))
                engine = await stack.enter_async_context(RayEngine(config, tmp_path / "state"))
            case "ray" | "ray with shared files":
                there = config_module.Engine(
                    address=request.getfixturevalue("cluster"),
                    shared_root=request.param != "ray",
                    scratch=str(tmp_path / "scratch"),
                )
                config = msgspec.structs.replace(config, engine=there)
                engine = await stack.enter_async_context(RayEngine(config, tmp_path / "state"))
            case _:
                engine = InstantEngine(found)
        yield Bench(engine, tmp_path)


async def test_every_device_gets_a_verdict(bench: Bench) -> None:
    verdicts: list[Verdict] = []
    host = bench.engine.machines[0].machine.host
    await bench.engine.judge([msgspec.structs.replace(card, host=host) for card in CARDS], "auto", verdicts.append)
    assert sorted(verdict.device.id for verdict in verdicts) == ["GPU-0", "GPU-1"]
    assert all(verdict.trains or verdict.why for verdict in verdicts)


async def test_a_window_tells_its_result_and_ends(bench: Bench) -> None:
    window = await bench.launch("A")
    assert window.pid > 0
    end = await window.wait(bench.hear)
    assert (end.exit.exit_code, end.exit.signal, end.violation) == (0, None, None)
    result = bench.messages[-1]
    assert isinstance(result, WindowResult)
    assert result.artifacts_path == f"{bench.batch.output_dir}/{planned('A').window.label}"


async def test_a_result_is_verified_after_its_window_has_ended(bench: Bench) -> None:
    surveyed, other = await bench.survey(planned("A").window, planned("B").window)
    assert bench.engine.verify(bench.batch, surveyed) is None
    await bench.train("A")
    assert bench.engine.verify(bench.batch, surveyed) == bench.messages[-1]
    assert bench.engine.verify(bench.batch, other) is None


async def test_all_of_a_result_is_in_its_place(bench: Bench) -> None:
    if isinstance(bench.engine, InstantEngine):
        return  # it commits nothing
    await bench.train(LARGE)
    result = bench.messages[-1]
    assert isinstance(result, WindowResult)
    assert result.fingerprint is not None
    metadata = artifacts.verify(Path(result.artifacts_path), {result.fingerprint})
    assert metadata is not None
    assert metadata.files["more/rows.bin"].bytes == LARGE_BYTES


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_ends_a_window(bench: Bench, signum: signal.Signals) -> None:
    window = await bench.launch(ENDLESS)
    ends: list[End] = []

    async def follow() -> None:
        ends.append(await window.wait(bench.hear))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await bench.until_it_waits()
        window.signal(signum)
    assert (ends[0].exit.exit_code, ends[0].exit.signal) == (None, signum)
    assert (ends[0].exit.killer == "gpusched") == (signum == signal.SIGKILL)
    window.signal(signum)  # nothing happens


async def test_whoever_gives_up_waiting_ends_the_window(bench: Bench) -> None:
    window = await bench.launch(ENDLESS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(window.wait, bench.hear)
        await bench.until_it_waits()
        tasks.cancel_scope.cancel()
    assert await bench.engine.abandon() == []


async def test_abandoned_windows_count_as_gone(bench: Bench) -> None:
    window = await bench.launch(ENDLESS)
    ends: list[End] = []

    async def follow() -> None:
        ends.append(await window.wait(bench.hear))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await bench.until_it_waits()
        assert await bench.engine.abandon() == []
    assert ends[0].exit.exit_code is None


async def test_a_workload_that_cannot_be_loaded_is_refused(bench: Bench) -> None:
    with pytest.raises(WorkloadNotLoadable):
        await bench.engine.preload(msgspec.structs.replace(bench.batch.spec, workload=NOWHERE))


async def test_a_survey_answers_for_every_window(bench: Bench) -> None:
    dates = ((START, END), (dt.date(2022, 7, 1), dt.date(2022, 12, 27)))
    windows = [Window(symbol, start, end) for symbol in ("A", "B") for start, end in dates]
    assert [planned.window for planned in await bench.survey(*windows)] == windows


async def test_a_log_is_read_from_any_byte_on(bench: Bench) -> None:
    assert await bench.log("A") is None
    await bench.train("A")
    text = f"trained {planned('A').window.label}\n".encode()
    assert await bench.log("A") == text
    assert await bench.log("A", 8) == text[8:]
    assert await bench.log("A", len(text)) == b""
    await bench.engine.remove_logs("b")
    assert await bench.log("A") is None


async def test_a_first_supervisor_has_nothing_to_sweep(bench: Bench) -> None:
    assert await bench.engine.sweep() == ()
    assert (await bench.train("A")).exit.exit_code == 0
