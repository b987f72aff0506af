"""`gpusched plan`: forecast the windows, the duration and the device of a run; nothing that it trains is kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import msgspec

from gpusched import directories
from gpusched.config import BUILT_IN_WORKLOAD, run_state_dir
from gpusched.core.estimates import Estimates, guessed_seconds, makespan, work
from gpusched.core.fastest import Timing
from gpusched.core.model import BatchSpec, Choice, DeviceType
from gpusched.core.planning import Plan
from gpusched.core.wording import SURVEY_NOTE_S, surveying
from gpusched.devices.slots import PoolPlan, PoolRules
from gpusched.engines.opening import engine_of
from gpusched.errors import one_error
from gpusched.runs.run import Run, found_here
from gpusched.store import STORE
from gpusched.store.learned import peek_learned, peek_timings
from gpusched.supervisor.fleet import Fleet
from gpusched.supervisor.planner import Planner


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a run, and its expected duration."""

    plan: Plan
    #: None: nothing is known of a workload of this kind
    seconds: float | None
    #: True: `seconds` comes from similar windows trained into this output directory, or from timings; False: a guess
    learned: bool
    #: the choice made for `auto`; None for a batch that names its device
    choice: Choice | None


class _Peeked:
    """The timings of a store that another process may be writing to; new ones are not kept."""

    def __init__(self, store: Path) -> None:
        self._store = store

    def timings(self, workload: str, settings: str) -> list[Timing]:
        return peek_timings(self._store, workload, settings)

    def keep_timing(self, timing: Timing) -> None:
        pass


async def forecast(run: Run, on_note: Callable[[str], None] = lambda note: None) -> Forecast:
    """Plan a run. Writes the bars cache and logs, and keeps nothing that it trains. `on_note` gets notes on devices,
    and on a survey that takes long.

    Raises GpuschedError.
    """
    config, spec, output_dir = run.config, run.spec, run.output_dir
    discovery, rules = found_here(config, spec), PoolRules(config, spec.device, spec.workers)
    store = run_state_dir(config, output_dir) / STORE
    estimates = Estimates(peek_learned(store))
    with _plan_logs(config.cache.dir) as logs, one_error():
        async with (
            engine_of(config, logs, discovery) as engine,
            anyio.create_task_group() as tasks,
        ):
            fleet = Fleet(rules, engine, post=lambda event: None, on_note=lambda note: on_note(note.sentence))
            tasks.start_soon(fleet.run)
            await fleet.require(spec.device)
            if (crowded := fleet.pool.too_many_threads(spec)) is not None:
                on_note(crowded)
            planner = Planner(engine, fleet, estimates, _Peeked(store), logs)
            plan, choice = await planner.plan(
                spec,
                output_dir,
                log="survey.log",
                existing=msgspec.structs.replace(run.existing, replace=True),
                origins=run.origins,
                on_progress=_seldom(on_note),
            )
            pool = fleet.pool
            tasks.cancel_scope.cancel()
    return _foreseen(spec, plan, choice, pool, estimates)


def _seldom(on_note: Callable[[str], None]) -> Callable[[int, int], None]:
    """Notes on the survey of very much data, in which nothing else tells that the command does not hang."""
    told_at = time.monotonic()

    def note(done: int, total: int) -> None:
        nonlocal told_at
        if (now := time.monotonic()) - told_at >= SURVEY_NOTE_S:
            told_at = now
            on_note(surveying(done, total))

    return note


def _foreseen(spec: BatchSpec, plan: Plan, choice: Choice | None, pool: PoolPlan, estimates: Estimates) -> Forecast:
    wanted = choice.device if choice is not None else spec.device
    # Where a batch uses both GPUs and the CPU, the GPUs do most of the work.
    types = pool.device_types(wanted)
    device_type: DeviceType = next((one for one in types if one != "cpu"), "cpu")
    seconds = [
        planned.window.expected_seconds
        or estimates.seconds(work(spec.workload, planned.window.point), device_type, planned.usable_rows)
        for planned in plan.to_train
    ]
    timed = next((one for one in choice.expected if one.device_type == wanted), None) if choice is not None else None
    if None in seconds and timed is not None and not timed.at_least:
        return Forecast(plan=plan, seconds=timed.seconds, learned=True, choice=choice)
    if None in seconds and spec.workload != BUILT_IN_WORKLOAD:
        return Forecast(plan=plan, seconds=None, learned=False, choice=choice)
    slots = pool.slots(wanted)
    return Forecast(
        plan=plan,
        seconds=makespan(
            (
                guessed_seconds(window.usable_rows) if learned is None else learned
                for window, learned in zip(plan.to_train, seconds, strict=True)
            ),
            min(slots, spec.workers) if spec.workers else slots,
        ),
        learned=None not in seconds,
        choice=choice,
    )


@contextlib.contextmanager
def _plan_logs(cache_dir: Path) -> Iterator[Path]:
    """The directory of the logs of a plan's processes: the cache, or a new temporary directory if that is read-only.

    A read-only cache makes the plan slower, not wrong. A temporary one stays after an error, which may name a log.
    """
    if _may_hold_logs(cache_dir):
        yield cache_dir
    else:
        directory = Path(tempfile.mkdtemp(prefix="gpusched-plan-", dir=directories.temporary_place()))
        yield directory
        shutil.rmtree(directory, ignore_errors=True)


def _may_hold_logs(cache_dir: Path) -> bool:
    with contextlib.suppress(OSError):
        cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.access(cache_dir, os.W_OK | os.X_OK)
    return False
