"""Windows that do nothing but record when their process began and ended, on the clock that all processes share.

The stamps are the first instruction after the fork and the last one before the exit: everything in between, including
the commit of its artifacts, is the window's own time and not its supervisor's.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NoReturn

from benchmarks.windows import preload as preload
from gpusched.workload import Report, Result, Task

_began = 0.0


def _stamp() -> None:
    global _began
    _began = time.monotonic()


os.register_at_fork(after_in_child=_stamp)


def nothing(task: Task, directory: Path, report: Report) -> Result:
    """Append `label began ended` to the file that the setting `stamps` names, at the very end of the process."""
    exit_now = os._exit

    def stamped(code: int) -> NoReturn:
        descriptor = os.open(task.settings["stamps"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{task.label} {_began!r} {time.monotonic()!r}\n".encode())
        exit_now(code)

    os._exit = stamped  # type: ignore[assignment]
    return Result(metrics={}, sample_counts={}, metadata={}, phases={})


def sleep(task: Task, directory: Path, report: Report) -> Result:
    """As `nothing`, after as many seconds as the setting `seconds` says."""
    time.sleep(task.settings["seconds"])
    return nothing(task, directory, report)
