"""The workload of commands: any program, in a fresh process for each window, on a slot like a function's.

`gpusched.command:run_command` is its entry point. The window's process starts the program, waits for it, and commits
what it left in its directory. It does not become the program (exec): somebody has to read the result, to hash and
commit the files, and to tell an exit code from a result after the program has gone; and the pipe to the supervisor
stays out of the program's hands. The program is in the window's session and process group, so limits, signals and the
kill reach it as they reach a function.

Not here: shells, and decisions about retries. Start with `workload.run_command`; `schema` is what a user writes,
`placeholders` how it is filled in, `lookup` where programs are found, `process` the program's process, `script` a
Python script in a fork of the launcher, `ending` what became of it, `identity` what its result depends on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpusched.command.schema import Settings
    from gpusched.workload import Report, Result, SurveyTask, SymbolSurvey, Task

WORKLOAD = "gpusched.command:run_command"
#: a process of this workload leaves its GPU alone: a CUDA driver would not survive a fork of the script, and would take
#: memory of the GPU that the program needs
OPENS_DEVICE = False


def imports(workload: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules that a batch has preloaded into its launcher, beside those of its workload."""
    return tuple(settings.get("preload", ())) if workload == WORKLOAD else ()


def settings(raw: Mapping[str, Any]) -> Settings:
    """The settings of a command, checked. Raises BadParameters."""
    from gpusched.command.schema import parse_settings

    return parse_settings(raw)


def run_command(task: Task, directory: Path, report: Report) -> Result:
    """Run the program of one window, which writes into `directory`.

    Raises ProgramSkipped, ProgramFailed or ProgramKilled for a program without a result, BadParameters for settings
    that cannot be used.
    """
    from gpusched.command import workload

    return workload.run_command(task, directory, report)


def survey(task: SurveyTask) -> SymbolSurvey:
    """The windows of a symbol with their fingerprints; nothing is known of their data. Raises BadParameters."""
    from gpusched.command import workload

    return workload.survey(task)


def preload() -> None:
    """Import the modules that windows need."""
    from gpusched.command import workload

    workload.rehearse()


preload_survey = preload
