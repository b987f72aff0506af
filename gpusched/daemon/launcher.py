"""The supervisor's side of the launcher: the only module that starts processes.

`Launcher.fork` starts a window process and `Process.wait` sees it through to the end. They are forked from a launcher
process, one for each module of workloads, since what one module imports or does while it is imported (a thread, a
package that is kept away) must not be met by another's windows. It is started on first use, replaced when it has died,
and leaves when idle. Everything here runs in the event loop of asyncio, whose readers cost less per window than a task
would.
"""

from __future__ import annotations

import array
import asyncio
import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import msgspec

from gpusched.daemon.logs import end_of_log
from gpusched.errors import LaunchError
from gpusched.worker.messages import (
    MAX_LINE_BYTES,
    MAX_PACKET_BYTES,
    MAX_STREAM_BYTES,
    PROGRESS_BURST,
    PROGRESS_PER_S,
    Fork,
    Forked,
    Gone,
    Job,
    LauncherReply,
    LauncherRequest,
    Needs,
    PipeMessage,
    Preload,
    Preloaded,
    PreloadFailed,
    ProcessEnd,
    Progress,
    Refused,
    Signal,
)

OnMessage = Callable[[PipeMessage], None]

#: how long a launcher may take to kill and reap its windows before it is killed itself
CLOSE_GRACE_S = 10.0
#: how long one that has hung up may take to exit
EXIT_GRACE_S = 2.0
#: how long to wait for a process group that was sent SIGKILL
KILL_GRACE_S = 5.0

_READ_BYTES = 64 * 1024
_EXCERPT_BYTES = 200
_LOG_CHARS = 2000
#: what must hold in a process that is forked from: no thread pools
_SINGLE_THREADED = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}

_encoder = msgspec.json.Encoder()
_reply_decoder = msgspec.json.Decoder(LauncherReply)
_message_decoder = msgspec.json.Decoder(PipeMessage)


class LauncherLost(LaunchError):
    """The launcher died before it answered."""

    problem = "the launcher process died (exit status {status}); the end of its log:\n{log}"
    remedy = "the next window starts a new one; if this repeats, run `gpusched doctor`"


class LaunchRefused(LaunchError):
    """The launcher is there and could not fork."""

    problem = "the window process could not be started: {reason}"
    remedy = "free memory or processes, or mend the workload's imports, then retry the window"


class WorkloadNotLoadable(LaunchError):
    """The workload's module cannot be imported or has no such function: no window of it can run."""

    problem = "{message}"
    remedy = "check the workload setting, and that the module is on PYTHONPATH; then retry"

    def __init__(self, *, message: str, traceback: str) -> None:
        self.traceback = traceback
        super().__init__(message=message)


