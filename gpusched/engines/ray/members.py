"""The nodes as the daemon sees them: orders that wait for their answers, and windows that run there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from gpusched.core.failures import Exit
from gpusched.core.model import Device, DeviceChoice
from gpusched.engines.attendance import Awaited
from gpusched.engines.engine import (
    End,
    Found,
    LaunchRefused,
    NoMemoryToFork,
    Verdict,
    Withdrawn,
    WorkloadNotLoadable,
)
from gpusched.engines.ray import frames
from gpusched.engines.ray.link import Bridge
from gpusched.errors import LaunchError

NODE_LOST = End(exit=Exit(launcher_lost=True))


class Member:
    """A node, the orders that it has not answered, and its windows."""

    def __init__(self, host: str, bridge: Bridge) -> None:
        self.host = host
        self.found: Found | None = None
        #: monotonic instant of its last report
        self.heard_at = time.monotonic()
        self.silent = False
        self._last = 0
        #: windows by the numbers of the orders that launch them
        self.windows: dict[int, Awaited[RayWindow, frames.Ended]] = {}
        self._verdicts: dict[int, Callable[[Verdict], None]] = {}
        #: inputs that it has, or that are under way to it, by their digest
        self.inputs: dict[str, asyncio.Future[None]] = {}
        self._bridge = bridge
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._lost = False

    def send(self, order: frames.Order) -> None:
        """Send an order, unless the node is lost: its successor of the same name numbers its own orders."""
        if not self._lost:
            is_ahead = isinstance(order, frames.Launch) and order.at_once > 0
            may_wait = is_ahead or isinstance(order, frames.Kept | frames.Beat)
            self._bridge.send(self.host, frames.packed(order), may_wait=may_wait)

    def number(self) -> int:
        """The number of the next order that is answered."""
        self._last += 1
        return self._last

    async def asked(self, order: Any) -> Any:
        """Send an order and wait for its answer. Raises LaunchError if it is refused, or if the node is lost."""
        if self._lost:
            raise node_lost(self.host)
        answer = self._answers[order.id] = asyncio.get_running_loop().create_future()
        self.send(order)
        try:
            return await answer
        finally:
            self._answers.pop(order.id, None)

    async def judge(
        self,
        devices: Sequence[Device],
        wanted: DeviceChoice,
        tell: Callable[[Verdict], None],
        afresh: Collection[str],
    ) -> None:
        """Have the node try devices of its own, as `Engine.judge` does; nothing is told once it is lost."""
        number = self.number()
        self._verdicts[number] = tell
        ids = tuple(device.id for device in devices if device.id in afresh)
        with contextlib.suppress(LaunchError):
            await self.asked(frames.Judge(id=number, devices=tuple(devices), wanted=wanted, afresh=ids))
        del self._verdicts[number]

    def take(self, report: Any) -> None:
        match report:
            case frames.Launched(id=id_, pid=pid) if id_ in self.windows:
                self.windows[id_].started(RayWindow(self, id_, pid))
            case frames.Refused(id=id_) if id_ in self.windows:
                self.windows.pop(id_).refused(_error(report))
            case frames.Said(id=id_, message=message) if id_ in self.windows:
                self.windows[id_].heard(message)
            case frames.Stuck(id=id_, trouble=trouble) if id_ in self.windows:
                self.windows[id_].stuck(trouble)
            case frames.Ended(id=id_) if id_ in self.windows:
                self.windows.pop(id_).ended(report)
            case frames.Judged(id=id_, verdict=verdict) if id_ in self._verdicts:
                self._verdicts[id_](verdict)
            case frames.Refused(id=id_) if id_ in self._answers and not self._answers[id_].done():
                self._answers[id_].set_exception(_error(report))
            case frames.Staged() | frames.Fetched() | frames.Done() | frames.LogRead() | frames.Left():
                answer = self._answers.get(report.id)
                if answer is not None and not answer.done():
                    answer.set_result(report)

    def end(self) -> None:
        """Tell everyone who waits that the node is lost."""
        self._lost = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(node_lost(self.host))
        for window in self.windows.values():
            window.refused(node_lost(self.host))
            window.ended(frames.Ended(id=0, end=NODE_LOST))
        self.windows.clear()


def node_lost(host: str) -> LaunchRefused:
    return LaunchRefused(reason=f"the node {host} is lost")


def _error(refused: frames.Refused) -> LaunchError:
    match refused.kind:
        case "not_loadable":
            message = refused.message.partition("\n")[0]
            return WorkloadNotLoadable(message=message, traceback=refused.traceback)
        case "no_memory":
            return NoMemoryToFork()
        case "withdrawn":
            return Withdrawn()
    return LaunchRefused(reason=refused.message.partition("\n")[0])


class RayWindow:
    """The process of a window on a node."""

    def __init__(self, node: Member, number: int, pid: int) -> None:
        """`number`: of the order that has launched it."""
        self.pid = pid
        self._node = node
        self._number = number

    def signal(self, signum: int) -> None:
        if self._number in self._node.windows:
            self._node.send(frames.Signal(id=self._number, signum=signum))
