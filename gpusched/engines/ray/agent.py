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
from anyio.abc import TaskGroup

from gpusched.config import Cache, Config, Devices, Run
from gpusched.core.events import DeviceLost, DeviceRead, Event, HostRead
from gpusched.core.failures import Exit
from gpusched.core.model import CPU, Batch, PlannedWindow, WindowResult
from gpusched.devices.kind import Answers, Discovery
from gpusched.devices.nvidia.gpus import look
from gpusched.devices.processors import this_machine
from gpusched.engines.attendance import Awaited, OnMessage
from gpusched.engines.engine import (
    End,
    Found,
    Launched,
    NoMemoryToFork,
    Noticed,
    Withdrawn,
    WorkloadNotLoadable,
    launched,
)
from gpusched.engines.local.engine import LocalEngine
from gpusched.engines.ray import frames
from gpusched.engines.ray.ahead import Gate
from gpusched.engines.ray.frames import (
    BEAT_S,
    LEASE_S,
    Abandon,
    AnswersAgain,
    Beats,
    Begin,
    Done,
    Ended,
    Fetch,
    Fetched,
    Interrupt,
    Joined,
    Judge,
    Judged,
    Kept,
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
    RemoveLogs,
    Report,
    Said,
    Signal,
    Stage,
    Staged,
    Stuck,
    Troubled,
    Unfit,
    Watch,
    Withdraw,
)
from gpusched.engines.ray.makes import make_here
from gpusched.engines.ray.scratch import SHORT_BYTES, Scratch, scratch_for
from gpusched.errors import LaunchError
from gpusched.worker.messages import PipeMessage

#: seconds for which reports gather: each batch costs Ray milliseconds of CPU, and a short window has one, with its end
LINGER_S = 0.1
#: bytes of a failed window's log that travel with its end
MOST_LOG_BYTES = 1 << 20


