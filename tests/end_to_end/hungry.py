"""A workload that takes 150 MiB, piece by piece; the first two windows do so at the same pace."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gpusched.workload import Report, Result, Task

PIECES, PIECE_BYTES = 150, 1 << 20
#: named pipes in the data root, which the test makes: from the first window to the second, and back
PIPES = ("there", "back")


def window(task: Task, directory: Path, report: Report) -> Result:
    other = meet(Path(task.data_root))
    held = []
    for _ in range(PIECES):
        held.append(bytearray(b"x" * PIECE_BYTES))
        if other is not None:
            keep_pace(*other)
    (directory / "model.txt").write_text(task.label)
    return Result(metrics={}, sample_counts={}, metadata={}, phases={})


def meet(place: Path) -> tuple[int, int] | None:
    """Wait for the other of the first two windows; return the pipes from it and to it. Later windows get None."""
    for role in ("first", "second"):
        with contextlib.suppress(FileExistsError):
            (place / role).touch(exist_ok=False)
            # Each open waits for the other window, which opens the pipes in the same order.
            if role == "first":
                to = os.open(place / PIPES[0], os.O_WRONLY)
                return os.open(place / PIPES[1], os.O_RDONLY), to
            return os.open(place / PIPES[0], os.O_RDONLY), os.open(place / PIPES[1], os.O_WRONLY)
    return None


def keep_pace(other: int, to: int) -> None:
    """Return when the other window has come as far, or is dead."""
    with contextlib.suppress(BrokenPipeError):
        os.write(to, b".")
    os.read(other, 1)