class Process:
    """A forked process. `wait` must be awaited for each."""

    def __init__(self, link: _Link, identifier: int, pipe: int) -> None:
        self.pid = 0
        self._id = identifier
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._forked: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[ProcessEnd] = self._loop.create_future()
        self._pipe = pipe
        self._reading = False
        self._on_message: OnMessage | None = None
        self._failure: BaseException | None = None
        self._violation: str | None = None
        self._line = bytearray()
        self._received_bytes = 0
        self._progress_count = 0
        self._began = self._loop.time()

    def signal(self, signum: int) -> None:
        """Signal the whole process group; nothing happens if the process has been reaped."""
        if not self._gone.done():
            self._link.send(Signal(id=self._id, signal=int(signum)))

    async def wait(self, on_message: OnMessage) -> ProcessEnd:
        """Call `on_message` for each message until the whole process group is gone and the pipe is read to the end.

        What `on_message` raises is raised here, after the process was killed. Cancelling kills the process too, and
        takes until it is gone (at most `KILL_GRACE_S`).
        """
        self._on_message = on_message
        self._loop.add_reader(self._pipe, self._read)
        self._reading = True
        try:
            end = await asyncio.shield(self._gone)
            while self._reading:
                self._read(draining=True)
        except asyncio.CancelledError:
            self._stop_reading()
            self.signal(signal.SIGKILL)
            with anyio.move_on_after(KILL_GRACE_S, shield=True):
                await asyncio.shield(self._gone)
            raise
        finally:
            self._stop_reading()
            self._close_pipe()
        if self._failure is not None:
            raise self._failure
        if self._line and self._violation is None and end.exit_code is not None:
            self._violation = f"its last line does not end: {_excerpt(self._line)}"
        return end if self._violation is None else msgspec.structs.replace(end, violation=self._violation)

    # -- called by the link --------------------------------------------------------------------------------------------

    def _set_forked(self, pid: int) -> None:
        self.pid = pid
        if self._forked.done():  # fork() was cancelled in the meantime: nobody will wait for this process
            self.signal(signal.SIGKILL)
        else:
            self._forked.set_result(None)

    def _set_refused(self, error: LaunchError) -> None:
        self._close_pipe()
        if not self._forked.done():
            self._forked.set_exception(error)

    def _set_gone(self, end: ProcessEnd) -> None:
        self._gone.set_result(end)
        if self._forked.cancelled():
            self._close_pipe()

    # -- the pipe ------------------------------------------------------------------------------------------------------

    def _read(self, draining: bool = False) -> None:
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            # Nobody who may still hold the pipe's other end after the group is gone is ours.
            if draining:
                self._stop_reading()
            return
        if not data:
            self._stop_reading()
            return
        self._received_bytes += len(data)
        if self._received_bytes > MAX_STREAM_BYTES:
            self._violate(f"it sent more than {MAX_STREAM_BYTES} bytes: {_excerpt(data)}")
            return
        self._line += data
        if b"\n" in data:
            *lines, rest = self._line.split(b"\n")
            self._line = rest
            for line in lines:
                if not self._reading:
                    return
                self._deliver(line)
        if len(self._line) > MAX_LINE_BYTES:
            self._violate(f"it sent a line of more than {MAX_LINE_BYTES} bytes: {_excerpt(self._line)}")

    def _deliver(self, line: bytearray) -> None:
        try:
            message = _message_decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._violate(f"it sent something that is not a message: {_excerpt(line)}")
            return
        if type(message) is Progress:
            self._progress_count += 1
            if self._progress_count > PROGRESS_BURST + PROGRESS_PER_S * (self._loop.time() - self._began):
                self._violate(f"it floods the supervisor with progress: {_excerpt(line)}")
                return
        assert self._on_message is not None
        try:
            self._on_message(message)
        except BaseException as error:  # carried to the caller of wait(), which is where it belongs
            self._failure = error
            self._stop_reading()
            self.signal(signal.SIGKILL)

    def _violate(self, what: str) -> None:
        self._violation = what
        self._line.clear()
        self._stop_reading()
        self.signal(signal.SIGKILL)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._pipe)

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


