"""The agent: the local engine of a node, driven by frames. `python -m gpusched.engines.ray.agent DESCRIPTOR`.

It is a process of its own, not a fork of the actor that starts it: Ray's threads would not survive that. When its
socket closes, it ends everything that it has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import anyio
import msgspec

from gpusched import __version__
from gpusched.config import Cache, Config, Devices, Run
from gpusched.core.events import DeviceLost, DeviceRead, Event, HostRead
from gpusched.core.model import CPU
from gpusched.devices.kind import Answers, Discovery
from gpusched.devices.nvidia.gpus import look
from gpusched.devices.processors import this_machine
from gpusched.engines.engine import Found, Launched, NoMemoryToFork, Noticed, WorkloadNotLoadable
from gpusched.engines.local.engine import LocalEngine
from gpusched.engines.ray import frames
from gpusched.engines.ray.frames import (
    Abandon,
    AnswersAgain,
    Begin,
    Done,
    Ended,
    Interrupt,
    Joined,
    Judge,
    Judged,
    Launch,
    Left,
    LogRead,
    Lost,
    MemoryRead,
    Order,
    Preload,
    Read,
    ReadLog,
    Refused,
    Report,
    Said,
    Signal,
    Stuck,
    Troubled,
    Unfit,
    Watch,
)
from gpusched.errors import LaunchError


class Agent:
    """Carries out orders on this machine, which is the node `begin.host`."""

    def __init__(self, begin: Begin, writer: asyncio.StreamWriter) -> None:
        self._begin = begin
        self._writer = writer
        self._windows: dict[int, Launched] = {}
        found = look()
        config = Config(
            run=Run(workload=begin.workload),
            cache=Cache(dir=Path(begin.cache_dir)),
            devices=Devices(allow_cpu_opencl=begin.allow_cpu_opencl),
        )
        self.engine = LocalEngine(config, Path(begin.state_dir), found, standing=begin.standing)
        self.engine.logs_dir = Path(begin.logs_dir)
        self.engine.condition.heard_by(lambda change: self._report(Troubled(change=change)))
        self._machine = msgspec.structs.replace(this_machine(), host=begin.host)

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Report this machine, then carry out orders until the socket closes."""
        (here,) = self.engine.machines
        self._join(here.discovery)
        async with self.engine, anyio.create_task_group() as tasks:
            tasks.start_soon(self.engine.run, self._post, self._notice)
            while (data := await frames.next_frame(reader)) is not None:
                work = self._carry_out(frames.order_decoder.decode(data))
                if work is not None:
                    tasks.start_soon(_awaited, work)
            tasks.cancel_scope.cancel()

    def _report(self, report: Report) -> None:
        self._writer.write(frames.framed(frames.packed(report)))

    def _join(self, discovery: Discovery) -> None:
        devices = tuple(msgspec.structs.replace(device, host=self._begin.host) for device in discovery.devices)
        self._report(Joined(machine=self._machine, discovery=msgspec.structs.replace(discovery, devices=devices)))

    def _post(self, event: Event) -> None:
        host = self._begin.host
        match event:
            case DeviceRead(reading=reading):
                if reading.device_id == CPU:
                    reading = msgspec.structs.replace(reading, device_id=f"{CPU}@{host}")
                self._report(Read(reading=reading))
            case DeviceLost(device_id=device_id, reason=reason):
                self._report(Lost(device_id=device_id, reason=reason))
            case HostRead(reading=memory):
                self._report(MemoryRead(reading=msgspec.structs.replace(memory, host=host)))

    def _notice(self, noticed: Noticed) -> None:
        match noticed:
            case Answers(device_id=device_id):
                self._report(AnswersAgain(device_id=device_id))
            case Found(discovery=discovery):
                self._join(discovery)

    # -- orders --------------------------------------------------------------------------------------------------------

    def _carry_out(self, order: Order) -> Coroutine[Any, Any, None] | None:
        """Carry out an order at once, or return the work that it takes."""
        match order:
            case Launch():
                return self._launch(order)
            case Preload():
                return self._preload(order)
            case Judge():
                return self._judge(order)
            case ReadLog():
                return self._read_log(order)
            case Abandon():
                return self._abandon(order)
            case Signal(id=id_, signum=signum) if id_ in self._windows:
                self._windows[id_].signal(signum)
            case Interrupt(spec=spec):
                self.engine.interrupt(spec)
            case Watch(devices=devices):
                self.engine.watch(devices)
        return None

    async def _launch(self, order: Launch) -> None:
        try:
            window = await self.engine.launch(order.batch, order.planned, order.device, log=order.log)
        except (LaunchError, OSError) as error:
            self._report(_refusal(order.id, error))
            return
        self._windows[order.id] = window
        self._report(frames.Launched(id=order.id, pid=window.pid))
        try:
            end = await window.wait(
                lambda message: self._report(Said(id=order.id, message=message)),
                lambda trouble: self._report(Stuck(id=order.id, trouble=trouble)),
            )
        finally:
            del self._windows[order.id]
        self._report(Ended(id=order.id, end=end))

    async def _preload(self, order: Preload) -> None:
        try:
            await self.engine.preload(order.spec, order.needed_by)
        except (LaunchError, OSError) as error:
            self._report(_refusal(order.id, error))
        else:
            self._report(Done(id=order.id))

    async def _judge(self, order: Judge) -> None:
        await self.engine.judge(
            order.devices, order.wanted, lambda verdict: self._report(Judged(id=order.id, verdict=verdict))
        )
        self._report(Done(id=order.id))

    async def _read_log(self, order: ReadLog) -> None:
        self._report(LogRead(id=order.id, piece=await self.engine.read_log(order.log, order.offset)))

    async def _abandon(self, order: Abandon) -> None:
        self._report(Left(id=order.id, left=tuple(await self.engine.abandon())))


async def _awaited(work: Coroutine[Any, Any, None]) -> None:
    await work


def _refusal(id_: int, error: LaunchError | OSError) -> Refused:
    match error:
        case WorkloadNotLoadable():
            return Refused(id=id_, kind="not_loadable", message=str(error), traceback=error.traceback)
        case NoMemoryToFork():
            return Refused(id=id_, kind="no_memory", message=str(error))
    return Refused(id=id_, kind="refused", message=str(error))


async def serve(descriptor: int) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor), limit=1 << 26)
    data = await frames.next_frame(reader)
    if data is None:
        return
    begin = frames.order_decoder.decode(data)
    assert isinstance(begin, Begin)
    why = _unfit(begin)
    if why is not None:
        writer.write(frames.framed(frames.packed(Unfit(why=why))))
        await writer.drain()
        return
    await Agent(begin, writer).run(reader)


def _unfit(begin: Begin) -> str | None:
    """Why this machine cannot be a node; None if it can."""
    if begin.version != __version__:
        return f"gpusched {__version__} is installed there, and {begin.version} here"
    try:
        os.chdir(begin.cwd)
        Path(begin.state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return f"{error.filename} cannot be used there ({error.strerror}): the nodes must share their files"
    return None


def _as_a_daemon_would() -> None:
    """Undo what Ray does to the processes of an actor: priority, the kernel's victim of choice, thread caps."""
    os.environ.pop("OMP_NUM_THREADS", None)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("0")
    for signum in (signal.SIGINT, signal.SIGTERM):
        # It ends with its socket, and its windows with it. A handler, not SIG_IGN, which the windows would inherit.
        signal.signal(signum, lambda *_: None)


if __name__ == "__main__":
    _as_a_daemon_would()
    asyncio.run(serve(int(sys.argv[1])))
