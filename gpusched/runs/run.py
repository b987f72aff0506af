"""`gpusched run`: the supervisor inside the command's own process, for one batch.

There is no daemon: the store is in the state directory (by default within the output directory), and the same
directory can be run again however the last run ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec

from gpusched import clock, directories, files
from gpusched.config import NO_ORIGINS, Config, run_state_dir
from gpusched.core.events import DeviceLost, DeviceRead, DeviceTuned, Update
from gpusched.core.model import Batch, BatchSpec, Reading
from gpusched.core.planning import Plan, accepted
from gpusched.core.scheduler import Scheduler
from gpusched.devices.host import read_host
from gpusched.devices.memory import HostMemory
from gpusched.devices.nvidia.accounting import Accountant
from gpusched.devices.nvidia.inventory import Inventory
from gpusched.devices.nvidia.sampler import Sampler
from gpusched.devices.slots import build_pool, choose, look
from gpusched.engines.condition import Condition, TroubleChanged
from gpusched.engines.local import leftovers, proc
from gpusched.engines.local.launcher import Launcher
from gpusched.engines.local.warm_up import WarmUp, launcher_environment
from gpusched.errors import StoreUnwritable, one_error
from gpusched.runs.course import Course
from gpusched.service.hub import Hub
from gpusched.service.manager import LAST_S
from gpusched.service.pruning import prune_bars
from gpusched.service.territory import OutputUnwritable, refuse_within, user_name
from gpusched.store.store import Store
from gpusched.supervisor.choice import Chooser
from gpusched.supervisor.fleet import Fleet
from gpusched.supervisor.followers import Followers, News, Noted, TurnEnded
from gpusched.supervisor.hooks import Hooks
from gpusched.supervisor.supervisor import Supervisor
from gpusched.supervisor.survey import survey

if TYPE_CHECKING:
    from gpusched.runs.watched import Watch

#: seconds to wait for the first reading of every GPU: before it, no reading vetoes a GPU whose memory is full
FIRST_READING_S = 2.0

#: seconds until a run stops waiting for processes that hang, by number of signals received; after a third, at once
_PATIENCE_S = {1: float("inf"), 2: LAST_S}


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. The outcomes of its windows are in the updates."""

    batch_id: str
    output_dir: Path
    seconds: float
    #: whether a signal stopped it
    interrupted: bool
    #: why the circuit breaker stopped it, or None
    held_reason: str | None


class _Screen:
    """Passes on what people see of a run: updates, and notes on devices, slots and troubles."""

    def __init__(self, observe: Callable[[Update], None], on_note: Callable[[str], None]) -> None:
        self._observe = observe
        self._on_note = on_note

    def follow(self, news: News) -> None:
        match news:
            case TroubleChanged(trouble=trouble, present=present):
                self._on_note(trouble.text if present else f"Over: {trouble.text}")
            case Noted(text=text):
                self._on_note(text)
            case DeviceRead() | DeviceLost() | TurnEnded():
                pass
            case _:
                self._observe(news)
                if isinstance(news, DeviceTuned):
                    self._on_note(f"{news.device_id} uses {news.reason}")


class _FirstReadings:
    """Waits for the first reading of every GPU, and notes when other processes use all memory."""

    def __init__(self, scheduler: Scheduler, unread: Iterable[str], on_note: Callable[[str], None]) -> None:
        self._scheduler = scheduler
        self._unread = set(unread)
        self._on_note = on_note
        self._starved: str | None = None
        self._complete = anyio.Event()

    def follow(self, news: News) -> None:
        match news:
            case DeviceRead(reading=Reading(device_id=device_id)) | DeviceLost(device_id=device_id):
                self._unread.discard(device_id)
            case _:
                return
        if not self._unread:
            self._complete.set()
        starved = self._scheduler.starved() or None
        if starved is not None and self._starved is None:
            self._on_note(f"Waiting for memory that other processes use: {starved}")
        self._starved = starved

    async def complete(self) -> None:
        """Wait until every GPU has been read or lost, or `FIRST_READING_S` are over."""
        if self._unread:
            with anyio.move_on_after(FIRST_READING_S):
                await self._complete.wait()


