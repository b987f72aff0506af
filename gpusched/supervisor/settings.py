"""Check the settings of a workload by its own functions, in a process forked for that, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpusched.command import imports
from gpusched.config.workloads import refused
from gpusched.engines.local.launcher import Launcher
from gpusched.errors import InputError
from gpusched.worker.messages import PipeMessage, SettingsChecked, SettingsJob


class SettingsUnchecked(InputError):
    problem = "the settings of the workload cannot be checked: the process that tried ended with {how}"
    remedy = "the windows would end like that, too; its output is in {log_path}"


async def check_settings(
    launcher: Launcher,
    workload: str,
    settings: Sequence[dict[str, Any]],
    *,
    log_path: Path,
    origins: Mapping[str, str],
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
    process = await launcher.fork(job, log_path=log_path, env={"CUDA_VISIBLE_DEVICES": ""})
    end = await process.wait(on_message)
    if not answers:
        how = f"signal {end.signal}" if end.signal else end.violation or f"exit code {end.exit_code}"
        raise SettingsUnchecked(how=how, log_path=log_path)
    for number, why in sorted(answers[0].refusals.items()):
        raise refused(workload, why, origins, settings[number])
