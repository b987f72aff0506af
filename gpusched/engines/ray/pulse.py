"""Signs of life: those that a supervisor gives its nodes, and the fate of nodes that give none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import anyio

from gpusched.engines.engine import Heard, Noticed, Silent
from gpusched.engines.ray import frames
from gpusched.engines.ray.members import Member

#: called with news of a node
Notice = Callable[[Noticed], None]


async def beat(nodes: Callable[[], Iterable[Member]], lose: Callable[[Member, str], None], notice: Notice) -> None:
    """Give signs of life to the nodes until cancelled, and take note of those that give none."""
    late_s = 0.0
    while True:
        for node in nodes():
            node.send(frames.Beat())
            node.heard_at += late_s
            silent_s = time.monotonic() - node.heard_at
            if silent_s >= frames.LOST_S:
                lose(node, f"nothing was heard of it for {frames.LOST_S:g} s")
            elif silent_s >= frames.SILENT_S and not node.silent and node.found is not None:
                node.silent = True
                notice(Silent(node.host, "nothing is heard of it"))
        before = time.monotonic()
        await anyio.sleep(frames.BEAT_S)
        # Where this process was stopped or busy, reports lie unread.
        late_s = max(0.0, time.monotonic() - before - 2 * frames.BEAT_S)


def heard(node: Member, notice: Notice) -> None:
    """Take note that a node has said something."""
    node.heard_at = time.monotonic()
    if node.silent:
        node.silent = False
        notice(Heard(node.host))
