"""Processes that die without a word: the record of their end, and the end of their half-written results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpusched.core.events import ChangeRequested
from gpusched.core.states import Failed, Finished
from tests.supervisor.support import make_batch, plan, supervised


@pytest.mark.parametrize(
    ("workload", "first", "words"),
    [
        ("interrupts_itself", "Traceback (most recent call last):", "KeyboardInterrupt"),
        ("segfaults", "Fatal Python error: Segmentation fault", "in segfaults"),
        ("exits", "Traceback (most recent call last):", "SystemExit: 2"),
        ("exits_at_once", "", ""),
    ],
)
async def test_keeps_the_traceback_of_a_process_that_ended_without_a_word(
    tmp_path: Path, workload: str, first: str, words: str
) -> None:
    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, workload, max_attempts=1), plan(1))
        await bench.finished()
        moved = await bench.moved_to(Finished)
    assert isinstance(moved.new, Finished)
    assert isinstance(moved.new.outcome, Failed)
    failure = moved.new.outcome.failure
    assert failure.traceback.startswith(first)
    assert words in failure.traceback
    assert "an earlier one" not in failure.traceback
    assert bool(failure.traceback) == bool(first)
    assert ("/workloads.py:" in failure.source_line) == bool(first)
    line = json.loads((tmp_path / "output" / "teacher_runs.json").read_text())
    assert line["error"]["traceback"] == failure.traceback


async def test_what_a_process_that_died_has_left_is_removed_while_its_batch_goes_on(tmp_path: Path, fifo: Any) -> None:
    said = fifo("said")
    partial = tmp_path / "output" / ".partial"

    def litter() -> list[str]:
        return [path.name for path in partial.iterdir() if path.name.startswith("S0")]

    async with supervised(tmp_path) as bench:
        await bench.supervisor.submit(make_batch(tmp_path, "hangs", settings={"fifo": said.path}), plan(2))
        pids = {await said.number(), await said.number()}
        assert len(list(partial.iterdir())) == len(pids)
        label = bench.key(0).label
        bench.supervisor.post(ChangeRequested(verb="cancel", batch_id="b", label=label))
        await bench.moved_to(Finished, label)
        await bench.when(lambda: not litter())
        assert len(list(partial.iterdir())) == 1  # the other window is at work