class Launcher:
    """Forks window processes through launcher processes, which come and go as needed.

    Use as an async context manager: leaving it kills what still runs and returns when that is gone.

    `log_path`: where the launcher processes' own stderr goes; None: nowhere.
    `search_path`: directory put at the end of their `sys.path`, for a user's own workload module.
    `idle_timeout_s`: a launcher process leaves when it has had no process for so long; None: never.
    """

    def __init__(
        self,
        *,
        log_path: Path | None = None,
        search_path: Path | None = None,
        idle_timeout_s: float | None = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log_path = log_path
        self._search_path = search_path
        self._idle_timeout_s = idle_timeout_s
        self._environment = dict(os.environ if environment is None else environment)
        #: by the workload's module
        self._links: dict[str, _Link] = {}
        self._tending: dict[_Link, asyncio.Task[None]] = {}
        self._last_id = 0
        #: launcher processes that were started
        self.starts = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.aclose()

    async def aclose(self) -> None:
        """Kill what still runs, and return when it and the launcher processes are gone."""
        for link in self._tending:
            link.retire()
        await asyncio.gather(*self._tending.values())

    def kill(self, workload: str) -> None:
        """Kill a launcher process that hangs; what waits for it ends with LauncherLost, and the next fork starts
        another."""
        if link := self._links.get(_module(workload)):
            link.kill()

    def pid(self, workload: str) -> int | None:
        """The pid of the launcher process that the next fork of `workload` would use, if there is one."""
        link = self._links.get(_module(workload))
        return None if link is None or link.closed else link.pid

    async def preload(self, workload: str, needed_by: Needs = "window") -> float:
        """Import what is needed of the workload in its launcher process; return the seconds that took.

        Raises WorkloadNotLoadable, LauncherLost.
        """
        return await self._connected(workload).preload(workload, needed_by)

    async def fork(
        self,
        job: Job,
        *,
        log_path: Path,
        env: dict[str, str | None],
        cpus: tuple[int, ...] = (),
        memory_limit_bytes: int | None = None,
    ) -> Process:
        """Start a process for `job` whose output is appended to `log_path`. Await `wait` of what this returns.

        Raises WorkloadNotLoadable, LaunchRefused, LauncherLost; OSError if the log cannot be opened.
        """
        self._last_id += 1
        request = Fork(id=self._last_id, job=job, env=env, cpus=cpus, memory_limit_bytes=memory_limit_bytes)
        log = _open_log(log_path)
        try:
            link = self._connected(job.workload)
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(log)
            raise
        os.set_blocking(read_end, False)
        process = Process(link, request.id, read_end)
        link.processes[request.id] = process
        link.send(request, (write_end, log))
        await process._forked
        return process

    # -- the launcher process ------------------------------------------------------------------------------------------

    def _connected(self, workload: str) -> _Link:
        module = _module(workload)
        link = self._links.get(module)
        if link is None or link.closed:
            link = self._links[module] = _Link(self._spawn, self._idle_timeout_s)
            self._tending[link] = asyncio.get_running_loop().create_task(self._tend(module, link))
        return link

    def _spawn(self, descriptor: int) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-P", "-m", "gpusched.worker.launcher", str(descriptor), str(os.getpid())]
        if self._search_path is not None:
            arguments.append(str(self._search_path))
        log = _open_log(self._log_path) if self._log_path is not None else os.open(os.devnull, os.O_WRONLY)
        try:
            self.starts += 1
            return subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment | _SINGLE_THREADED,
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        finally:
            os.close(log)

    async def _tend(self, module: str, link: _Link) -> None:
        """See a launcher process through to its end, and what it leaves behind."""
        await link.closing()
        status = await link.bury()
        await link.bereave(LauncherLost(status=status, log=_end_of_log(self._log_path)))
        del self._tending[link]
        if self._links.get(module) is link:
            del self._links[module]


def _module(workload: str) -> str:
    """The module of an entry point `package.module:function`."""
    return workload.partition(":")[0]


class _Link:
    """The connection to one launcher process, and the processes that it has forked."""

    def __init__(self, spawn: Callable[[int], subprocess.Popen[bytes]], idle_timeout_s: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_timeout_s = idle_timeout_s
        self._idle_timer: asyncio.TimerHandle | None = None
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._launcher = spawn(theirs.fileno())
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self.pid = self._launcher.pid
        self._pidfd = os.pidfd_open(self.pid)
        #: no more requests: it was retired or has gone
        self.closed = False
        self._closing = anyio.Event()
        self._hung_up = False
        self._outgoing: collections.deque[tuple[bytes, tuple[int, ...]]] = collections.deque()
        self.processes: dict[int, Process] = {}
        self._preloads: dict[tuple[str, Needs], asyncio.Future[float]] = {}
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._receive)

    # -- requests ------------------------------------------------------------------------------------------------------

    def send(self, request: LauncherRequest, descriptors: tuple[int, ...] = ()) -> None:
        """Send in order, now or when there is room. Takes the descriptors over and closes them."""
        packet = _encoder.encode(request)
        if len(packet) > MAX_PACKET_BYTES:
            descriptors += (_memory_file(packet),)
            packet = b"in memory file"
        self._outgoing.append((packet, descriptors))
        if len(self._outgoing) == 1:
            self._flush()

    async def preload(self, workload: str, needed_by: Needs) -> float:
        answer = self._preloads.get((workload, needed_by))
        if answer is None:
            answer = self._preloads[workload, needed_by] = self._loop.create_future()
            answer.add_done_callback(_retrieve)
            self.send(Preload(workload=workload, needed_by=needed_by))
        return await asyncio.shield(answer)

    def retire(self) -> None:
        """No more requests: the launcher kills and reaps what it still has, says so, and leaves."""
        self.closed = True
        self._closing.set()
        with contextlib.suppress(OSError):  # it may have hung up already
            self._socket.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # it has exited, or is buried already
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _flush(self) -> None:
        while self._outgoing:
            packet, descriptors = self._outgoing[0]
            try:
                self._socket.sendmsg([packet], _rights(descriptors))
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush_later)
                return
            except OSError:
                pass  # it has hung up: `bereave` tells everyone who waits for an answer
            self._outgoing.popleft()
            for descriptor in descriptors:
                os.close(descriptor)

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
            self._handle(_reply_decoder.decode(packet))

    def _handle(self, reply: LauncherReply) -> None:
        match reply:
            case Forked():
                self.processes[reply.id]._set_forked(reply.pid)
            case Gone():
                end = ProcessEnd(
                    exit_code=reply.exit_code,
                    signal=reply.signal,
                    cpu_seconds=reply.cpu_seconds,
                    peak_memory_bytes=reply.peak_memory_bytes,
                )
                self.processes.pop(reply.id)._set_gone(end)
            case Refused():
                self.processes.pop(reply.id)._set_refused(LaunchRefused(reason=reply.reason))
            case Preloaded():
                self._preloads.pop((reply.workload, reply.needed_by)).set_result(reply.seconds)
            case PreloadFailed():
                failure = WorkloadNotLoadable(message=reply.message, traceback=reply.traceback)
                if reply.id is None:
                    self._preloads.pop((reply.workload, reply.needed_by)).set_exception(failure)
                else:
                    self.processes.pop(reply.id)._set_refused(failure)
        if self._idle:
            self._leave_later()

    @property
    def _idle(self) -> bool:
        return not self.processes and not self._preloads

    def _leave_later(self) -> None:
        """Retire, unless there is something to do by then."""
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
            for descriptor in descriptors:
                os.close(descriptor)
        self._outgoing.clear()
        self._hung_up = True
        self._closing.set()

    # -- the end -------------------------------------------------------------------------------------------------------

    async def closing(self) -> None:
        """Until the link is retired or the launcher has hung up."""
        await self._closing.wait()

    async def bury(self) -> int:
        """Until the launcher process has exited and is reaped, by force if it does not by itself; its exit status."""
        self.retire()
        exited = anyio.Event()
        self._loop.add_reader(self._pidfd, exited.set)
        with anyio.move_on_after(EXIT_GRACE_S if self._hung_up else CLOSE_GRACE_S):
            await exited.wait()
        if not exited.is_set():
            self.kill()
            await exited.wait()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if not self._hung_up:
            self._receive()
        if not self._hung_up:
            self._hang_up()
        return self._launcher.wait()

    async def bereave(self, error: LaunchError) -> None:
        """Answer everyone who still waits for the launcher, once what it left behind is gone."""
        for answer in self._preloads.values():
            answer.set_exception(error)
        self._preloads.clear()
        orphans = list(self.processes.values())
        self.processes.clear()
        for process in orphans:
            if process.pid == 0:
                process._set_refused(error)
            else:
                _kill_group(process.pid)
        for process in orphans:
            if process.pid != 0:
                await _group_gone(process.pid)
                process._set_gone(ProcessEnd(launcher_lost=True))


