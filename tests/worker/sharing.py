"""Workloads that share content, the built-in one among them. Named `tests.worker.sharing:<name>`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from gpusched import shared
from gpusched.teacher import preload as preload_teacher
from gpusched.teacher import train_window as train_window
from gpusched.workload import Report, Result, Task
from tests.worker.workloads import open_descriptors, say, wait_for_line

DIGEST = b"digest"
_PROBE = "import os; print(*os.listdir('/proc/self/fd'))"


def preload() -> None:
    preload_teacher()
    shared.LINGER_S = 3600.0  # however busy the machine is


def shares(task: Task, directory: Path, report: Report) -> Result:
    """Takes the content that there is, or gives its own; then says so, and waits for an answer, if it has pipes."""
    memory, taken = shared.inherited, None
    if memory is not None and (taken := memory.take(DIGEST)) is None:
        memory.give(DIGEST, task.settings["content"].encode())
    if "fifo" in task.settings:
        say(task, 0)
        wait_for_line(task)
    metrics = {
        "inherits": memory is not None,
        "taken": None if taken is None else taken.decode(),
        "descriptors": open_descriptors(),
        "of_a_program": subprocess.check_output([sys.executable, "-c", _PROBE], text=True).split(),
    }
    return Result(metrics=metrics, sample_counts={}, metadata={}, phases={})


def stops_in_the_middle(task: Task, directory: Path, report: Report) -> Result:
    """Writes half of its content, says so, and hangs."""
    write = os.pwritev

    def write_half(descriptor: int, buffers: Iterable[bytes], offset: int) -> int:
        content = b"".join(buffers)
        write(descriptor, [content[: len(content) // 2]], offset)
        say(task, 0)
        signal.pause()
        raise AssertionError("it was to be killed")

    vars(os)["pwritev"] = write_half
    return shares(task, directory, report)
