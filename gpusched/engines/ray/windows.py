"""The windows of a node: each is started when it may, and reported until its end, with its result or its log.

A window has no task of its own, unless there is more to do than to pass on what its process does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import anyio.to_thread

from gpusched.core.failures import Exit
from gpusched.core.model import Batch, WindowResult
from gpusched.engines.engine import End, Launched, NoMemoryToFork, Withdrawn, WorkloadNotLoadable
from gpusched.engines.local.engine import LocalEngine
from gpusched.engines.ray import frames
from gpusched.engines.ray.ahead import Gate
from gpusched.engines.ray.scratch import SHORT_BYTES, Scratch
from gpusched.errors import LaunchError
from gpusched.worker.messages import PipeMessage, Started

#: bytes of a failed window's log that travel with its end
MOST_LOG_BYTES = 1 << 20


class Teller(Protocol):
    def __call__(self, report: frames.Report, *, may_wait: bool = False) -> None:
        """Send a report; one that `may_wait` goes with others."""


class Windows:
    """All windows that this node was ordered to launch and that have not ended."""

    def __init__(
        self,
        engine: LocalEngine,
        scratch: Scratch | None,
        report: Teller,
        work: Callable[[Coroutine[Any, Any, None]], None],
        leave: Callable[[str], None],
    ) -> None:
        """`work` does something in a task, whose error ends the agent; `leave` ends it with the reason."""
        self.engine = engine
        self.scratch = scratch
        self.report = report
        self.work = work
        self.leave = leave
        self.gate = Gate()
        #: those that have a process, by their orders' numbers
        self.running: dict[int, NodeWindow] = {}

    def launch(self, order: frames.Launch) -> None:
        self.gate.arrive(order, NodeWindow(self, order).enter)

    def withdraw(self, number: int) -> None:
        """Refuse a launch that waits still."""
        if self.gate.withdraw(number):
            self.report(refusal(number, Withdrawn()))

    def signal(self, number: int, signum: int) -> None:
        if number in self.running:
            self.running[number].process.signal(signum)

    def close(self) -> None:
        """Launch none of those that wait."""
        for number in self.gate.close():
            self.report(refusal(number, Withdrawn()))


class NodeWindow:
    """A window from its order to the report of its end: the engine's attendant."""

    process: Launched

    def __init__(self, windows: Windows, order: frames.Launch) -> None:
        self._windows = windows
        self._order = order
        scratch = windows.scratch
        #: with the paths that it has here
        self._batch: Batch = order.batch if scratch is None else scratch.here(order.batch, order.inputs)
        self._has_result = False

    def enter(self) -> None:
        """Start the process, unless there is a result already."""
        if self._has_place():
            self._windows.work(self._look())
        else:
            self._start()

    def _has_place(self) -> bool:
        """Whether something is where its result belongs. It is nearly always not, so no thread is used to find out."""
        scratch = self._windows.scratch
        return scratch is not None and scratch.has_result(self._batch, self._order.planned.window.label)

    async def _look(self) -> None:
        if not await self._verified():
            self._start()
            return
        self._windows.gate.leave(self._order)
        self._windows.report(frames.Launched(id=self._order.id, pid=os.getpid()))
        await self._read_result(End(exit=Exit(exit_code=0)))

    def _start(self) -> None:
        windows, order = self._windows, self._order
        if windows.scratch is not None and (why := windows.scratch.full()):
            windows.leave(why)
        else:
            windows.engine.start(self._batch, order.planned, order.device, self, log=order.log)

    async def _verified(self) -> bool:
        """Whether its result is there, with the fingerprint that it would have."""
        if not self._has_place():
            return False
        verify = self._windows.engine.verify
        return await anyio.to_thread.run_sync(verify, self._batch, self._order.planned) is not None

    # -- the attendant -------------------------------------------------------------------------------------------------

    def refused(self, error: LaunchError | OSError) -> None:
        self._windows.report(refusal(self._order.id, error))
        self._windows.gate.leave(self._order)

    def started(self, process: Launched) -> None:
        self.process = process
        self._windows.running[self._order.id] = self
        self._windows.report(frames.Launched(id=self._order.id, pid=process.pid))

    def heard(self, message: PipeMessage) -> None:
        if isinstance(message, WindowResult) and self._windows.scratch is not None:
            self._has_result = True  # its files are sent instead
        elif not isinstance(message, Started):  # which says no more than that it was launched
            self._windows.report(frames.Said(id=self._order.id, message=message))

    def stuck(self, trouble: str) -> None:
        self._windows.report(frames.Stuck(id=self._order.id, trouble=trouble))

    def ended(self, end: End) -> None:
        windows = self._windows
        del windows.running[self._order.id]
        windows.gate.leave(self._order)
        if windows.scratch is None:
            self._end(end)
        elif not (self._has_result and self._sent(windows.scratch, end, most=SHORT_BYTES)):
            windows.work(self._finish(end))

    # -- its results and log -------------------------------------------------------------------------------------------

    def _end(self, end: End, **left: Any) -> None:
        may_wait = self._windows.gate.is_stocked(self._order)
        self._windows.report(frames.Ended(id=self._order.id, end=end, **left), may_wait=may_wait)

    async def _finish(self, end: End) -> None:
        """Send a long result, or the log of a window that has none."""
        windows = self._windows
        assert windows.scratch is not None
        # It may have died between its commit and its report.
        if self._has_result or await self._verified():
            await self._read_result(end)
        elif why := windows.scratch.full():  # which is not the window's fault: it goes elsewhere, with those that run
            windows.leave(why)
        else:
            log = await self._log()
            windows.report(frames.Ended(id=self._order.id, end=end, log=log))

    def _sent(self, scratch: Scratch, end: End, *, most: int) -> bool:
        """Send a result of at most so many bytes; False if it has more, or cannot be read."""
        try:
            files = scratch.result(self._order.batch.output_dir, self._order.planned.window.label, most=most)
        except OSError:
            return False
        if files is not None:
            self._end(end, files=files)
        return files is not None

    async def _read_result(self, end: End) -> None:
        assert self._windows.scratch is not None
        place = self._order.batch.output_dir, self._order.planned.window.label
        files = await anyio.to_thread.run_sync(self._windows.scratch.result, *place)
        self._end(end, files=files)

    async def _log(self) -> bytes:
        """The last pieces of its log."""
        text, offset = b"", 0
        while (piece := await self._windows.engine.read_log(self._order.log, offset)) is not None and piece.data:
            text, offset = (text + piece.data)[-MOST_LOG_BYTES:], piece.offset + len(piece.data)
        return text


def refusal(number: int, error: LaunchError | OSError) -> frames.Refused:
    match error:
        case WorkloadNotLoadable():
            return frames.Refused(id=number, kind="not_loadable", message=str(error), traceback=error.traceback)
        case NoMemoryToFork():
            return frames.Refused(id=number, kind="no_memory", message=str(error))
        case Withdrawn():
            return frames.Refused(id=number, kind="withdrawn", message=str(error))
    return frames.Refused(id=number, kind="refused", message=str(error))
