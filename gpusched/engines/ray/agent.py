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
import time
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from gpusched.config import Cache, Config, Devices, Run
from gpusched.core.events import DeviceLost, DeviceRead, Event, HostRead
from gpusched.core.model import CPU
from gpusched.devices.kind import Answers, Discovery
from gpusched.devices.nvidia.gpus import look
from gpusched.devices.processors import this_machine
from gpusched.engines.engine import Found, Noticed
from gpusched.engines.local.engine import LocalEngine
from gpusched.engines.ray import connection, frames
from gpusched.engines.ray.connection import Gathering
from gpusched.engines.ray.makes import make_here
from gpusched.engines.ray.scratch import Scratch, scratch_for
from gpusched.engines.ray.windows import Windows, refusal
from gpusched.errors import LaunchError

#: seconds for which reports gather: each batch costs Ray milliseconds of CPU, and a short window has one, with its end
LINGER_S = 0.25


class Agent:
    """Carries out orders on this machine, which is the node `begin.host`."""

    def __init__(self, begin: frames.Begin, scratch: Scratch | None, writer: asyncio.StreamWriter) -> None:
        """`scratch`: of a node that shares no files with the supervisor."""
        self._begin = begin
        self._scratch = scratch
        self._writer = writer
        self._outgoing: list[frames.Report] = []
        self._flushing = Gathering(self._flush, LINGER_S)
        self._over = asyncio.Event()
        #: logs are read and removed in the order of the requests
        self._logs = anyio.Lock()
        self._heard_at = time.monotonic()
        config = Config(
            run=Run(workload=begin.workload),
            cache=Cache(dir=scratch.cache if scratch else Path(begin.cache_dir)),
            devices=Devices(allow_cpu_opencl=begin.allow_cpu_opencl),
        )
        self.engine = LocalEngine(
            config,
            scratch.state if scratch else Path(begin.state_dir),
            look(),
            logs_dir=scratch.logs if scratch else Path(begin.logs_dir),
            standing=begin.standing,
        )
        self.engine.condition.heard_by(lambda change: self._report(frames.Troubled(change=change)))
        self._windows = Windows(self.engine, scratch, self._report, self._work, self._leave)
        self._machine = msgspec.structs.replace(this_machine(), host=begin.host)

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Report this machine, then carry out orders until the socket closes."""
        (here,) = self.engine.machines
        self._join(here.discovery)
        asyncio.get_running_loop().set_exception_handler(self._fail)
        async with self.engine, anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self.engine.run, self._post, self._notice)
            self._tasks.start_soon(self._obey, reader)
            self._tasks.start_soon(self._beat)
            await self._over.wait()
            self._windows.gate.close()
            self._tasks.cancel_scope.cancel()

    def _fail(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End after an error in a callback, as after one in a task: the window that it was about might have no end."""
        loop.default_exception_handler(context)
        if "handle" in context:
            self._over.set()

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in a task, unless all of them have been ended."""
        if self._over.is_set():
            work.close()
        else:
            self._tasks.start_soon(_awaited, work)

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        while (data := await connection.next_frame(reader)) is not None:
            self._heard_at = time.monotonic()
            work = self._carry_out(frames.order_decoder.decode(data))
            if work is not None:
                self._work(work)
        self._over.set()

    async def _beat(self) -> None:
        """Give signs of life, and end everything if there are none of the supervisor."""
        while time.monotonic() < self._heard_at + frames.LEASE_S:
            self._report(frames.Beats())
            before = time.monotonic()
            await anyio.sleep(frames.BEAT_S)
            # While this process itself was stopped, it could hear nothing.
            self._heard_at += max(0.0, time.monotonic() - before - 2 * frames.BEAT_S)
        self._over.set()

    def _report(self, report: frames.Report, *, may_wait: bool = False) -> None:
        """Send a report, with all others of this turn of the loop; one for which nobody waits may wait for others."""
        self._outgoing.append(report)
        may_wait |= isinstance(report, frames.Launched | frames.Said | frames.Read | frames.MemoryRead | frames.Beats)
        self._flushing.due(may_wait=may_wait)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        connection.write(self._writer, outgoing)

    def _join(self, discovery: Discovery) -> None:
        devices = tuple(msgspec.structs.replace(device, host=self._begin.host) for device in discovery.devices)
        make = make_here(self._machine.processor)
        discovery = msgspec.structs.replace(discovery, devices=devices)
        self._report(frames.Joined(machine=self._machine, discovery=discovery, make=make))

    def _post(self, event: Event) -> None:
        host = self._begin.host
        match event:
            case DeviceRead(reading=reading):
                if reading.device_id == CPU:
                    reading = msgspec.structs.replace(reading, device_id=f"{CPU}@{host}")
                self._report(frames.Read(reading=reading))
            case DeviceLost(device_id=device_id, reason=reason):
                self._report(frames.Lost(device_id=device_id, reason=reason))
            case HostRead(reading=memory):
                self._report(frames.MemoryRead(reading=msgspec.structs.replace(memory, host=host)))

    def _notice(self, noticed: Noticed) -> None:
        match noticed:
            case Answers(device_id=device_id):
                self._report(frames.AnswersAgain(device_id=device_id))
            case Found(discovery=discovery):
                self._join(discovery)

    # -- orders --------------------------------------------------------------------------------------------------------

    def _carry_out(self, order: frames.Order) -> Coroutine[Any, Any, None] | None:
        """Carry out an order at once, or return the work that it takes."""
        match order:
            case frames.Launch():
                self._windows.launch(order)
            case frames.Stage() | frames.Fetch() if self._scratch is not None:
                return self._carry(self._scratch, order)
            case frames.Kept() if self._scratch is not None:
                return self._forget(self._scratch, order)
            case frames.RemoveLogs(batch_id=batch_id):
                return self._remove_logs(batch_id)
            case frames.Preload():
                return self._preload(order)
            case frames.Judge():
                return self._judge(order)
            case frames.ReadLog():
                return self._read_log(order)
            case frames.Abandon():
                return self._abandon(order)
            case frames.Signal(id=id_, signum=signum):
                self._windows.signal(id_, signum)
            case frames.Withdraw(id=id_):
                self._windows.withdraw(id_)
            case frames.Interrupt(spec=spec):
                self.engine.interrupt(spec)
            case frames.Watch(devices=devices):
                self.engine.watch(devices)
        return None

    def _leave(self, why: str) -> None:
        self._report(frames.Unfit(why=why))
        self._over.set()

    async def _carry(self, scratch: Scratch, order: frames.Stage | frames.Fetch) -> None:
        """Take inputs, or send a piece of a result."""
        try:
            if isinstance(order, frames.Stage):
                take = partial(scratch.take, last=order.last)
                complete = await anyio.to_thread.run_sync(take, order.digest, order.pieces)
                self._report(frames.Staged(id=order.id, complete=complete))
            else:
                place = (order.output_dir, order.label, order.name, order.offset)
                self._report(frames.Fetched(id=order.id, data=await anyio.to_thread.run_sync(scratch.read, *place)))
        except OSError as error:
            if why := scratch.full():
                self._leave(why)
            else:
                self._report(refusal(order.id, error))

    async def _preload(self, order: frames.Preload) -> None:
        try:
            await self.engine.preload(order.spec, order.needed_by)
        except (LaunchError, OSError) as error:
            self._report(refusal(order.id, error))
        else:
            self._report(frames.Done(id=order.id))

    async def _judge(self, order: frames.Judge) -> None:
        await self.engine.judge(
            order.devices,
            order.wanted,
            lambda verdict: self._report(frames.Judged(id=order.id, verdict=verdict)),
            afresh=order.afresh,
        )
        self._report(frames.Done(id=order.id))

    async def _read_log(self, order: frames.ReadLog) -> None:
        async with self._logs:
            piece = await self.engine.read_log(order.log, order.offset)
        self._report(frames.LogRead(id=order.id, piece=piece))

    async def _remove_logs(self, batch_id: str) -> None:
        async with self._logs:
            await self.engine.remove_logs(batch_id)

    async def _forget(self, scratch: Scratch, order: frames.Kept) -> None:
        await anyio.to_thread.run_sync(scratch.forget, order.results)
        self._report(frames.Done(id=order.id), may_wait=True)

    async def _abandon(self, order: frames.Abandon) -> None:
        self._windows.close()
        self._report(frames.Left(id=order.id, left=tuple(await self.engine.abandon())))


async def _awaited(work: Coroutine[Any, Any, None]) -> None:
    await work


async def serve(descriptor: int) -> None:
    reader, writer = await connection.opened(socket.socket(fileno=descriptor))
    begin: frames.Order | None = None
    while not isinstance(begin, frames.Begin):  # orders for the agent before this one may come first
        if (data := await connection.next_frame(reader)) is None:
            return
        begin = frames.order_decoder.decode(data)
    fit = scratch_for(begin)
    if isinstance(fit, str):
        connection.write(writer, [frames.Unfit(why=fit)])
    else:
        await Agent(begin, fit, writer).run(reader)
    with contextlib.suppress(ConnectionError):
        await writer.drain()


def _as_a_daemon_would() -> None:
    """Undo Ray's settings of an actor's processes: low priority, first victim of the kernel where memory is short.

    Its cap of threads reaches no window: launchers and windows have caps of their own.
    """
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
