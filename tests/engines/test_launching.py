"""The order in which windows reach their node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import anyio

from gpusched.core.model import Batch, PlannedWindow
from gpusched.engines.engine import WindowAttendant
from gpusched.engines.ray.launching import Launching, Ordered
from gpusched.engines.ray.members import Member
from gpusched.engines.ray.staging import Staging
from tests.core.support import batch, cpu, planned
from tests.waiting import PATIENCE_S


class Slow:
    """A staging that has the inputs of C at once, and those of B once `arrived`."""

    def __init__(self) -> None:
        self.arrived = anyio.Event()

    async def stage(self, node: Member, batch: Batch, planned: PlannedWindow) -> str:
        if planned.window.symbol == "B":
            await self.arrived.wait()
        return ""

    def tell_of(self, node: Member, output_dir: str, label: str) -> None:
        pass


async def test_a_window_that_is_ahead_does_not_overtake_the_one_that_has_the_slot() -> None:
    """Its node would start it in that slot, which is free there until the other one comes."""
    sent: list[Any] = []
    node = SimpleNamespace(windows={}, number=lambda: len(sent), send=sent.append)
    slow, attendant = Slow(), cast(WindowAttendant, SimpleNamespace())
    launching = Launching(cast(Staging, slow), lambda host: cast(Member, node))
    for symbol, at_once in (("B", 0), ("C", 1)):
        window = planned(symbol)
        launching.launch(
            Ordered(batch=batch(), planned=window, device=cpu(), attendant=attendant, log=symbol, at_once=at_once)
        )
    with anyio.fail_after(PATIENCE_S):
        await anyio.wait_all_tasks_blocked()
        assert sent == []
        slow.arrived.set()
        await anyio.wait_all_tasks_blocked()
    assert [order.log for order in sent] == ["B", "C"]
