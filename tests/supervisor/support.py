"""Helpers for the tests of this directory: a real supervisor with a real launcher and store, on CPU slots."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import anyio

from gpusched.config import Cache, Config, Devices
from gpusched.core.events import BatchFinished, DeviceLost, DeviceRead, Event, Update, WindowMoved
from gpusched.core.model import Batch, BatchSpec, Device, DeviceChoice, Limits, PlannedWindow, Window, WindowKey
from gpusched.core.states import Finished, State
from gpusched.core.statuses import name_of
from gpusched.devices.kind import Discovery
from gpusched.devices.memory import HostMemory
from gpusched.devices.nvidia.accounting import Accountant
from gpusched.devices.nvidia.gpus import Gpus
from gpusched.devices.slots import PoolRules
from gpusched.engines.condition import TroubleChanged
from gpusched.engines.engine import Noticed, Verdict
from gpusched.engines.local.engine import LocalEngine
from gpusched.store.store import Store
from gpusched.supervisor.followers import News, Noted, TurnEnded
from gpusched.supervisor.runtime import Runtime
from gpusched.supervisor.supervisor import Supervisor
from tests.waiting import PATIENCE_S

START, END = dt.date(2022, 1, 1), dt.date(2022, 6, 30)


def make_batch(
    directory: Path, workload: str, *, batch_id: str = "b", settings: dict[str, Any] | None = None, **limits: Any
) -> Batch:
    spec = BatchSpec(
        symbols=("SYM",),
        start=START,
        end=END,
        window_days=180,
        data_root=str(directory),
        workload=workload if ":" in workload else f"tests.worker.workloads:{workload}",
        settings=settings or {},
        limits=Limits(**{"backoff_s": 0.0, **limits}),
    )
    return Batch(id=batch_id, digest="d", output_dir=str(directory / "output"), submitted_at=0.0, spec=spec)


def plan(count: int, **fields: Any) -> tuple[PlannedWindow, ...]:
    windows = (Window(f"S{number}", START, END) for number in range(count))
    return tuple(PlannedWindow(window=window, usable_rows=100, **fields) for window in windows)


class Bench:
    """A running supervisor, and every update that it sent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.updates: list[Update] = []
        self.notes: list[str] = []
        self._more, self._turn = anyio.Event(), anyio.Event()
        self.engine: Machine
        self.supervisor: Supervisor

    def follow(self, news: News) -> None:
        match news:
            case TurnEnded():
                self._turn.set()
            case Noted(text=text):
                self.notes.append(text)
            case DeviceRead() | DeviceLost() | TroubleChanged():
                pass
            case _:
                self.updates.append(news)
                self._more.set()

    async def when(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds at the end of a turn, committed or not."""
        while not condition():
            self._turn = anyio.Event()
            await self._turn.wait()

    async def until(self, condition: Callable[[Update], bool]) -> Update:
        """Wait for the first update, past ones included, for which `condition` holds, and return it."""
        seen = 0
        while True:
            while seen < len(self.updates):
                if condition(self.updates[seen]):
                    return self.updates[seen]
                seen += 1
            self._more = anyio.Event()
            await self._more.wait()

    async def finished(self, batch_id: str = "b") -> None:
        await self.until(lambda update: isinstance(update, BatchFinished) and update.batch_id == batch_id)

    async def moved_to(self, state: type[State], label: str | None = None) -> WindowMoved:
        def fits(update: Update) -> bool:
            return (
                isinstance(update, WindowMoved) and isinstance(update.new, state) and label in (None, update.key.label)
            )

        update = await self.until(fits)
        assert isinstance(update, WindowMoved)
        return update

    def key(self, number: int, batch_id: str = "b") -> WindowKey:
        """The key of a window of `plan`."""
        return WindowKey(batch_id, plan(number + 1)[number].window.label)

    def outcomes(self, batch_id: str = "b") -> list[str]:
        """The outcomes of a batch's windows in the order of submission; for unfinished ones, the state's name."""
        return [
            name_of(state.outcome if isinstance(state, Finished) else state)
            for _, state in self.supervisor.scheduler.states(batch_id)
        ]

    def stories(self) -> dict[str, list[str]]:
        """The names of the states that each window went through."""
        found: dict[str, list[str]] = {}
        for update in self.updates:
            if isinstance(update, WindowMoved):
                found.setdefault(update.key.label, []).append(name_of(update.new))
        return found


class Machine(LocalEngine):
    """This machine, with GPUs that all train, if any, and with no readings but those that a test posts."""

    async def judge(
        self,
        devices: Iterable[Device],
        wanted: DeviceChoice,
        tell: Callable[[Verdict], None],
        *,
        afresh: Collection[str] = (),
    ) -> None:
        for device in devices:
            tell(Verdict(device, trains=True))

    async def run(self, post: Callable[[Event], None], notice: Callable[[Noticed], None]) -> None:
        await anyio.sleep_forever()


@contextlib.asynccontextmanager
async def supervised(
    directory: Path,
    *,
    slots: int = 2,
    store: Store | None = None,
    recover: bool = False,
    devices: tuple[Device, ...] = (),
    accountant: Accountant | None = None,
    memory: HostMemory | None = None,
) -> AsyncIterator[Bench]:
    """A runtime with CPU slots, or with GPUs; it is stopped at the end, and its invariants are checked."""
    bench = Bench(directory)
    pool = Devices(fallback="none") if devices else Devices(cpu_slots=slots)
    config = Config(devices=pool, cache=Cache(dir=directory / "cache"))
    with anyio.fail_after(PATIENCE_S), store or Store.open(directory / "state" / "state.db") as opened:
        async with Machine(config, directory, Discovery(devices=devices, notes=())) as engine:
            if accountant is not None:
                gpus = engine.kinds["nvidia"]
                assert isinstance(gpus, Gpus)
                gpus.close()
                gpus.accountant = accountant
            engine.memory = memory or engine.memory
            runtime = Runtime(PoolRules(config), opened, engine, bench)
            bench.engine, bench.supervisor = engine, runtime.supervisor
            if recover:
                bench.supervisor.recover()
            async with runtime.working():
                await runtime.fleet.settled()
                yield bench
                bench.supervisor.shut_down(drain=False)
                await bench.supervisor.stopped()
    bench.supervisor.scheduler.validate()
    assert bench.supervisor.scheduler.active == 0 or bench.supervisor.left_behind
