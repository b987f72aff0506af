"""The nodes as the daemon sees them: orders that wait for their answers, and windows that run there."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

import anyio

from gpusched.core.failures import Exit
from gpusched.core.model import Device, DeviceChoice, WindowResult
from gpusched.engines.attendance import OnMessage, OnStuck
from gpusched.engines.engine import (
    End,
    Found,
    LaunchRefused,
    NoMemoryToFork,
    Verdict,
    WindowAttendant,
    Withdrawn,
    WorkloadNotLoadable,
)
from gpusched.engines.local.groups import KILL_GRACE_S
from gpusched.engines.ray import frames
from gpusched.engines.ray.frames import Order
from gpusched.engines.ray.link import Bridge
from gpusched.errors import LaunchError
from gpusched.worker.messages import PipeMessage

#: commits the result that has come with the end of a window's process, and keeps the log of one that failed
Receive = Callable[[frames.Ended], Awaitable[PipeMessage | None]]
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
        self.windows: dict[int, RayWindow] = {}
        self._verdicts: dict[int, Callable[[Verdict], None]] = {}
        #: inputs that it has, or that are under way to it, by their digest
        self.inputs: dict[str, asyncio.Future[None]] = {}
        self._bridge = bridge
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._lost = False

    def send(self, order: Order) -> None:
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
            raise self._loss()
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
            case frames.Said(id=id_, message=message) if id_ in self.windows:
                self.windows[id_].hear(message)
            case frames.Stuck(id=id_, trouble=trouble) if id_ in self.windows:
                self.windows[id_].be_stuck(trouble)
            case frames.Ended(id=id_) if id_ in self.windows:
                self.windows.pop(id_).end(report)
            case frames.Judged(id=id_, verdict=verdict) if id_ in self._verdicts:
                self._verdicts[id_](verdict)
            case frames.Refused(id=id_) if id_ in self._answers and not self._answers[id_].done():
                self._answers[id_].set_exception(_error(report))
            case (
                frames.Launched()
                | frames.Staged()
                | frames.Fetched()
                | frames.Done()
                | frames.LogRead()
                | frames.Left()
            ):
                answer = self._answers.get(report.id)
                if answer is not None and not answer.done():
                    answer.set_result(report)

    def end(self) -> None:
        """Tell everyone who waits that the node is lost."""
        self._lost = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(self._loss())
        for window in tuple(self.windows.values()):
            window.end(frames.Ended(id=0, end=NODE_LOST))
        self.windows.clear()

    def _loss(self) -> LaunchRefused:
        return LaunchRefused(reason=f"the node {self.host} is lost")


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

    def __init__(self, node: Member, number: int, *, receive: Receive | None = None) -> None:
        """`receive` commits a result that comes with the end of the process; None: it is committed where files are
        shared.
        """
        self.pid = 0
        self._node = node
        self._number = number
        self._receive = receive
        self._ended: asyncio.Future[frames.Ended] = asyncio.get_running_loop().create_future()
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
            ended = await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self.signal(signal.SIGKILL)
            with anyio.move_on_after(KILL_GRACE_S, shield=True):
                await asyncio.shield(self._ended)
            raise
        if self._receive is not None and (result := await self._receive(ended)) is not None:
            on_message(result)
        if self._failure is not None:
            raise self._failure
        return ended.end

    def hear(self, message: PipeMessage) -> None:
        if self._on_message is None:
            self._unheard.append(message)
            return
        if isinstance(message, WindowResult) and self._receive is not None:
            return  # it counts once it is committed here
        try:
            self._on_message(message)
        except BaseException as error:  # raised to the caller of wait(), which is where it belongs
            self._failure = error
            self._on_message = lambda message: None
            self.signal(signal.SIGKILL)

    def be_stuck(self, trouble: str) -> None:
        if self._on_stuck is not None:
            self._on_stuck(trouble)

    def end(self, ended: frames.Ended) -> None:
        if not self._ended.done():
            self._ended.set_result(ended)


def attend(
    tasks: set[asyncio.Task[None]], launching: Coroutine[Any, Any, RayWindow], attendant: WindowAttendant
) -> None:
    """Let an attendant hear of a window, in a task that is in `tasks` until it has ended."""
    task = asyncio.get_running_loop().create_task(_attended(launching, attendant))
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _attended(launching: Coroutine[Any, Any, RayWindow], attendant: WindowAttendant) -> None:
    try:
        window = await launching
    except (LaunchError, OSError) as error:
        attendant.refused(error)
        return
    attendant.started(window)
    attendant.ended(await window.wait(attendant.heard, attendant.stuck))
