"""An output directory belongs to its batch for as long as that is at work, whatever is asked for at its end."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import anyio
import pytest

from gpusched import outputs
from gpusched.core.events import ChangeRequested, ResultsChecked
from gpusched.supervisor.claims import Claims
from tests.supervisor.support import make_batch, plan, supervised
from tests.waiting import PATIENCE_S


async def test_a_retry_at_the_very_end_of_a_batch_keeps_its_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking, checked = threading.Event(), threading.Event()

    def missing(output_dir: Path, labels: tuple[str, ...]) -> list[str]:
        checking.set()
        checked.wait(PATIENCE_S)
        return []

    monkeypatch.setattr(outputs, "missing", missing)
    output = tmp_path / "output"
    async with supervised(tmp_path) as bench:
        supervisor = bench.supervisor
        await supervisor.claims.take("b", output)
        await supervisor.submit(make_batch(tmp_path, "two_files"), plan(1) + plan(2, refusal="unreadable")[1:])
        await anyio.to_thread.run_sync(checking.wait)
        # A retry finds the directory claimed, and both are handled in one turn.
        await supervisor.claims.take("b", output)
        supervisor.post(ResultsChecked(batch_id="b", check=1, missing=()))
        supervisor.post(ChangeRequested(verb="retry", batch_id="b"))
        await bench.finished()
        with pytest.raises(outputs.OutputInUse):
            outputs.claim(output)
        bench.updates.clear()
        checked.set()
        await bench.finished()
        os.close(outputs.claim(output))


async def test_two_that_claim_for_one_batch_at_once_do_not_keep_each_other_out(tmp_path: Path) -> None:
    claims = Claims(lambda batch_id: False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(claims.take, "b", tmp_path)
        tasks.start_soon(claims.take, "b", tmp_path)
    claims.give_back("b")
    os.close(outputs.claim(tmp_path))
