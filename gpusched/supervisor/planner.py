"""The planner: from what a batch asks for to its plan and its device type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gpusched.config import NO_ORIGINS
from gpusched.core.estimates import Estimates
from gpusched.core.model import BatchSpec, Choice, Existing
from gpusched.core.planning import Plan
from gpusched.engines.engine import Engine
from gpusched.supervisor.choice import Chooser, Timings
from gpusched.supervisor.existing import refuse_alike, refuse_to_replace
from gpusched.supervisor.fleet import Fleet
from gpusched.supervisor.survey import Survey


class Planner:
    """Plans batches for the devices of a fleet. Windows that are timed write their results below `scratch`."""

    def __init__(self, engine: Engine, fleet: Fleet, estimates: Estimates, timings: Timings, scratch: Path) -> None:
        self._engine = engine
        self._fleet = fleet
        self._chooser = Chooser(engine, fleet, estimates, timings, scratch)
        self._chooser.sweep()

    async def plan(
        self,
        spec: BatchSpec,
        output_dir: Path,
        *,
        log: str,
        existing: Existing,
        origins: Mapping[str, str] = NO_ORIGINS,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[Plan, Choice | None]:
        """Survey the data of a batch and choose its device type, if it asks for `auto`.

        Raises as `Survey.plan`, NamesAlike, and WouldReplace.
        """
        types = self._fleet.device_types(spec.device)
        survey = Survey(self._engine, spec, output_dir, types, log=log, existing=existing)
        plan = await survey.plan(self._fleet.pool.cores, origins=origins, on_progress=on_progress)
        refuse_alike(plan, output_dir)
        refuse_to_replace(plan, existing, output_dir)
        return await self._chooser.settle(spec, plan)
