"""The nodes as the daemon sees them: orders that wait for their answers, and windows that run there."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import anyio

from gpusched.core.failures import Exit
from gpusched.engines.engine import (
    End,
    Found,
    LaunchRefused,
    NoMemoryToFork,
    OnMessage,
    OnStuck,
    Verdict,
    WorkloadNotLoadable,
)
from gpusched.engines.local.groups import KILL_GRACE_S
from gpusched.engines.ray import frames
from gpusched.engines.ray.frames import Order
from gpusched.engines.ray.link import Bridge
from gpusched.errors import LaunchError
from gpusched.worker.messages import PipeMessage

NODE_LOST = End(exit=Exit(launcher_lost=True))


class Member:
    """A node, the orders that it has not answered, and its windows."""

    def __init__(self, host: str, bridge: Bridge) -> None:
        self.host = host
        self.found: Found | None = None
        self._last = 0
        self.windows: dict[int, RayWindow] = {}
        self.verdicts: dict[int, Callable[[Verdict], None]] = {}
        self._bridge = bridge
        self._answers: dict[int, asyncio.Future[Any]] = {}

    def send(self, order: Order) -> None:
        self._bridge.send(self.host, frames.packed(order))

    def number(self) -> int:
        """The number of the next order that is answered."""
        self._last += 1
        return self._last

    async def asked(self, order: Any) -> Any:
        """Send an order and wait for its answer. Raises LaunchError if it is refused, or if the node is lost."""
        answer = self._answers[order.id] = asyncio.get_running_loop().create_future()
        self.send(order)
        try:
            return await answer
        finally:
            self._answers.pop(order.id, None)

    def take(self, report: Any) -> None:
        match report:
            case frames.Said(id=id_, message=message) if id_ in self.windows:
                self.windows[id_].hear(message)
            case frames.Stuck(id=id_, trouble=trouble) if id_ in self.windows:
                self.windows[id_].be_stuck(trouble)
            case frames.Ended(id=id_, end=end) if id_ in self.windows:
                self.windows.pop(id_).end(end)
            case frames.Judged(id=id_, verdict=verdict) if id_ in self.verdicts:
                self.verdicts[id_](verdict)
            case frames.Refused(id=id_) if id_ in self._answers and not self._answers[id_].done():
                self._answers[id_].set_exception(_error(report))
            case frames.Launched() | frames.Done() | frames.LogRead() | frames.Left():
                answer = self._answers.get(report.id)
                if answer is not None and not answer.done():
                    answer.set_result(report)

    def end(self) -> None:
        """Tell everyone who waits that the node is lost."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LaunchRefused(reason=f"the node {self.host} is lost"))
        for window in tuple(self.windows.values()):
            window.end(NODE_LOST)
        self.windows.clear()


def _error(refused: frames.Refused) -> LaunchError:
    match refused.kind:
        case "not_loadable":
            message = refused.message.partition("\n")[0]
            return WorkloadNotLoadable(message=message, traceback=refused.traceback)
        case "no_memory":
            return NoMemoryToFork()
    return LaunchRefused(reason=refused.message.partition("\n")[0])


class RayWindow:
    """The process of a window on a node."""

    def __init__(self, node: Member, number: int) -> None:
        self.pid = 0
        self._node = node
        self._number = number
        self._ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._unheard: list[PipeMessage] = []
        self._on_message: OnMessage | None = None
        self._on_stuck: OnStuck | None = None
        self._failure: BaseException | None = None

    def signal(self, signum: int) -> None:
        if not self._ended.done():
            self._node.send(frames.Signal(id=self._number, signum=signum))

    async def wait(self, on_message: OnMessage, on_stuck: OnStuck | None = None) -> End:
        self._on_message, self._on_stuck = on_message, on_stuck
        unheard, self._unheard = self._unheard, []
        for message in unheard:
            self.hear(message)
        try:
            end = await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self.signal(signal.SIGKILL)
            with anyio.move_on_after(KILL_GRACE_S, shield=True):
                await asyncio.shield(self._ended)
            raise
        if self._failure is not None:
            raise self._failure
        return end

    def hear(self, message: PipeMessage) -> None:
        if self._on_message is None:
            self._unheard.append(message)
            return
        try:
            self._on_message(message)
        except BaseException as error:  # raised to the caller of wait(), which is where it belongs
            self._failure = error
            self._on_message = lambda message: None
            self.signal(signal.SIGKILL)

    def be_stuck(self, trouble: str) -> None:
        if self._on_stuck is not None:
            self._on_stuck(trouble)

    def end(self, end: End) -> None:
        if not self._ended.done():
            self._ended.set_result(end)
