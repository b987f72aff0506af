"""Launches: a window's inputs go to its node, and then the order; it may be taken back before it starts."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from functools import partial

import msgspec

from gpusched.core.model import Batch, Device, PlannedWindow
from gpusched.engines.engine import LaunchRefused, Withdrawn
from gpusched.engines.ray import frames
from gpusched.engines.ray.members import Member, RayWindow
from gpusched.engines.ray.staging import Staging


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

    def launch(
        self, batch: Batch, planned: PlannedWindow, device: Device, *, log: str, at_once: int
    ) -> Coroutine[None, None, RayWindow]:
        """Start the process of a window, and wait until it exists; from this call on it can be taken back."""
        self._pending[log] = None
        return self._settled(log, self._launch(batch, planned, device, log=log, at_once=at_once))

    async def _settled(self, log: str, launching: Coroutine[None, None, RayWindow]) -> RayWindow:
        try:
            return await launching
        finally:
            del self._pending[log]
            self._withdrawn.discard(log)

    async def _launch(
        self, batch: Batch, planned: PlannedWindow, device: Device, *, log: str, at_once: int
    ) -> RayWindow:
        node = self._node_of(device.host)
        if node is None:
            raise LaunchRefused(reason=f"the node {device.host} is lost")
        staging = self._staging
        inputs = "" if staging is None else await staging.stage(node, batch, planned)
        number = node.number()
        if node is not self._node_of(device.host):
            raise LaunchRefused(reason=f"the node {device.host} is lost")  # while its inputs were on their way
        if log in self._withdrawn:
            raise Withdrawn
        if staging is not None:
            staging.tell_of(node, batch.output_dir, planned.window.label)
        receive = None if staging is None else partial(staging.finish, node, batch, planned.window.label, log)
        window = node.windows[number] = RayWindow(node, number, receive=receive)
        if (short := self._short.get(batch.id)) is None:
            short = self._short[batch.id] = _shortened(batch)
        order = frames.Launch(
            id=number, batch=short, planned=planned, device=device, log=log, inputs=inputs, at_once=at_once
        )
        self._pending[log] = node, number
        try:
            window.pid = (await node.asked(order)).pid
        except BaseException:
            window.signal(signal.SIGKILL)
            node.windows.pop(number, None)  # it is gone already if the node is lost
            raise
        return window

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
