"""The connection to one launcher process: requests, replies, and a watch over a launcher that hangs or dies."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import socket

import anyio

from gpusched.engines.condition import Condition
from gpusched.engines.engine import LaunchRefused, LibraryNotLoadable, NoMemoryToFork, WorkloadNotLoadable
from gpusched.engines.local import groups, leftovers, proc
from gpusched.engines.local.early import Started
from gpusched.engines.local.packets import Replies, close_all, packed, rights
from gpusched.engines.local.process import Process
from gpusched.errors import LaunchError
from gpusched.handles import exit_of
from gpusched.teacher.installed import remedy_for
from gpusched.worker.code import stamp_of
from gpusched.worker.messages import (
    MAX_PACKET_BYTES,
    Fork,
    Forked,
    Gone,
    Imported,
    LauncherReply,
    LauncherRequest,
    Needs,
    Preload,
    Preloaded,
    PreloadFailed,
    ProcessEnd,
    Refused,
    Stamp,
)

#: seconds that a launcher may take to kill and reap its windows before it is killed itself
CLOSE_GRACE_S = 5.0
#: seconds that a launcher which has hung up may take to exit
EXIT_GRACE_S = 2.0
#: seconds between checks of a launcher that owes an answer
WATCH_S = 1.0
#: seconds after which a launcher that owes an answer is killed: one that is stopped (by a signal or a debugger), and
#: one that runs but says nothing
STOPPED_S = 10.0
HANG_S = 30.0


def _not_loadable(message: str, traceback: str) -> WorkloadNotLoadable:
    first = remedy_for(message)
    if first is not None:
        return LibraryNotLoadable(message=message, traceback=traceback, first=first)
    return WorkloadNotLoadable(message=message, traceback=traceback)


class Link:
    """The connection to one launcher process, and the processes that it has forked.

    While it owes an answer, the launcher is watched: if it hangs it is killed, and the next fork starts another.
    """

    def __init__(self, started: Started, mark: str, idle_timeout_s: float | None, condition: Condition) -> None:
        """`mark`: the one in the environment of the launcher process that was `started`."""
        self._loop = asyncio.get_running_loop()
        self._mark = mark
        self._condition = condition
        self._idle_timeout_s = idle_timeout_s
        self._idle_timer: asyncio.TimerHandle | None = None
        self._launcher, self._socket = started
        self.pid = self._launcher.pid
        self._exit = exit_of(self.pid)
        #: no more requests are accepted: the launcher was retired or has gone
        self.closed = False
        self._closing = anyio.Event()
        self._hung_up = False
        self._replies = Replies()
        self._outgoing: collections.deque[tuple[bytes, tuple[int, ...]]] = collections.deque()
        self.processes: dict[int, Process] = {}
        #: files of the workload, as they were when the launcher imported them
        self._files: tuple[Stamp, ...] = ()
        self._preloads: dict[tuple[str, Needs], asyncio.Future[float]] = {}
        self._watch_timer: asyncio.TimerHandle | None = None
        #: loop time since which the launcher has owed an answer and said nothing
        self._silent_since: float | None = None
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._receive)

    # -- requests ------------------------------------------------------------------------------------------------------

    def send(self, request: LauncherRequest, descriptors: tuple[int, ...] = ()) -> None:
        """Send a request, in order, now or when there is room. Takes ownership of the descriptors and closes them.

        Raises OSError if there is no descriptor for a large request.
        """
        self._outgoing.append(packed(request, descriptors))
        if len(self._outgoing) == 1:
            self._flush()
        if self._watch_timer is None:
            self._watch_later()

    def fork(self, request: Fork, process: Process, descriptors: tuple[int, ...]) -> None:
        """Request a fork; `process` is told of the result. Raises OSError as `send`."""
        self.send(request, descriptors)
        self.processes[request.id] = process

    async def preload(self, workload: str, needed_by: Needs, imports: tuple[str, ...]) -> float:
        answer = self._preloads.get((workload, needed_by))
        if answer is None:
            answer = self._preloads[workload, needed_by] = self._loop.create_future()
            answer.add_done_callback(_retrieve)
            self.send(Preload(workload=workload, needed_by=needed_by, imports=imports))
        return await asyncio.shield(answer)

    def retire(self) -> None:
        """Accept no more requests, and tell the launcher to kill and reap its windows, report that, and exit."""
        self.closed = True
        self._closing.set()
        with contextlib.suppress(OSError):  # it may have hung up already
            self._socket.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill the launcher process, and with it all that it has forked. No more requests are accepted."""
        self.closed = True
        self._closing.set()
        if self._exit >= 0:  # it is not reaped: its number is its own
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)

    def _flush(self) -> None:
        while self._outgoing:
            packet, descriptors = self._outgoing[0]
            try:
                self._socket.sendmsg([packet], rights(descriptors))
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush_later)
                return
            except ConnectionError:
                pass  # the launcher has hung up: `bereave` tells everyone who waits for an answer
            except OSError:
                self.kill()  # it will not hear of this request: so that whoever waits for an answer hears of its end
            self._outgoing.popleft()
            close_all(descriptors)

    def _flush_later(self) -> None:
        self._loop.remove_writer(self._socket)
        self._flush()

    # -- replies -------------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        while True:
            try:
                packet = self._socket.recv(MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._hang_up()
                return
            if (reply := self._replies.take(packet)) is not None:
                self._handle(reply)

    def _handle(self, reply: LauncherReply) -> None:
        self._silent_since = None
        match reply:
            case Forked():
                self.processes[reply.id].set_forked(reply.pid, reply.shared_bytes)
            case Gone():
                end = ProcessEnd(
                    exit_code=reply.exit_code,
                    signal=reply.signal,
                    cpu_seconds=reply.cpu_seconds,
                    peak_memory_bytes=reply.peak_memory_bytes,
                    killed=reply.killed,
                )
                self.processes.pop(reply.id).set_gone(end)
            case Refused():
                self.processes.pop(reply.id).set_refused(
                    NoMemoryToFork() if reply.out_of_memory else LaunchRefused(reason=reply.reason)
                )
            case Imported(files=files):
                self._files = files
            case Preloaded():
                self._preloads.pop((reply.workload, reply.needed_by)).set_result(reply.seconds)
            case PreloadFailed():
                failure = _not_loadable(reply.message, reply.traceback)
                if reply.id is None:
                    self._preloads.pop((reply.workload, reply.needed_by)).set_exception(failure)
                else:
                    self.processes.pop(reply.id).set_refused(failure)
        if self._idle:
            self._leave_later()

    @property
    def has_requests(self) -> bool:
        """Whether it has been asked for a fork or for imports, and has not answered."""
        return bool(self._preloads) or any(process.pid == 0 for process in self.processes.values())

    @property
    def is_outdated(self) -> bool:
        """Whether a file that the launcher has imported is not as it was then."""
        return any(stamp_of(stamp.path) != stamp for stamp in self._files)

    def leave_when_idle(self) -> None:
        """Retire as soon as the processes that it has forked are gone."""
        self._idle_timeout_s = 0.0
        if self._idle:
            self._leave_later()

    @property
    def _idle(self) -> bool:
        return not self.processes and not self._preloads

    # -- watching ------------------------------------------------------------------------------------------------------

    def _watch_later(self) -> None:
        self._watch_timer = self._loop.call_later(WATCH_S, self._watch)

    def _watch(self) -> None:
        self._watch_timer = None
        if self._hung_up or self._idle:
            return
        self._watch_later()
        seen = proc.look(self.pid)
        stopped = seen is not None and seen.state in proc.STOPPED
        owing = [process for process in self.processes.values() if process.look(self._strays, launcher_stopped=stopped)]
        requested = self.has_requests
        # A launcher with an open request may be importing, which can take long and keeps it from answering.
        if (requested and not stopped) or not (requested or owing):
            self._silent_since = None
            return
        if self._silent_since is None:
            self._silent_since = self._loop.time()
        if self._loop.time() - self._silent_since >= (STOPPED_S if stopped else HANG_S) and not self.closed:
            self._tell(f"hangs ({proc.doing(self.pid)}): it is killed with its windows, which go back to the queue")
            self.kill()

    def _strays(self) -> list[int]:
        """The launcher's living children that are neither windows nor in the session of a window."""
        leaders = {process.pid for process in self.processes.values()}
        if 0 in leaders:
            return []  # one of its children may be a window that it has not reported yet
        children = proc.children(self.pid)
        return [pid for pid, seen in children if pid not in leaders and seen.session not in leaders]

    def _tell(self, trouble: str) -> None:
        self._condition.tell("launcher", str(self.pid), f"the launcher process {self.pid} {trouble}")

    # -- idleness ------------------------------------------------------------------------------------------------------

    def _leave_later(self) -> None:
        """Retire after the idle timeout, unless there is work by then."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._idle_timeout_s is not None:
            self._idle_timer = self._loop.call_later(self._idle_timeout_s, self._leave)

    def _leave(self) -> None:
        if self._idle:
            self.retire()

    def _hang_up(self) -> None:
        self.closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, descriptors in self._outgoing:
            close_all(descriptors)
        self._outgoing.clear()
        self._hung_up = True
        self._closing.set()

    # -- the end -------------------------------------------------------------------------------------------------------

    async def closing(self) -> None:
        """Wait until the link is retired or the launcher has hung up."""
        await self._closing.wait()

    async def bury(self) -> int:
        """Wait until the launcher process has exited, kill it if it takes too long, and reap it; return its status."""
        self.retire()
        exited = anyio.Event()
        self._loop.add_reader(self._exit, exited.set)
        with anyio.move_on_after(EXIT_GRACE_S if self._hung_up else CLOSE_GRACE_S):
            await exited.wait()
        self.kill()
        with anyio.move_on_after(groups.KILL_GRACE_S):
            await exited.wait()
        if not exited.is_set():
            self._tell(f"does not die ({proc.doing(self.pid)})")
            await exited.wait()
        self._let_go()
        if not self._hung_up:
            self._receive()
        if not self._hung_up:
            self._hang_up()
        self._condition.clear("launcher", str(self.pid))
        return self._launcher.wait()

    def _let_go(self) -> None:
        if self._exit >= 0:
            self._loop.remove_reader(self._exit)
            os.close(self._exit)
            self._exit = -1

    async def bereave(self, error: LaunchError) -> None:
        """Answer everyone who still waits for the dead launcher, each once the waited-for processes are gone."""
        self._refuse_all(error)
        orphans = list(self.processes.values())
        self.processes.clear()
        for process in orphans:
            groups.kill_group(process.pid)
        _, left = await leftovers.end(self._mark, groups.KILL_GRACE_S)
        async with anyio.create_task_group() as tasks:
            for process in orphans:
                tasks.start_soon(_see_off, process)
            theirs = {process.pid for process in orphans}
            for pid in left:
                if (seen := proc.look(pid)) is not None and seen.group not in theirs:
                    tasks.start_soon(leftovers.watch, pid, self._condition)

    def abandon(self, error: LaunchError) -> None:
        """Kill the launcher and its processes without waiting; tell everyone who waits that they are gone."""
        self._refuse_all(error)
        for process in self.processes.values():
            process.signal(signal.SIGKILL)
            process.set_gone(ProcessEnd(launcher_lost=True))
        self.processes.clear()
        self.kill()
        if not self._hung_up:
            self._hang_up()

    async def reap(self, within_s: float) -> None:
        """Reap the launcher process if it exits within that time; called after `abandon`."""
        if self._exit >= 0:
            exited = anyio.Event()
            self._loop.add_reader(self._exit, exited.set)
            with anyio.move_on_after(within_s):
                await exited.wait()
        self._let_go()
        self._launcher.poll()

    def _refuse_all(self, error: LaunchError) -> None:
        """Fail all open requests: the launcher will not answer them."""
        for answer in self._preloads.values():
            answer.set_exception(error)
        self._preloads.clear()
        for identifier, process in list(self.processes.items()):
            if process.pid == 0:
                del self.processes[identifier]
                process.set_refused(error)


async def _see_off(process: Process) -> None:
    """Wait until nothing is left of a killed process's group; report it as stuck meanwhile."""
    while not await groups.group_gone(process.pid, groups.KILL_GRACE_S):
        process.be_stuck(next(iter(proc.members(process.pid)), process.pid))
    process.set_gone(ProcessEnd(launcher_lost=True))


def _retrieve(answer: asyncio.Future[float]) -> None:
    """Retrieve the exception of a failed preload for which nobody waits any more, so that asyncio does not complain."""
    if not answer.cancelled():
        answer.exception()
