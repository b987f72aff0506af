"""`gpusched run`: the supervisor inside the command's own process, for one batch.

There is no daemon: the store is in the state directory (by default within the output directory), and the same
directory can be run again however the last run ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from gpusched import clock, directories, files, outputs
from gpusched.config import NO_ORIGINS, Config, run_state_dir
from gpusched.core.events import ChangeRequested, DeviceLost, DeviceRead, DeviceTuned
from gpusched.core.model import Batch, BatchSpec, Existing
from gpusched.core.planning import Plan, accepted
from gpusched.devices.kind import Discovery
from gpusched.devices.slots import PoolRules
from gpusched.engines.opening import look_here
from gpusched.errors import StoreUnwritable, one_error
from gpusched.runs.course import Course
from gpusched.runs.notes import FirstReadings, Notes
from gpusched.service.manager import LAST_S
from gpusched.service.pruning import prune_bars
from gpusched.service.territory import OutputUnwritable, refuse_within, user_name
from gpusched.supervisor.existing import taken_over
from gpusched.supervisor.followers import News, Noted
from gpusched.supervisor.runtime import Runtime, opened

if TYPE_CHECKING:
    from gpusched.runs.watched import Watch

#: seconds until a run stops waiting for processes that hang, by number of signals received; after a third, at once
_PATIENCE_S = {1: float("inf"), 2: LAST_S}


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What is run, and where to."""

    config: Config
    spec: BatchSpec
    batch_id: str
    digest: str
    output_dir: Path
    existing: Existing = Existing()
    #: `section.key` of the workload's settings → where the value was given
    origins: Mapping[str, str] = NO_ORIGINS
    #: label of the one window that is run again, of a batch that was finished in this directory; None: all windows
    again: str | None = None


class Surveyed(msgspec.Struct, frozen=True):
    """The data of `done` symbols of `total` have been surveyed."""

    done: int
    total: int


class Planned(msgspec.Struct, frozen=True):
    """The plan is made; its windows start now."""

    plan: Plan


class Interrupted(msgspec.Struct, frozen=True):
    """A signal came, the `count`th: the first drains, the second stops, the third leaves."""

    count: int