class Agent:
    """Carries out orders on this machine, which is the node `begin.host`."""

    def __init__(self, begin: Begin, scratch: Scratch | None, writer: asyncio.StreamWriter) -> None:
        """`scratch`: of a node that shares no files with the supervisor."""
        self._begin = begin
        self._scratch = scratch
        self._writer = writer
        self._windows: dict[int, Awaited[Launched, End]] = {}
        self._gate = Gate()
        self._outgoing: list[bytes] = []
        self._flushing: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        #: logs are read and removed in the order of the requests
        self._logs = anyio.Lock()
        self._heard_at = time.monotonic()
        found = look()
        config = Config(
            run=Run(workload=begin.workload),
            cache=Cache(dir=scratch.cache if scratch else Path(begin.cache_dir)),
            devices=Devices(allow_cpu_opencl=begin.allow_cpu_opencl),
        )
        state_dir = scratch.state if scratch else Path(begin.state_dir)
        self.engine = LocalEngine(config, state_dir, found, standing=begin.standing)
        self.engine.logs_dir = scratch.logs if scratch else Path(begin.logs_dir)
        self.engine.condition.heard_by(lambda change: self._report(Troubled(change=change)))
        self._machine = msgspec.structs.replace(this_machine(), host=begin.host)

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Report this machine, then carry out orders until the socket closes."""
        (here,) = self.engine.machines
        self._join(here.discovery)
        async with self.engine, anyio.create_task_group() as tasks:
            tasks.start_soon(self.engine.run, self._post, self._notice)
            tasks.start_soon(self._obey, reader, tasks)
            tasks.start_soon(self._beat)
            await self._over.wait()
            tasks.cancel_scope.cancel()

    async def _obey(self, reader: asyncio.StreamReader, tasks: TaskGroup) -> None:
        while (data := await frames.next_frame(reader)) is not None:
            self._heard_at = time.monotonic()
            work = self._carry_out(frames.order_decoder.decode(data))
            if work is not None:
                tasks.start_soon(_awaited, work)
        self._over.set()

    async def _beat(self) -> None:
        """Give signs of life, and end everything if there are none of the supervisor."""
        while time.monotonic() < self._heard_at + LEASE_S:
            self._report(Beats())
            before = time.monotonic()
            await anyio.sleep(BEAT_S)
            self._heard_at += max(0.0, time.monotonic() - before - 2 * BEAT_S)  # stopped itself, it could hear nothing
        self._over.set()

    def _report(self, report: Report, *, may_wait: bool = False) -> None:
        """Send a report, with all others of this turn of the loop; one for which nobody waits may wait for others."""
        self._outgoing.append(frames.framed(frames.packed(report)))
        loop = asyncio.get_running_loop()
        may_wait |= isinstance(report, frames.Launched | Said | Read | MemoryRead | Beats)
        if self._flushing is None:
            self._flushing = loop.call_later(LINGER_S if may_wait else 0.0, self._flush)
        elif not may_wait:
            self._flushing.cancel()
            self._flushing = loop.call_later(0.0, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        outgoing, self._outgoing = self._outgoing, []
        self._writer.write(b"".join(outgoing))

    def _join(self, discovery: Discovery) -> None:
        devices = tuple(msgspec.structs.replace(device, host=self._begin.host) for device in discovery.devices)
        make = make_here(self._machine.processor)
        discovery = msgspec.structs.replace(discovery, devices=devices)
        self._report(Joined(machine=self._machine, discovery=discovery, make=make))

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
                self._gate.arrive(order)
                return self._launch(order) if self._scratch is None else self._launch_in(self._scratch, order)
            case Stage() | Fetch() if self._scratch is not None:
                return self._carry(self._scratch, order)
            case Kept() if self._scratch is not None:
                return self._forget(self._scratch, order)
            case RemoveLogs(batch_id=batch_id):
                return self._remove_logs(batch_id)
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
            case Withdraw(id=id_):
                self._gate.withdraw(id_)
            case Interrupt(spec=spec):
                self.engine.interrupt(spec)
            case Watch(devices=devices):
                self.engine.watch(devices)
        return None

    async def _launch(self, order: Launch) -> None:
        end = await self._run(order, order.batch, lambda message: self._report(Said(id=order.id, message=message)))
        if end is not None:
            self._report(Ended(id=order.id, end=end), may_wait=self._gate.is_stocked(order))

    async def _launch_in(self, scratch: Scratch, order: Launch) -> None:
        """Train a window in the scratch directory, unless its result is there already; send what it leaves."""
        batch = scratch.here(order.batch, order.inputs)
        if await self._verified(scratch, batch, order.planned) is not None:
            if await self._gate.entered(order):
                self._gate.leave(order)
            self._report(frames.Launched(id=order.id, pid=os.getpid()))
            return await self._send(scratch, order, End(exit=Exit(exit_code=0)))
        if why := scratch.full():
            return self._leave(why)
        results: list[WindowResult] = []

        def hear(message: PipeMessage) -> None:
            if isinstance(message, WindowResult):
                results.append(message)
            else:
                self._report(Said(id=order.id, message=message))

        if (end := await self._run(order, batch, hear)) is None:
            return None
        # It may have died between its commit and its report.
        if results or await self._verified(scratch, batch, order.planned) is not None:
            return await self._send(scratch, order, end)
        if why := scratch.full():  # which is not the window's fault: it goes elsewhere, with those that run
            return self._leave(why)
        self._report(Ended(id=order.id, end=end, log=await self._log(order.log)))
        return None

    async def _verified(self, scratch: Scratch, batch: Batch, planned: PlannedWindow) -> WindowResult | None:
        if not scratch.has_result(batch, planned.window.label):  # as nearly always: it is not worth a thread's turn
            return None
        return await anyio.to_thread.run_sync(self.engine.verify, batch, planned)

    async def _send(self, scratch: Scratch, order: Launch, end: End) -> None:
        place = order.batch.output_dir, order.planned.window.label
        if (files := scratch.result(*place, most=SHORT_BYTES)) is None:
            files = await anyio.to_thread.run_sync(scratch.result, *place)
        assert files is not None
        self._report(Ended(id=order.id, end=end, files=files), may_wait=self._gate.is_stocked(order))

    def _leave(self, why: str) -> None:
        self._report(Unfit(why=why))
        self._over.set()

    async def _run(self, order: Launch, batch: Batch, hear: OnMessage) -> End | None:
        """The end of the window's process, whose start is reported; None if it was not started."""
        if not await self._gate.entered(order):
            self._report(_refusal(order.id, Withdrawn()))
            return None
        try:
            window = await launched(self.engine, batch, order.planned, order.device, log=order.log)
            self._windows[order.id] = window
            self._report(frames.Launched(id=order.id, pid=window.pid))
            return await window.wait(hear, lambda trouble: self._report(Stuck(id=order.id, trouble=trouble)))
        except (LaunchError, OSError) as error:
            self._report(_refusal(order.id, error))
            return None
        finally:
            self._gate.leave(order)
            self._windows.pop(order.id, None)

    async def _log(self, log: str) -> bytes:
        """The last pieces of a log."""
        text, offset = b"", 0
        while (piece := await self.engine.read_log(log, offset)) is not None and piece.data:
            text, offset = (text + piece.data)[-MOST_LOG_BYTES:], piece.offset + len(piece.data)
        return text

    async def _carry(self, scratch: Scratch, order: Stage | Fetch) -> None:
        """Take inputs, or send a piece of a result."""
        try:
            if isinstance(order, Stage):
                take = partial(scratch.take, last=order.last)
                complete = await anyio.to_thread.run_sync(take, order.digest, order.pieces)
                self._report(Staged(id=order.id, complete=complete))
            else:
                place = (order.output_dir, order.label, order.name, order.offset)
                self._report(Fetched(id=order.id, data=await anyio.to_thread.run_sync(scratch.read, *place)))
        except OSError as error:
            if why := scratch.full():
                self._leave(why)
            else:
                self._report(_refusal(order.id, error))

    async def _preload(self, order: Preload) -> None:
        try:
            await self.engine.preload(order.spec, order.needed_by)
        except (LaunchError, OSError) as error:
            self._report(_refusal(order.id, error))
        else:
            self._report(Done(id=order.id))

    async def _judge(self, order: Judge) -> None:
        await self.engine.judge(
            order.devices,
            order.wanted,
            lambda verdict: self._report(Judged(id=order.id, verdict=verdict)),
            afresh=order.afresh,
        )
        self._report(Done(id=order.id))

    async def _read_log(self, order: ReadLog) -> None:
        async with self._logs:
            piece = await self.engine.read_log(order.log, order.offset)
        self._report(LogRead(id=order.id, piece=piece))

    async def _remove_logs(self, batch_id: str) -> None:
        async with self._logs:
            await self.engine.remove_logs(batch_id)

    async def _forget(self, scratch: Scratch, order: Kept) -> None:
        await anyio.to_thread.run_sync(scratch.forget, order.results)
        self._report(Done(id=order.id), may_wait=True)

    async def _abandon(self, order: Abandon) -> None:
        self._gate.close()
        self._report(Left(id=order.id, left=tuple(await self.engine.abandon())))


async def _awaited(work: Coroutine[Any, Any, None]) -> None:
    await work


def _refusal(id_: int, error: LaunchError | OSError) -> Refused:
    match error:
        case WorkloadNotLoadable():
            return Refused(id=id_, kind="not_loadable", message=str(error), traceback=error.traceback)
        case NoMemoryToFork():
            return Refused(id=id_, kind="no_memory", message=str(error))
        case Withdrawn():
            return Refused(id=id_, kind="withdrawn", message=str(error))
    return Refused(id=id_, kind="refused", message=str(error))


async def serve(descriptor: int) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor), limit=1 << 26)
    begin: Order | None = None
    while not isinstance(begin, Begin):  # orders for the agent before this one may come first
        if (data := await frames.next_frame(reader)) is None:
            return
        begin = frames.order_decoder.decode(data)
    fit = scratch_for(begin)
    if isinstance(fit, str):
        writer.write(frames.framed(frames.packed(Unfit(why=fit))))
    else:
        await Agent(begin, fit, writer).run(reader)
    with contextlib.suppress(ConnectionError):
        await writer.drain()


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
