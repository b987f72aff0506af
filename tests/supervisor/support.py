"""Helpers for the tests of this directory: a real supervisor with a real launcher and store, on CPU slots."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio

from gpusched.core.events import BatchFinished, DeviceLost, DeviceRead, Update, WindowMoved
from gpusched.core.model import Batch, BatchSpec, Device, Limits, PlannedWindow, Window, WindowKey
from gpusched.core.states import Finished, State
from gpusched.core.statuses import name_of
from gpusched.devices.memory import HostMemory
from gpusched.devices.nvidia.accounting import Accountant
from gpusched.engines.condition import Condition, TroubleChanged
from gpusched.engines.local.launcher import Launcher
from gpusched.store.store import Store
from gpusched.supervisor.followers import Followers, News, Noted, TurnEnded
from gpusched.supervisor.supervisor import Supervisor

REPOSITORY = Path(__file__).parents[2]
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
        self._more, self._turn = anyio.Event(), anyio.Event()
        self.condition = Condition()
        self.launcher: Launcher
        self.supervisor: Supervisor

    def follow(self, news: News) -> None:
        match news:
            case TurnEnded():
                self._turn.set()
            case DeviceRead() | DeviceLost() | TroubleChanged() | Noted():
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
    """A supervisor with CPU slots, or with `devices`; it is stopped at the end, and its invariants are checked."""
    bench = Bench(directory)
    devices = devices or (Device(id="cpu", name="cpu", kind="host", lightgbm_type="cpu", capacity=slots),)
    with anyio.fail_after(30), store or Store.open(directory / "state" / "state.db") as opened:
        async with Launcher(
            search_path=REPOSITORY, log_path=directory / "launcher.log", condition=bench.condition
        ) as launcher:
            bench.launcher = launcher
            bench.supervisor = Supervisor(
                store=opened,
                launcher=launcher,
                devices=devices,
                logs_dir=directory / "logs",
                cache_dir=directory / "cache",
                followers=Followers(bench),
                account=(accountant or Accountant(())).account,
                memory=memory,
                condition=bench.condition,
            )
            if recover:
                bench.supervisor.recover()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bench.supervisor.run)
                yield bench
                bench.supervisor.shut_down(drain=False)
    bench.supervisor.scheduler.validate()
    assert bench.supervisor.scheduler.active == 0 or bench.supervisor.left_behind