async def run_batch(
    config: Config,
    spec: BatchSpec,
    *,
    batch_id: str,
    digest: str,
    output_dir: Path,
    origins: Mapping[str, str] = NO_ORIGINS,
    observe: Callable[[Update], None],
    on_plan: Callable[[Plan], None],
    on_interrupt: Callable[[int], None],
    on_survey: Callable[[int, int], None] = lambda done, total: None,
    on_note: Callable[[str], None] = lambda note: None,
    watch: Watch | None = None,
) -> RunSummary:
    """Plan a batch, run it, and return when all of its windows are finished, or it is held, or a signal stopped it.

    After the first SIGINT, SIGTERM or SIGHUP the running windows may finish; a second SIGINT or SIGTERM stops them.
    `origins` tells where the workload's settings were given, `on_interrupt` gets the number of the signal, `on_note`
    notes on the devices. `watch` may observe the run and hold, release, cancel and retry its windows; until it returns,
    held windows do not end the run. Raises GpuschedError.
    """
    began = time.monotonic()
    discovery = look(spec.device)
    gpus = choose(config, discovery)
    build_pool(config, gpus).require(spec.device)
    refuse_within(output_dir, (config.cache.dir, config.daemon.state_dir))
    state_dir = _made(run_state_dir(config, output_dir))
    signals: list[int] = []
    course = Course()
    surveying = anyio.CancelScope()

    with one_error():
        async with AsyncExitStack() as stack:
            store = stack.enter_context(Store.open(state_dir / "state.db"))
            condition = Condition()
            screen = _Screen(observe, on_note)
            condition.heard_by(screen.follow)
            for pid in (await leftovers.end_earlier(store.mark))[0]:
                on_note(f"Ended the process {pid}, which an earlier run here had left")
            hooks = Hooks(config.hooks.command, config.hooks.timeout_s, store.batch)
            followers = Followers(screen, hooks, course)
            launcher = await stack.enter_async_context(
                Launcher(
                    log_path=state_dir / "launcher.log",
                    search_path=Path.cwd(),
                    idle_timeout_s=None,
                    environment=launcher_environment(config),
                    mark=store.mark,
                    condition=condition,
                )
            )
            warm_up = WarmUp(launcher, workload=spec.workload, log_path=state_dir / "warm_up.log")
            pool = build_pool(config, gpus, workers=spec.workers, learned=store.learned())
            for note in pool.notes:
                on_note(note)
            accountant = Accountant(pool.devices)
            stack.callback(accountant.close)
            memory = HostMemory()
            supervisor = Supervisor(
                store=store,
                launcher=launcher,
                devices=pool.devices,
                untried=pool.gpus,
                logs_dir=state_dir / "logs",
                cache_dir=config.cache.dir,
                followers=followers,
                account=accountant.account,
                memory=memory,
                condition=condition,
            )
            stack.callback(supervisor.claims.close)
            try:
                await supervisor.claims.take(batch_id, output_dir)
            except OSError as error:
                raise OutputUnwritable(path=output_dir, cause=error.strerror or error, user=user_name()) from error
            hub = Hub(store, condition, supervisor.scheduler.pool)
            followers.add(hub)
            condition.heard_by(hub.follow)
            sampler = Sampler(pool.devices, inventory=Inventory(look, discovery) if pool.gpus else None)
            fleet = Fleet(
                config,
                pool,
                warm_up,
                wanted=spec.device,
                learned=store.learned(),
                post=supervisor.post,
                on_note=on_note,
                watch=sampler.watch,
            )
            chooser = Chooser(
                launcher,
                fleet,
                supervisor.estimates,
                remembered=store.timings,
                keep=store.keep_timing,
                scratch=state_dir,
                cache_dir=config.cache.dir,
            )
            chooser.sweep()
            followers.add(fleet)
            readings = _FirstReadings(supervisor.scheduler, pool.gpus, on_note)
            followers.add(readings)

            async def obey_signals() -> None:
                with anyio.open_signal_receiver(*_signals()) as received:
                    async for number in received:
                        if number == signal.SIGHUP and signals:
                            continue  # a shell that exits and its terminal each send one
                        signals.append(len(signals) + 1)
                        on_interrupt(signals[-1])
                        surveying.cancel()
                        supervisor.shut_down(drain=signals[-1] == 1, within_s=_PATIENCE_S.get(signals[-1], 0.0))

            async def look_on(watch: Watch, over: anyio.Event) -> None:
                from gpusched.runs.watched import be_watched  # most runs need no server

                with course.watched():
                    await be_watched(
                        watch,
                        over,
                        store=store,
                        supervisor=supervisor,
                        launcher=launcher,
                        warm_up=warm_up,
                        fleet=fleet,
                        chooser=chooser,
                        hub=hub,
                        output_dir=output_dir,
                        cache_dir=config.cache.dir,
                        state_dir=state_dir,
                        condition=condition,
                    )

            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(obey_signals)
            tasks.start_soon(supervisor.run)
            tasks.start_soon(fleet.run)
            tasks.start_soon(sampler.run, supervisor.post, fleet.notice)
            tasks.start_soon(read_host, supervisor.post, memory)
            tasks.start_soon(hooks.run)
            with surveying:
                await fleet.require(spec.device)
                plan = await survey(
                    launcher,
                    spec,
                    output_dir=output_dir,
                    cache_dir=config.cache.dir,
                    log_path=state_dir / "survey.log",
                    device_types=fleet.device_types(spec.device),
                    processes=pool.cores,
                    origins=origins,
                    on_progress=on_survey,
                )
                plan, choice = await chooser.settle(spec, plan)
                on_plan(plan)
                if (crowded := pool.too_many_threads(spec)) is not None:
                    on_note(crowded)
                if choice is not None and choice.reason:
                    on_note(choice.reason)
                batch = Batch(
                    id=batch_id,
                    digest=digest,
                    output_dir=str(output_dir),
                    submitted_at=clock.wall(),
                    spec=accepted(spec),
                    choice=choice,
                )
                if batch.device != "cpu":
                    await readings.complete()
                await supervisor.submit(batch, plan.windows, plan.notes)
            async with anyio.create_task_group() as watching:
                over = anyio.Event()
                if not signals:
                    tasks.start_soon(_shut_down_at, course.ended, supervisor)
                    if watch is not None:
                        watching.start_soon(look_on, watch, over)
                await supervisor.stopped()
                over.set()
            for pid, key in supervisor.left_behind.items():
                on_note(f"Left behind: the process {pid} of {key or 'a window'} ({proc.doing(pid)})")
            await hooks.finished()
            with contextlib.suppress(OSError):
                await anyio.to_thread.run_sync(prune_bars, config.cache)
            tasks.cancel_scope.cancel()
    return RunSummary(
        batch_id=batch_id,
        output_dir=output_dir,
        seconds=time.monotonic() - began,
        interrupted=bool(signals),
        held_reason=course.held_reason,
    )


def _signals() -> list[signal.Signals]:
    """The signals that end a run. SIGHUP is left out if it was ignored at the start (`nohup`)."""
    hang_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


def _made(state_dir: Path) -> Path:
    """Make the state directory of a run, which only this user can change. Raises NotOurs, StoreUnwritable."""
    try:
        files.make_private_directory(state_dir.parent)
        with directories.opened(state_dir.parent) as parent:
            os.close(directories.own_directory(state_dir.name, parent, shown=state_dir))
    except OSError as error:
        raise StoreUnwritable(path=state_dir, cause=error.strerror or error) from error
    return state_dir


async def _shut_down_at(ended: anyio.Event, supervisor: Supervisor) -> None:
    await ended.wait()
    supervisor.shut_down(drain=True)
