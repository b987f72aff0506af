"""Launches: a window's inputs go to its node, and then the order; it may be taken back before it starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from gpusched.core.model import Batch, Device, PlannedWindow, WindowResult
from gpusched.engines.attendance import Awaited
from gpusched.engines.engine import WindowAttendant, Withdrawn
from gpusched.engines.ray import frames
from gpusched.engines.ray.members import Member, RayWindow, node_lost
from gpusched.engines.ray.staging import Staging
from gpusched.engines.tasks import Tasks
from gpusched.errors import LaunchError
from gpusched.worker.messages import PipeMessage


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """A window that is to be launched; as `Engine.start` has it."""

    batch: Batch
    planned: PlannedWindow
    device: Device
    attendant: WindowAttendant
    log: str
    at_once: int


class Launching:
    """Launches windows on nodes; `node_of` knows the node that has a name now."""

    def __init__(self, staging: Staging | None, node_of: Callable[[str], Member | None]) -> None:
        """`staging`: None where files are shared."""
        self._staging = staging
        self._node_of = node_of
        #: batches as windows need them: with thousands of symbols they would be long orders
        self._short: dict[str, Batch] = {}
        #: windows that have not started, by their logs: the node and the number of the order, once that is sent
        self._pending: dict[str, tuple[Member, int] | None] = {}
        self._withdrawn: set[str] = set()
        #: windows whose orders have not been sent, in the order of their launches, by their logs: the device, and an
        #: event for the sending, or for its failure
        self._unsent: dict[str, tuple[str, asyncio.Event]] = {}
        self._attending = Tasks()

    def launch(self, window: Ordered) -> None:
        """Start the process of a window, and let its attendant hear of it; from now on the window can be taken back."""
        self._pending[window.log] = None
        self._unsent[window.log] = window.device.id, asyncio.Event()
        self._attending.start(self._attend(window))

    async def _attend(self, window: Ordered) -> None:
        attendant, staging = window.attendant, self._staging
        try:
            node, awaited = await self._launched(window)
        except (LaunchError, OSError) as error:
            attendant.refused(error)
            return

        def heard(message: PipeMessage) -> None:
            # A result that comes from a scratch directory counts once it is committed here.
            if staging is None or not isinstance(message, WindowResult):
                attendant.heard(message)

        attendant.started(awaited.process)
        ended = await awaited.wait(heard, attendant.stuck)
        if staging is not None:
            result = await staging.finish(node, window.batch, window.planned.window.label, window.log, ended)
            if result is not None:
                attendant.heard(result)
        attendant.ended(ended.end)

    async def _launched(self, window: Ordered) -> tuple[Member, Awaited[RayWindow, frames.Ended]]:
        """Send a node the inputs of a window and the order to launch it; wait until its process exists."""
        try:
            return await self._launch(window)
        finally:
            self._is_sent(window)
            del self._pending[window.log]
            self._withdrawn.discard(window.log)

    async def _launch(self, window: Ordered) -> tuple[Member, Awaited[RayWindow, frames.Ended]]:
        batch, label, host = window.batch, window.planned.window.label, window.device.host
        node = self._node_of(host)
        if node is None:
            raise node_lost(host)
        inputs = "" if self._staging is None else await self._staging.stage(node, batch, window.planned)
        if window.at_once:
            await self._earlier(window)
        if node is not self._node_of(host):
            raise node_lost(host)  # while its inputs were on their way
        if window.log in self._withdrawn:
            raise Withdrawn
        if self._staging is not None:
            self._staging.tell_of(node, batch.output_dir, label)
        if (short := self._short.get(batch.id)) is None:
            short = self._short[batch.id] = _shortened(batch)
        number = node.number()
        awaited = node.windows[number] = Awaited[RayWindow, frames.Ended]()
        self._pending[window.log] = node, number
        node.send(
            frames.Launch(
                id=number,
                batch=short,
                planned=window.planned,
                device=window.device,
                log=window.log,
                inputs=inputs,
                at_once=window.at_once,
            )
        )
        self._is_sent(window)
        return node, await awaited.launched()

    async def _earlier(self, window: Ordered) -> None:
        """Wait until the windows of the device that were launched before one that is ahead have been sent.

        Its inputs may be there first, and the node would start it in the slot that one of them holds.
        """
        for log, (device_id, sent) in list(self._unsent.items()):
            if log == window.log:
                return
            if device_id == window.device.id:
                await sent.wait()

    def _is_sent(self, window: Ordered) -> None:
        if window.log in self._unsent:
            _, sent = self._unsent.pop(window.log)
            sent.set()

    def withdraw(self, log: str) -> None:
        """Take back a window that has not started."""
        if log not in self._pending:
            return
        self._withdrawn.add(log)
        if (sent := self._pending[log]) is not None:
            node, number = sent
            node.send(frames.Withdraw(id=number))

    def forget(self, batch_id: str) -> None:
        self._short.pop(batch_id, None)


def _shortened(batch: Batch) -> Batch:
    """A batch as its windows need it."""
    return msgspec.structs.replace(batch, spec=msgspec.structs.replace(batch.spec, symbols=(), windows=()))