def _kill_group(group: int) -> None:
    """Kill a group that the launcher can no longer kill. Its number was in use a moment ago, and cannot be new yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


async def _group_gone(group: int) -> None:
    """Until nothing of a killed group is left but zombies for init to reap, or `KILL_GRACE_S` have passed."""
    delay_s = 0.001
    with anyio.move_on_after(KILL_GRACE_S):
        while True:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-group, os.WNOHANG)  # noqa: ASYNC222 - if we are init, or a subreaper, they are ours now
            if not _has_living_member(group):
                return
            await anyio.sleep(delay_s)
            delay_s = min(2 * delay_s, 0.1)


def _has_living_member(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (command) state ppid pgrp …, where the command may hold anything
            state, _, its_group = status.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def _open_log(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, flags, 0o600)


def _end_of_log(path: Path | None) -> str:
    return end_of_log(path)[-_LOG_CHARS:] if path is not None else "(not kept)"


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("gpusched-request", os.MFD_CLOEXEC)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return descriptor


def _rights(descriptors: tuple[int, ...]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []


def _excerpt(data: bytes | bytearray) -> str:
    return repr(bytes(data[:_EXCERPT_BYTES]))


def _retrieve(answer: asyncio.Future[float]) -> None:
    """Take note of a failure that nobody may be waiting for any more."""
    if not answer.cancelled():
        answer.exception()