class Follower(Protocol):
    def follow(self, news: News | Surveyed | Planned | Interrupted) -> None:
        """Hear of one piece of news, as the followers of a supervisor do."""


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. The outcomes of its windows are in the updates."""

    batch_id: str
    output_dir: Path
    seconds: float
    #: whether a signal stopped it
    interrupted: bool
    #: why the circuit breaker stopped it, or None
    held_reason: str | None


async def run_batch(run: Run, follower: Follower, watch: Watch | None = None) -> RunSummary:
    """Plan a batch, run it, and return when all of its windows are finished, or it is held, or a signal stopped it.

    After the first SIGINT, SIGTERM or SIGHUP the running windows may finish; a second SIGINT or SIGTERM stops them.
    `watch` may observe the run and hold, release, cancel and retry its windows; until it returns, held windows do not
    end the run. Raises GpuschedError.
    """
    began = time.monotonic()
    config, spec = run.config, run.spec
    discovery = found_here(config, spec)
    refuse_within(run.output_dir, (config.cache.dir, config.daemon.state_dir))
    state_dir = _made(run_state_dir(config, run.output_dir), run.output_dir)
    with contextlib.suppress(OSError):
        # Another run is told of by its directory, before it would be by its store; the claim that counts comes later.
        os.close(outputs.claim(run.output_dir, make=False))
    course = Course(devices_return=config.engine.kind == "ray")
    with one_error():
        async with opened(config, state_dir, discovery, follower, course, spec=spec) as runtime:
            running = _Running(run, runtime, follower, course)
            await running.claim()
            async with runtime.working() as tasks:
                tasks.start_soon(running.obey_signals)
                await (running.start() if run.again is None else running.try_again(run.again))
                await running.finish(tasks, watch)
    return RunSummary(
        batch_id=run.batch_id,
        output_dir=run.output_dir,
        seconds=time.monotonic() - began,
        interrupted=running.signals > 0,
        held_reason=course.held_reason,
    )


def found_here(config: Config, spec: BatchSpec) -> Discovery:
    """The GPUs of this machine. Raises NoDevice if windows run here and no device suits the batch."""
    discovery = look_here(config, spec.device)
    if config.engine.kind == "local":
        rules = PoolRules(config, spec.device, spec.workers)
        rules.pool(rules.select(discovery)).require(spec.device)
    return discovery


class _Running:
    """The batch of a run, from its plan to its end."""

    def __init__(self, run: Run, runtime: Runtime, follower: Follower, course: Course) -> None:
        self._run = run
        self._runtime = runtime
        self._follower = follower
        self._course = course
        self._supervisor = runtime.supervisor
        #: number of signals received
        self.signals = 0
        self._surveying = anyio.CancelScope()
        self._readings = FirstReadings(runtime)
        runtime.followers.add(self._readings, DeviceRead, DeviceLost)
        runtime.followers.add(Notes(runtime), DeviceTuned, DeviceRead, DeviceLost)

    async def claim(self) -> None:
        """Raises OutputInUse, OutputUnwritable."""
        output_dir = self._run.output_dir
        try:
            await self._supervisor.claims.take(self._run.batch_id, output_dir)
        except OSError as error:
            raise OutputUnwritable(path=output_dir, cause=error.strerror or error, user=user_name()) from error

    async def start(self) -> None:
        """Plan the batch and submit it, unless a signal comes before."""
        spec, runtime = self._run.spec, self._runtime
        with self._surveying:
            await runtime.fleet.require(spec.device)
            plan, choice = await runtime.planner.plan(
                spec,
                self._run.output_dir,
                log=f"{self._run.batch_id}/survey.log",
                existing=self._run.existing,
                origins=self._run.origins,
                on_progress=lambda done, total: self._follower.follow(Surveyed(done, total)),
            )
            plan, notes = await taken_over(plan, self._run.existing, self._run.output_dir)
            self._follower.follow(Planned(plan))
            for note in (*notes, runtime.fleet.pool.too_many_threads(spec), choice and choice.reason):
                if note:
                    self._follower.follow(Noted(note))
            batch = Batch(
                id=self._run.batch_id,
                digest=self._run.digest,
                output_dir=str(self._run.output_dir),
                submitted_at=clock.wall(),
                spec=accepted(spec),
                choice=choice,
            )
            if batch.device != "cpu":
                await self._readings.complete()
            await self._supervisor.submit(batch, plan.windows, plan.notes)

    async def try_again(self, label: str) -> None:
        """Take up the batch as the store has it, and have one of its windows run again."""
        with self._surveying:
            await self._runtime.fleet.require(self._run.spec.device)
            await self._readings.complete()
            async with self._supervisor.recalled(self._run.batch_id):
                self._supervisor.post(ChangeRequested(verb="retry", batch_id=self._run.batch_id, label=label))
                await self._supervisor.committed()

    async def finish(self, tasks: anyio.abc.TaskGroup, watch: Watch | None) -> None:
        """Wait until the run is over, and clean up."""
        async with anyio.create_task_group() as watching:
            over = anyio.Event()
            if not self.signals:
                tasks.start_soon(self._shut_down_at_end)
                if watch is not None:
                    watching.start_soon(self._look_on, watch, over)
            await self._supervisor.stopped()
            over.set()
        for left in self._supervisor.left_behind:
            text = f"Left behind: the process {left.pid} of {left.window or 'a window'} ({left.doing})"
            self._follower.follow(Noted(text))
        await self._runtime.hooks.finished()
        with contextlib.suppress(OSError):
            await anyio.to_thread.run_sync(prune_bars, self._run.config.cache)

    async def obey_signals(self) -> None:
        with anyio.open_signal_receiver(*_signals()) as received:
            async for number in received:
                if number == signal.SIGHUP and self.signals:
                    continue  # a shell that exits and its terminal each send one
                self.signals += 1
                self._follower.follow(Interrupted(self.signals))
                self._surveying.cancel()
                self._supervisor.shut_down(drain=self.signals == 1, within_s=_PATIENCE_S.get(self.signals, 0.0))

    async def _shut_down_at_end(self) -> None:
        await self._course.ended.wait()
        self._supervisor.shut_down(drain=True)

    async def _look_on(self, watch: Watch, over: anyio.Event) -> None:
        from gpusched.runs.watched import be_watched  # most runs need no server

        with self._course.watched():
            await be_watched(self._runtime, self._run.output_dir, watch, over)


def _signals() -> list[signal.Signals]:
    """The signals that end a run. SIGHUP is left out if it was ignored at the start (`nohup`)."""
    hang_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


def _made(state_dir: Path, output_dir: Path) -> Path:
    """Make the state directory of a run, which only this user can change. Raises NotOurs, StoreUnwritable.

    The output directory that it may lie in is made, too, with the mode that the umask leaves. Raises OutputUnwritable.
    """
    within = state_dir.parent == output_dir
    try:
        if within:
            output_dir.mkdir(parents=True, exist_ok=True)
        else:
            files.make_private_directory(state_dir.parent)
        with directories.opened(state_dir.parent) as parent:
            os.close(directories.own_directory(state_dir.name, parent, shown=state_dir))
    except OSError as error:
        cause = error.strerror or error
        if within and not os.path.lexists(state_dir):
            why = "it is not a directory" if isinstance(error, FileExistsError) else cause
            raise OutputUnwritable(path=output_dir, cause=why, user=user_name()) from error
        raise StoreUnwritable(path=state_dir, cause=cause) from error
    return state_dir
