"""The choice of `auto`: the device type that finishes a batch first, found by training a window on each.

The window is a typical one of the batch. It is trained in a temporary directory, on as many slots of a device at once
as the batch would fill, since a window on a GPU mostly waits for its neighbours. Timings are avoided where possible:
there are none if only one type trains, if the output directory already has results, or if windows of this size have
been observed; and the GPUs are timed only until they cannot win any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread
import msgspec

from gpusched.command import WORKLOAD as COMMAND
from gpusched.config.workloads import settings_at
from gpusched.core import fastest
from gpusched.core.estimates import Estimates, bucket_of
from gpusched.core.fastest import Kind, Load, Timing
from gpusched.core.model import Batch, BatchSpec, Choice, Device, DeviceType, PlannedWindow, WindowResult
from gpusched.core.placement import suits
from gpusched.core.planning import Plan
from gpusched.core.wording import counted
from gpusched.engines.engine import Engine, launched
from gpusched.errors import LaunchError
from gpusched.supervisor.fleet import Fleet
from gpusched.worker.messages import PipeMessage

#: slots of a device at most on which a window is timed at once
MOST_AT_ONCE = 4
#: how the names of directories begin in which windows are timed: the daemon's state may lie beside files of a user's
_TIMING = "gpusched-timing-"

_WORDS: dict[DeviceType, str] = {"cpu": "on the CPU", "cuda": "with CUDA", "gpu": "with OpenCL"}


class Timings(Protocol):
    """Where timings are kept: the store."""

    def timings(self, workload: str, settings: str) -> list[Timing]:
        """The timings of a workload with settings of this digest."""

    def keep_timing(self, timing: Timing) -> None: ...


class Chooser:
    """Chooses among the devices of `fleet`. `estimates` are the costs of earlier windows.

    Windows that are timed write their results below `scratch`.
    """

    def __init__(self, engine: Engine, fleet: Fleet, estimates: Estimates, timings: Timings, scratch: Path) -> None:
        self._engine = engine
        self._fleet = fleet
        self._estimates = estimates
        self._timings = timings
        self._scratch = scratch
        #: one batch at a time: concurrent timings would slow each other down
        self._timing = anyio.Lock()

    def sweep(self) -> None:
        """Remove directories of timings that were killed. No other process may use the same scratch directory."""
        for directory in self._scratch.glob(f"{_TIMING}*/"):
            shutil.rmtree(directory, ignore_errors=True)

    async def settle(self, spec: BatchSpec, plan: Plan) -> tuple[Plan, Choice | None]:
        """Choose for a batch; return its plan without the results of other device types, and the choice.

        The choice is None for a batch that does not ask for `auto`. Never raises for a window that cannot be timed.
        """
        if spec.device != "auto":
            return plan, None
        # In threads: there may be 100,000 windows.
        types = await anyio.to_thread.run_sync(_types_of, plan)
        choice = await self._there_already(plan, types) or await self._choose(spec, plan)
        if types.keys() <= {choice.device}:
            return plan, choice
        return await anyio.to_thread.run_sync(_without_others, plan, choice.device), choice

    async def _there_already(self, plan: Plan, types: Counter[DeviceType]) -> Choice | None:
        """The device type of the existing results, if any: a batch keeps it, so that its models are comparable."""
        if any(device_type != "cpu" for device_type in types):
            await self._fleet.settled()
        for device_type, count in types.most_common():
            if device_type in self._fleet.pool.device_types("auto"):
                # With one type only, or nothing left to train, there was no choice to explain.
                others = (plan.to_train or len(types) > 1) and len(self._fleet.device_types("auto")) > 1
                trained = counted(count, "window was", "windows were")
                reason = f"{trained} trained {_WORDS[device_type]} before"
                return Choice(device=device_type, reason=f"{reason}: so are the others" if others else "")
        return None

    async def _choose(self, spec: BatchSpec, plan: Plan) -> Choice:
        if spec.workload == COMMAND:
            return await self._for_command(spec)
        kinds = self._kinds(spec)
        if len({kind.device_type for kind in kinds}) <= 1 and not self._fleet.untried:
            return Choice(device=fastest.preferred(kinds))
        windows = await anyio.to_thread.run_sync(lambda: plan.to_train)
        if not windows:
            return Choice(device=fastest.preferred(kinds))
        async with self._timing:
            return await self._time_all(spec, windows)

    async def _for_command(self, spec: BatchSpec) -> Choice:
        """GPUs where there are any: a program may do what gpusched cannot undo, so it is not run to be timed."""
        await self._fleet.settled()
        kinds = self._kinds(spec)
        choice = Choice(device=fastest.preferred(kinds))
        if len({kind.device_type for kind in kinds}) > 1:
            reason = "a command is not timed: it gets the GPUs; --device cpu and --device mixed say otherwise"
            choice = msgspec.structs.replace(choice, reason=reason)
        return choice

    def _kinds(self, spec: BatchSpec) -> tuple[Kind, ...]:
        return fastest.kinds((one for one in self._fleet.pool.devices if suits(one, "auto")), spec.workers)

    async def _time_all(self, spec: BatchSpec, windows: tuple[PlannedWindow, ...]) -> Choice:
        """Use the known timings, then time the processors, and the GPUs as long as they may still be faster."""
        work = await anyio.to_thread.run_sync(fastest.load, windows)
        rows = work.typical.usable_rows
        at_point = settings_at(spec, work.typical.window.point)
        settings = hashlib.sha256(msgspec.json.encode(at_point, order="deterministic")).hexdigest()[:16]
        earlier = self._timings.timings(spec.workload, settings)
        timings = fastest.remembered(earlier, self._kinds(spec), rows)
        best_s: float | None = None
        for on_cpu in (True, False):
            if not on_cpu:
                await self._wait_for_trials(best_s)
            kinds = self._kinds(spec)
            learned = {} if self._fleet.untried else fastest.learned(self._estimates, spec.workload, kinds, rows)
            timings = {**fastest.remembered(earlier, kinds, rows), **timings, **learned}
            choice = await self._decided(work, kinds, timings)
            if not self._fleet.untried and fastest.is_certain(choice, kinds):
                return choice
            for kind in (kind for kind in kinds if (kind.device_type == "cpu") == on_cpu):
                last, limit_s = timings.get(kind), fastest.patience_s(work, kind, best_s)
                if last is None or (last.at_least and last.seconds < limit_s):
                    timing = await self._time(spec, kind, work.typical, settings, limit_s)
                    if timing is not None:
                        timings[kind] = timing
                        self._timings.keep_timing(timing)
            choice = await self._decided(work, kinds, timings)
            best_s = min((one.seconds for one in choice.expected if not one.at_least), default=None)
        return choice

    async def _decided(self, work: Load, kinds: tuple[Kind, ...], timings: dict[Kind, Timing]) -> Choice:
        """Decide in a thread: summing up 100,000 windows takes a fifth of a second."""
        pending = len(self._fleet.untried)
        return await anyio.to_thread.run_sync(lambda: fastest.fastest(work, kinds, timings, pending=pending))

    async def _wait_for_trials(self, best_s: float | None) -> None:
        """Wait for GPUs that are being tried: for a small part of the batch's time, if that is known."""
        with anyio.move_on_after(math.inf if best_s is None else fastest.trial_patience_s(best_s)):
            await self._fleet.settled()

    async def _time(
        self, spec: BatchSpec, kind: Kind, window: PlannedWindow, settings: str, limit_s: float
    ) -> Timing | None:
        """Time `window` on a device of this kind; None if it cannot be trained there."""
        device = next(
            one
            for one in self._fleet.pool.devices
            if (one.lightgbm_type, one.name) == (kind.device_type, kind.model) and suits(one, "auto")
        )
        at_once = max(1, min(MOST_AT_ONCE, device.tuned_from or device.capacity, kind.slots))
        took: list[float] = []
        with contextlib.suppress(LaunchError):  # the following fork reports the error
            await self._engine.preload(spec)
        with tempfile.TemporaryDirectory(prefix=_TIMING, dir=self._scratch, ignore_cleanup_errors=True) as directory:

            async def train(number: int) -> None:
                seconds = await self._train(spec, kind, device, window, Path(directory, str(number)))
                took.extend([] if seconds is None else [seconds])

            with anyio.move_on_after(limit_s) as scope:
                async with anyio.create_task_group() as tasks:
                    for number in range(at_once):
                        tasks.start_soon(train, number)
        if not scope.cancelled_caught and len(took) < at_once:
            return None
        return Timing(
            workload=spec.workload,
            settings=settings,
            model=kind.model,
            device_type=kind.device_type,
            bucket=bucket_of(window.usable_rows),
            rows=window.usable_rows,
            seconds=limit_s if scope.cancelled_caught else sum(took) / at_once * fastest.slowdown(kind, at_once),
            at_least=scope.cancelled_caught,
        )

    async def _train(
        self, spec: BatchSpec, kind: Kind, device: Device, window: PlannedWindow, directory: Path
    ) -> float | None:
        """Train `window` in `directory`; return the seconds from the fork to the end, None without a result."""
        results: list[WindowResult] = []

        def on_message(message: PipeMessage) -> None:
            if isinstance(message, WindowResult):
                results.append(message)

        batch = Batch(
            id="timing",
            digest="",
            output_dir=str(directory),
            submitted_at=0.0,
            spec=msgspec.structs.replace(spec, device=kind.device_type),
        )
        began = time.monotonic()
        try:
            process = await launched(self._engine, batch, window, device, log=f"timing-{kind.device_type}.log")
            await process.wait(on_message)
        except (LaunchError, OSError):
            return None
        return time.monotonic() - began if results else None


def _types_of(plan: Plan) -> Counter[DeviceType]:
    """The device types of the results that are to be reused, with their numbers."""
    return Counter(window.committed.device_type for window in plan.to_reuse if window.committed is not None)


def _without_others(plan: Plan, device_type: DeviceType) -> Plan:
    """The plan without the results of other device types."""
    windows = tuple(
        msgspec.structs.replace(window, committed=None)
        if window.committed is not None and window.committed.device_type != device_type
        else window
        for window in plan.windows
    )
    return msgspec.structs.replace(plan, windows=windows)
