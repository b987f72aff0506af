"""The nodes of a Ray cluster as an engine. See the package.

With `engine.shared_root`, data, outputs, cache and state directory are on a file system that all nodes share, at the
same paths; otherwise inputs are sent to the nodes, and results come back. Surveys run on this machine. A window
whose node is lost is requeued by the scheduler, which hears of the loss first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import msgspec

from gpusched import __version__
from gpusched.config import Config
from gpusched.core.events import DeviceLost, DeviceRead, Event, HostRead
from gpusched.core.model import Batch, BatchSpec, Device, DeviceChoice, PlannedWindow, WindowResult
from gpusched.devices.kind import Answers, Discovery
from gpusched.engines.attendance import OnMessage
from gpusched.engines.condition import Condition, TroubleChanged
from gpusched.engines.engine import (
    Found,
    Gone,
    LeftBehind,
    LogPiece,
    Noticed,
    Verdict,
    WindowAttendant,
)
from gpusched.engines.local.engine import LocalEngine
from gpusched.engines.ray import frames
from gpusched.engines.ray.launching import Launching, Ordered
from gpusched.engines.ray.link import Bridge
from gpusched.engines.ray.makes import Makes
from gpusched.engines.ray.members import Member
from gpusched.engines.ray.pulse import beat, heard
from gpusched.engines.ray.staging import Staging
from gpusched.errors import ConfigError, LaunchError
from gpusched.protocol import TroubleKind
from gpusched.worker.messages import Inspection, Needs

#: seconds in which a cluster that is started here, or its first node, must answer
START_S = 120.0
#: seconds after which a cluster that was lost is looked for again
AGAIN_S = 2.0
#: seconds that nodes have to say what they leave behind
ABANDON_S = 3.0
#: seconds that nodes have at the end to forget results that are committed here
SETTLE_S = 3.0

_NONE_HERE = Discovery(devices=(), notes=())


class NoCluster(ConfigError):
    problem = "the Ray cluster at {address} cannot be used: {why}"
    remedy = "see `ray status`, engine.address and engine.python, and {log}"


class RayEngine:
    """See the module. Use as an async context manager: entering it waits for the nodes that the cluster has."""

    def __init__(self, config: Config, state_dir: Path, *, mark: str | None = None, standing: bool = False) -> None:
        self._config = config
        self._state_dir = state_dir
        self._standing = standing
        #: this machine, for surveys
        self.here = LocalEngine(config, state_dir, _NONE_HERE, mark=mark, standing=standing)
        self._staging = None if config.engine.shared_root else Staging(self.here)
        self.condition = self.here.condition
        self.cache_dir = config.cache.dir
        self.machines: tuple[Found, ...] = ()
        self._nodes: dict[str, Member] = {}
        self._launching = Launching(self._staging, self._nodes.get)
        #: nodes that were there at the start and have not joined yet; None: the bridge has not said yet
        self._awaited: set[str] | None = None
        self._started = asyncio.Event()
        self._bridge_lost = asyncio.Event()
        self._why = ""
        self._logs: dict[str, Member] = {}
        # Nobody hears of what happens before `run`: whoever calls that knows `machines`.
        self._post: Callable[[Event], None] = lambda event: None
        self._notice: Callable[[Noticed], None] = lambda noticed: None
        self._bridge: Bridge
        self._makes = Makes()
        self._beating: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        """Raises NoCluster."""
        self._bridge = await Bridge.start(self._config, self._state_dir, self._hear)
        pulse = beat(lambda: tuple(self._nodes.values()), self._give_up, lambda noticed: self._notice(noticed))
        self._beating = asyncio.create_task(pulse)
        with anyio.move_on_after(START_S):
            await self._started.wait()
        if not self._nodes:
            self._beating.cancel()
            await self._bridge.close()
            why = self._why or f"no node has answered within {START_S:g} s"
            raise NoCluster(address=self._config.engine.address, why=why, log=self._bridge.log)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._staging is not None:
            with anyio.move_on_after(SETTLE_S, shield=True):
                await self._staging.settle()
        self._beating.cancel()
        with anyio.CancelScope(shield=True):
            await self._bridge.close()
            await self.here.__aexit__(kind, error, trace)

    # -- the bridge's tidings ------------------------------------------------------------------------------------------

    def _hear(self, tidings: frames.Tidings) -> None:
        match tidings:
            case frames.Carry(host=host, frames=carried):
                if (node := self._nodes.get(host)) is not None:
                    heard(node, self._notice)
                    try:
                        reports = [report for data in carried for report in frames.reports_decoder.decode(data)]
                    except msgspec.MsgspecError:
                        self._refuse(node, f"it is not understood here: gpusched {__version__} must be installed there")
                        return
                    for report in reports:
                        self._take(node, report)
            case frames.Connected(hosts=hosts):
                self._awaited = set(hosts)
                self.condition.clear("node", "")
            case frames.NodeUp(host=host):
                node = self._nodes[host] = Member(host, self._bridge)
                node.send(self._begin(host))
                self.condition.clear("node", host)
            case frames.NodeDown(host=host, reason=reason):
                self._lose(host, reason)
            case frames.NodeWaits(host=host):
                why = "its processors or GPUs are reserved by others in Ray, or it does not answer"
                self._why = f"the node {host} is not in the pool: {why}"
                self.condition.tell("node", host, self._why)
                self._await_no_more(host)
            case frames.NodeLeft(host=host):
                self.condition.clear("node", host)
            case frames.Failed(why=why):
                self._why = why
                for host in tuple(self._nodes):
                    self._lose(host, why)
                self._started.set()
                self._bridge_lost.set()

    def _begin(self, host: str) -> frames.Begin:
        return frames.Begin(
            host=host,
            version=__version__,
            cwd=str(Path.cwd()),
            state_dir=str(self._state_dir / "nodes" / host),
            logs_dir=str(self.here.logs_dir),
            cache_dir=str(self.cache_dir),
            workload=self._config.run.workload,
            allow_cpu_opencl=self._config.devices.allow_cpu_opencl,
            standing=self._standing,
            scratch="" if self._staging is None else self._config.engine.scratch,
        )

    def _lose(self, host: str, reason: str) -> None:
        """The scheduler hears of the loss before its windows end, so that it does not blame them."""
        self._why = f"the node {host} is lost: {reason}"
        node = self._nodes.pop(host, None)
        if node is not None:
            self._logs = {log: of for log, of in self._logs.items() if of is not node}
            if node.found is not None:
                self.machines = tuple(found for found in self.machines if found.machine.host != host)
                self._notice(Gone(host, self._why))
            node.end()
        if self._nodes:  # without any other, it is awaited: the bridge tries to hold it again
            self._await_no_more(host)

    def _await_no_more(self, host: str) -> None:
        if self._awaited is not None:
            self._awaited.discard(host)
            if not self._awaited:
                self._started.set()

    def _take(self, node: Member, report: frames.Report) -> None:
        match report:
            case frames.Joined(machine=machine, discovery=discovery, make=make):
                if why := self._makes.refusal(make):
                    self._refuse(node, why)
                else:
                    self._joined(node, Found(machine, discovery))
            case frames.Unfit(why=why):
                self._refuse(node, why)
            case frames.Read(reading=reading):
                self._post(DeviceRead(reading=reading))
            case frames.MemoryRead(reading=memory):
                self._post(HostRead(reading=memory))
            case frames.Lost(device_id=device_id, reason=reason):
                self._post(DeviceLost(device_id=device_id, reason=reason))
            case frames.AnswersAgain(device_id=device_id):
                self._notice(Answers(device_id))
            case frames.Troubled(change=change):
                _pass_on(change, node.host, self.condition)
            case _:
                node.take(report)

    def _refuse(self, node: Member, why: str) -> None:
        self._lose(node.host, why)
        self._why = f"the node {node.host} is refused: {why}"
        self.condition.tell("node", node.host, self._why)
        self._bridge.release(node.host)
        self._await_no_more(node.host)

    def _joined(self, node: Member, found: Found) -> None:
        node.found = found
        self.machines = (*(one for one in self.machines if one.machine.host != node.host), found)
        self._notice(found)
        self._await_no_more(node.host)

    # -- the devices ---------------------------------------------------------------------------------------------------

    async def run(self, post: Callable[[Event], None], notice: Callable[[Noticed], None]) -> None:
        self._post, self._notice = post, notice
        while True:
            await self._bridge_lost.wait()
            self._bridge_lost.clear()
            text = f"the Ray cluster at {self._config.engine.address} is lost ({self._why}); it is looked for again"
            self.condition.tell("node", "", text)
            await self._bridge.close()
            await anyio.sleep(AGAIN_S)
            self._bridge = await Bridge.start(self._config, self._state_dir, self._hear)

    def _give_up(self, node: Member, reason: str) -> None:
        self._lose(node.host, reason)
        self._bridge.release(node.host)

    def watch(self, devices: Iterable[Device]) -> None:
        watched = tuple(devices)
        for host, node in self._nodes.items():
            node.send(frames.Watch(devices=tuple(device for device in watched if device.host == host)))

    async def judge(
        self,
        devices: Iterable[Device],
        wanted: DeviceChoice,
        tell: Callable[[Verdict], None],
        *,
        afresh: Collection[str] = (),
    ) -> None:
        by_host: dict[str, list[Device]] = {}
        for device in devices:
            by_host.setdefault(device.host, []).append(device)
        async with anyio.create_task_group() as tasks:
            for host, own in by_host.items():
                if (node := self._nodes.get(host)) is not None:
                    tasks.start_soon(node.judge, own, wanted, tell, afresh)

    def read_host(self) -> HostRead:
        return self.here.read_host()

    # -- processes -----------------------------------------------------------------------------------------------------

    async def preload(self, spec: BatchSpec, needed_by: Needs = "window") -> None:
        if needed_by == "survey":
            await self.here.preload(spec, needed_by)
            return

        refusals: list[LaunchError] = []

        async def ask(node: Member) -> None:
            try:
                await node.asked(frames.Preload(id=node.number(), spec=spec, needed_by=needed_by))
            except LaunchError as error:
                refusals.append(error)

        async with anyio.create_task_group() as tasks:
            for node in tuple(self._nodes.values()):
                tasks.start_soon(ask, node)
        if refusals:
            raise refusals[0]

    def start(
        self,
        batch: Batch,
        planned: PlannedWindow,
        device: Device,
        attendant: WindowAttendant,
        *,
        log: str,
        at_once: int = 0,
    ) -> None:
        if (node := self._nodes.get(device.host)) is not None:
            self._logs[log] = node
        self._launching.launch(
            Ordered(batch=batch, planned=planned, device=device, attendant=attendant, log=log, at_once=at_once)
        )

    def withdraw(self, log: str) -> None:
        self._launching.withdraw(log)

    async def inspect(self, job: Inspection, on_message: OnMessage, *, log: str) -> str:
        return await self.here.inspect(job, on_message, log=log)

    def interrupt(self, spec: BatchSpec) -> None:
        for node in self._nodes.values():
            node.send(frames.Interrupt(spec=spec))

    async def abandon(self) -> list[LeftBehind]:
        left = await self.here.abandon()

        async def ask(node: Member) -> None:
            with contextlib.suppress(LaunchError):  # nothing is left on a lost node
                left.extend((await node.asked(frames.Abandon(id=node.number()))).left)

        with anyio.move_on_after(ABANDON_S, shield=True):
            async with anyio.create_task_group() as tasks:
                for node in tuple(self._nodes.values()):
                    tasks.start_soon(ask, node)
        for node in self._nodes.values():
            node.end()
        return left

    async def sweep(self) -> tuple[int, ...]:
        return await self.here.sweep()

    @property
    def starts(self) -> int:
        return self.here.starts

    # -- results and logs ----------------------------------------------------------------------------------------------

    def verify(self, batch: Batch, planned: PlannedWindow) -> WindowResult | None:
        return self.here.verify(batch, planned)

    def log_path(self, log: str) -> Path:
        return self.here.log_path(log)

    async def read_log(self, log: str, offset: int) -> LogPiece | None:
        node = self._logs.get(log)
        if node is None and (piece := await self.here.read_log(log, offset)) is not None:
            return piece
        answer = await _read([node] if node is not None else [*self._nodes.values()], log, offset)
        if answer is not None:
            self._logs[log], piece = answer
            return piece
        return None if node is None else await self.here.read_log(log, offset)

    async def remove_logs(self, batch_id: str) -> None:
        await self.here.remove_logs(batch_id)
        self._logs = {log: node for log, node in self._logs.items() if not log.startswith(f"{batch_id}/")}
        self._launching.forget(batch_id)
        if self._staging is not None:
            self._staging.forget(batch_id)
            for node in self._nodes.values():
                node.send(frames.RemoveLogs(batch_id=batch_id))


async def _read(nodes: list[Member], log: str, offset: int) -> tuple[Member, LogPiece] | None:
    """A piece of a log from the first node that has it."""
    for node in nodes:
        with contextlib.suppress(LaunchError):
            piece: LogPiece | None = (await node.asked(frames.ReadLog(id=node.number(), log=log, offset=offset))).piece
            if piece is not None:
                return node, piece
    return None


def _pass_on(change: TroubleChanged, host: str, condition: Condition) -> None:
    """Report the trouble of a node as one of this engine."""
    trouble, about = change.trouble, f"{host}/{change.trouble.about}"
    kind: TroubleKind = "leftover" if trouble.kind == "leftover" else "launcher"
    if change.present:
        condition.tell(kind, about, f"on {host}: {trouble.text}")
    else:
        condition.clear(kind, about)
