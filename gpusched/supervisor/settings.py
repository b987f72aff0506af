"""Check the settings of a workload by its own functions, in a process forked for that, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpusched.command import imports
from gpusched.config.workloads import refused
from gpusched.engines.engine import Engine
from gpusched.errors import InputError
from gpusched.worker.messages import PipeMessage, SettingsChecked, SettingsJob


class SettingsUnchecked(InputError):
    problem = "the settings of the workload cannot be checked: the process that tried ended with {how}"
    remedy = "the windows would end like that, too; its output is in {log_path}"


async def check_settings(
    engine: Engine, workload: str, settings: Sequence[dict[str, Any]], *, log: str, origins: Mapping[str, str]
) -> None:
    """Check settings, one at least: as many as there are points in a sweep.

    `origins`: `section.key` → where its value was given.

    Raises BadValue for the first that the workload refuses, SettingsUnchecked if the process dies, LaunchError.
    """
    answers: list[SettingsChecked] = []

    def on_message(message: PipeMessage) -> None:
        if isinstance(message, SettingsChecked):
            answers.append(message)

    job = SettingsJob(workload=workload, settings=tuple(settings), imports=imports(workload, settings[0]))
    how = await engine.inspect(job, on_message, log=log)
    if not answers:
        raise SettingsUnchecked(how=how, log_path=engine.log_path(log))
    for number, why in sorted(answers[0].refusals.items()):
        raise refused(workload, why, origins, settings[number])
