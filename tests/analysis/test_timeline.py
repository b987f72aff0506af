"""The timeline of a report where windows ran on nodes."""

from __future__ import annotations

import msgspec

from gpusched.analysis import operations
from gpusched.core.model import Slot
from gpusched.protocol import AttemptLine
from tests.analysis.reports import line, report


def test_a_timeline_has_the_nodes_and_a_row_for_each_slot() -> None:
    lines = [
        msgspec.structs.replace(line(number), slot=Slot(index, "GPU-1", "n1"))
        for number, index in enumerate((0, 1, 0, -1))
    ]
    attempt = AttemptLine(
        attempt=1, slot=Slot(-3, "GPU-1", "n1"), placed_at=1000.0, pid=None, started_at=None, ended_at=1001.0,
        ending="node_lost", message="cut", traceback=None, usage=None,
    )  # fmt: skip
    retried = [(lines[0].key.label, attempt)]
    drawn = operations.timeline(report(lines, retried=retried))
    assert [name for name in ("0 n1:GPU-1", "1 n1:GPU-1", '"n1:GPU-1"') if name not in drawn] == []
    assert "cut" not in drawn, "it waited for a slot, and never had one"
