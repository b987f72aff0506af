"""`gpusched plan`: forecast the windows, the duration and the device of a run; nothing that it trains is kept."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import anyio
import msgspec

from gpusched.config import NO_ORIGINS, Config, run_state_dir
from gpusched.core.estimates import Estimates, guessed_seconds, makespan
from gpusched.core.model import BatchSpec, Choice, DeviceType
from gpusched.core.planning import Plan
from gpusched.devices.slots import PoolPlan, build_pool, find_gpus
from gpusched.engines.local.launcher import Launcher
from gpusched.engines.local.warm_up import WarmUp, launcher_environment
from gpusched.errors import one_error
from gpusched.store.learned import peek_learned, peek_timings
from gpusched.supervisor.choice import Chooser
from gpusched.supervisor.fleet import Fleet
from gpusched.supervisor.survey import survey


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a run, and its expected duration."""

    plan: Plan
    seconds: float
    #: True: `seconds` comes from similar windows trained into this output directory, or from timings; False: a guess
    learned: bool
    #: the choice made for `auto`; None for a batch that names its device
    choice: Choice | None


async def forecast(
    config: Config,
    spec: BatchSpec,
    output_dir: Path,
    origins: Mapping[str, str] = NO_ORIGINS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Forecast:
    """Plan a run. Writes the bars cache and logs, and keeps nothing that it trains.

    `origins` and `on_note` as for `run_batch`. Raises GpuschedError.
    """
    planned = build_pool(config, find_gpus(config, spec.device), workers=spec.workers)
    planned.require(spec.device)
    for note in (*planned.notes, planned.too_many_threads(spec)):
        if note is not None:
            on_note(note)
    logs, store = _plan_logs(config.cache.dir), run_state_dir(config, output_dir) / "state.db"
    estimates = Estimates(peek_learned(store))
    with one_error():
        async with (
            Launcher(
                log_path=logs / "launcher.log", search_path=Path.cwd(), environment=launcher_environment(config)
            ) as launcher,
            anyio.create_task_group() as tasks,
        ):
            fleet = Fleet(
                config,
                planned,
                WarmUp(launcher, workload=spec.workload, log_path=logs / "warm_up.log"),
                wanted=spec.device,
                post=lambda event: None,
                on_note=on_note,
            )
            tasks.start_soon(fleet.run)
            await fleet.require(spec.device)
            plan = await survey(
                launcher,
                spec,
                output_dir=output_dir,
                cache_dir=config.cache.dir,
                log_path=logs / "survey.log",
                device_types=fleet.device_types(spec.device),
                processes=planned.cores,
                origins=origins,
                on_progress=on_progress,
            )
            chooser = Chooser(
                launcher,
                fleet,
                estimates,
                remembered=partial(peek_timings, store),
                keep=lambda timing: None,
                scratch=logs,
                cache_dir=config.cache.dir,
            )
            plan, choice = await chooser.settle(spec, plan)
            pool = fleet.pool
            tasks.cancel_scope.cancel()
    return _foreseen(spec, plan, choice, pool, estimates)


def _foreseen(spec: BatchSpec, plan: Plan, choice: Choice | None, pool: PoolPlan, estimates: Estimates) -> Forecast:
    wanted = choice.device if choice is not None else spec.device
    # Where a batch uses both GPUs and the CPU, the GPUs do most of the work.
    types = pool.device_types(wanted)
    device_type: DeviceType = next((one for one in types if one != "cpu"), "cpu")
    seconds = [estimates.seconds(spec.workload, device_type, window.usable_rows) for window in plan.to_train]
    timed = next((one for one in choice.expected if one.device_type == wanted), None) if choice is not None else None
    if None in seconds and timed is not None and not timed.at_least:
        return Forecast(plan=plan, seconds=timed.seconds, learned=True, choice=choice)
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


def _plan_logs(cache_dir: Path) -> Path:
    """The directory of the logs of a plan's processes: the cache, or a new temporary directory if that is read-only.

    A read-only cache makes the plan slower, not wrong.
    """
    with contextlib.suppress(OSError):
        cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(cache_dir, os.W_OK | os.X_OK):
            return cache_dir
    return Path(tempfile.mkdtemp(prefix="gpusched-plan-"))
