"""A window that was killed says by whom, and one for which memory ran out is tried again for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpusched.core.events import Update, WindowMoved
from gpusched.core.states import Failure, FailureKind, Queued, Running
from gpusched.devices.memory import HostMemory
from tests.supervisor.support import make_batch, plan, supervised


class Kernel(HostMemory):
    """A reading with these values."""

    def __init__(self, killed: bool | None) -> None:
        super().__init__()
        self._answer = killed

    def take_kill(self) -> bool | None:
        return self._answer


def requeued(update: Update) -> bool:
    return isinstance(update, WindowMoved) and isinstance(update.old, Running) and isinstance(update.new, Queued)


@pytest.mark.parametrize(
    ("killed", "kind", "told"),
    [
        (True, "host_memory", "out of host memory: the kernel killed the process; next with "),
        (False, "killed", "the process was killed (SIGKILL, not by gpusched)"),
        (None, "killed", "the process was killed (SIGKILL, perhaps by the kernel, "),
    ],
)
async def test_who_killed_it(tmp_path: Path, killed: bool | None, kind: FailureKind, told: str) -> None:
    async with supervised(tmp_path, memory=Kernel(killed)) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "kills_itself"), plan(1))
        moved = await bench.until(requeued)
    assert isinstance(moved, WindowMoved)
    assert isinstance(moved.ending, Failure)
    assert moved.ending.kind == kind
    assert moved.reason.startswith(told)


@pytest.mark.parametrize(("limit", "kind"), [(0, "host_memory"), (64 << 30, "memory")])
async def test_memory_that_the_machine_does_not_have(tmp_path: Path, limit: int, kind: FailureKind) -> None:
    """A large allocation is refused before anybody is killed; with a limit, that is its own fault."""
    async with supervised(tmp_path) as bench:
        batch = make_batch(tmp_path, "asks_for_a_pebibyte", max_attempts=1, memory_limit_bytes=limit)
        await bench.supervisor.submit(batch, plan(1))
        moved = await bench.until(lambda update: isinstance(update, WindowMoved) and update.ending is not None)
    assert isinstance(moved, WindowMoved)
    assert isinstance(moved.ending, Failure)
    assert moved.ending.kind == kind
    assert ("out of host memory: MemoryError" in moved.reason) == (kind == "host_memory")


async def test_a_window_that_is_too_large_even_alone_fails(tmp_path: Path) -> None:
    async with supervised(tmp_path, memory=Kernel(True)) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "kills_itself", max_attempts=1), plan(1))
        await bench.finished()
        assert bench.outcomes() == ["failed"]
        assert len([update for update in bench.updates if requeued(update)]) == 2
