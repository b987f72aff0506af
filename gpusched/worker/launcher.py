"""The launcher: a process that has imported the workload and forks one window process per request.

    python -m gpusched.worker.launcher SOCKET_FD PARENT_PID [SEARCH_PATH [WORKLOAD]]

It is started by `gpusched.engines.local.early` only; with WORKLOAD before it is known who will use it (`Claim`).

It has one thread and one loop, which sleeps until the supervisor's socket is readable or a child has exited. It never
touches a GPU, nor OpenMP with more than one thread: the state that these leave in a process does not survive a fork.

A window process leads its own session and process group. When it exits, the group is killed while the zombie still
holds its number, so the signal cannot reach a stranger; only then is it reaped. Its descendants become the launcher's
children (it is a subreaper): those in the group die with it, those that left its session are *strays* and are killed
too. `Gone` is sent once the group and the strays are gone, so the slot behind it is really free.

A child that is neither a window nor in the session of a living one is a stray. So if a window turns children into
daemons, it loses them as soon as any window ends.

When the supervisor closes the socket, or dies, the launcher kills and reaps everything and exits. When the launcher
dies, the kernel kills its windows (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import array
import contextlib
import errno
import faulthandler
import gc
import importlib
import io
import os
import resource
import select
import signal
import socket
import sys
import time

import msgspec

from gpusched import signals
from gpusched.leaving import leave
from gpusched.shared import SharedFiles
from gpusched.worker import linux
from gpusched.worker.child import BLOCKED_SIGNALS, become_window
from gpusched.worker.code import imported_files
from gpusched.worker.loading import code_of, load_function, load_module
from gpusched.worker.mark import MARK
from gpusched.worker.messages import (
    MAX_PACKET_BYTES,
    Claim,
    Fork,
    Forked,
    Gone,
    Imported,
    InputsJob,
    LauncherReply,
    LauncherRequest,
    Needs,
    Preload,
    Preloaded,
    PreloadFailed,
    Refused,
    SurveyJob,
    TrialJob,
    WindowJob,
    in_packets,
)
from gpusched.worker.rehearsal import Rehearsals
from gpusched.worker.stream import error_message, words
from gpusched.workload import BadParameters

_DESCRIPTORS = array.array("i")


class Leaving(msgspec.Struct):
    """A window whose leader is reaped; `gone` is sent once its group and these strays are gone, too."""

    gone: Gone
    strays: set[int]


class Launcher:
    def __init__(self, supervisor: socket.socket) -> None:
        self._supervisor = supervisor
        self._decoder = msgspec.json.Decoder(LauncherRequest)
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray(MAX_PACKET_BYTES)
        self._allowed_cpus = os.sched_getaffinity(0)
        self._preloaded: set[tuple[str, Needs]] = set()
        self._rehearsals = Rehearsals()
        self._shared_files = SharedFiles()
        #: pid of a living leader → id of its fork
        self._ids: dict[int, int] = {}
        #: process group → the window that is leaving
        self._leaving: dict[int, Leaving] = {}
        self._stopping = False
        #: the launcher is ending, and kills the windows that are left
        self._leaving_now = False

    def run(self) -> None:
        """Serve until the supervisor has gone or SIGTERM arrives; then leave nothing behind."""
        pending = linux.block_and_receive(*BLOCKED_SIGNALS)
        poll = select.poll()
        poll.register(self._supervisor, select.POLLIN)
        poll.register(pending, select.POLLIN)
        try:
            while not self._stopping:
                idle_ms = self._shared_files.drop_idle()
                ready = poll.poll(0 if self._rehearsals.are_left and not self._ids else idle_ms)
                if not ready:
                    self._rehearsals.go_on()
                for descriptor, _ in ready:
                    if descriptor != pending:
                        self._receive()
                    elif signal.SIGTERM in linux.pending_signals(pending):
                        self._stopping = True
                    else:
                        self._reap()
        finally:
            self._kill_everything()
            self._rehearsals.drop()

    # -- requests ------------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            size, ancillary, _, _ = self._supervisor.recvmsg_into(
                [self._buffer], socket.CMSG_SPACE(3 * _DESCRIPTORS.itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            size, ancillary = 0, []
        if size == 0:
            self._stopping = True
            return
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data)
        try:
            packet = self._buffer[:size] if len(descriptors) < 3 else _read_all(descriptors[2])
            self._handle(self._decoder.decode(packet), descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _handle(self, request: LauncherRequest, descriptors: array.array[int]) -> None:
        match request:
            case Fork():
                self._fork(request, descriptors[0], descriptors[1])
            case Claim():
                os.dup2(descriptors[0], 1)
                os.dup2(descriptors[0], 2)
                os.environ.update(request.environment)
                linux.rewrite_variable(MARK, request.mark)
            case Preload():
                began = time.monotonic()
                if self._preload(request.workload, request.needed_by, request.imports):
                    seconds = time.monotonic() - began
                    self._send(Preloaded(workload=request.workload, needed_by=request.needed_by, seconds=seconds))

    def _preload(
        self, workload: str, needed_by: Needs, imports: tuple[str, ...] = (), fork_id: int | None = None
    ) -> bool:
        """Import the parts of `workload` that `needed_by` stands for, and for windows the modules `imports`.

        A failure is not remembered: the next call tries again, since the cause may have been mended.
        """
        if not self._preloaded.isdisjoint({(workload, needed_by), (workload, "window")}):
            return True
        try:
            _import_parts(workload, needed_by)
            for name in imports if needed_by == "window" else ():
                _import(name)
        except (Exception, SystemExit) as error:  # a user's module can raise anything
            self._send(Imported(files=imported_files(code_of(workload), imports)))
            failure = error_message("bad_parameters", error)
            self._send(
                PreloadFailed(
                    id=fork_id,
                    workload=workload,
                    needed_by=needed_by,
                    message=failure.message,
                    traceback=failure.traceback,
                )
            )
            importlib.invalidate_caches()
            return False
        self._preloaded.add((workload, needed_by))
        if files := imported_files(code_of(workload), imports):
            self._send(Imported(files=files))
        if needed_by == "window":
            self._rehearsals.begin(workload)
        else:
            gc.freeze()
        return True

    def expect(self, workload: str) -> None:
        """Import the modules for surveys of `workload`. A failure comes again with the first request."""
        with contextlib.suppress(Exception):
            _import_parts(workload, "survey")
            gc.freeze()
            self._preloaded.add((workload, "survey"))

    def _fork(self, request: Fork, pipe: int, log: int) -> None:
        job = request.job
        needs_all = not isinstance(job, SurveyJob | InputsJob)
        if needs_all and not self._preload(job.workload, "window", job.imports, request.id):
            return
        if isinstance(job, WindowJob | TrialJob):
            self._rehearsals.before_fork()
        if linux.thread_count() != 1:
            names = ", ".join(linux.thread_names()[1:])
            reason = f"the launcher has threads, which a fork would lose; importing the workload started: {names}"
            self._send(Refused(id=request.id, reason=reason))
            return
        launcher, shares = os.getpid(), job.shares if isinstance(job, WindowJob) else ""
        memory_file = self._shared_files.descriptor(shares)
        try:
            pid = os.fork()
            if pid == 0:
                become_window(request, pipe, log, launcher, self._allowed_cpus, memory_file)
        except OSError as error:
            no_memory = error.errno == errno.ENOMEM
            self._send(Refused(id=request.id, reason=f"fork: {error.strerror}", out_of_memory=no_memory))
            return
        self._ids[pid] = request.id
        self._shared_files.entered(shares, pid)
        self._send(Forked(id=request.id, pid=pid, shared_bytes=self._rehearsals.shared_bytes))

    def _send(self, reply: LauncherReply) -> None:
        try:
            for packet in in_packets(self._encoder.encode(reply)):
                self._supervisor.send(packet)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise
            self._stopping = True

    # -- reaping -------------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Reap every child that has exited, and report each window that has nothing left."""
        any_ended = False
        while (pid := _exited_child()) is not None:
            any_ended = True
            if pid in self._ids:
                self._leader_exited(pid)
            else:
                os.waitpid(pid, 0)
                for leaving in self._leaving.values():
                    leaving.strays.discard(pid)
        if not any_ended or not self._leaving:
            return
        strays = self._kill_strays()
        for group, leaving in list(self._leaving.items()):
            leaving.strays |= strays
            if not leaving.strays and not _group_exists(group):
                del self._leaving[group]
                self._send(leaving.gone)

    def _leader_exited(self, pid: int) -> None:
        _kill_group(pid)
        _, status, usage = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        gone = Gone(
            id=self._ids.pop(pid),
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            cpu_seconds=round(usage.ru_utime + usage.ru_stime, 6),
            peak_memory_bytes=usage.ru_maxrss * 1024,
            killed=self._leaving_now,
        )
        self._leaving[pid] = Leaving(gone, set())
        self._shared_files.left(pid)

    def _kill_strays(self) -> set[int]:
        """Kill the strays that no window waits for yet, and return them."""
        waited_for = set().union(*(leaving.strays for leaving in self._leaving.values()))
        strays = set()
        for child in linux.children():
            if child in self._ids or child in waited_for:
                continue
            try:
                if os.getsid(child) in self._ids:
                    continue
                os.kill(child, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
            strays.add(child)
        return strays

    def _kill_everything(self) -> None:
        self._leaving_now = True
        for pid in self._ids:
            _kill_group(pid)
            _kill_process(pid)  # one that has not called setsid yet
        while True:
            for child in linux.children():
                _kill_process(child)
            try:
                exited = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                break
            if exited is not None and exited.si_pid in self._ids:
                self._leader_exited(exited.si_pid)
            elif exited is not None:
                os.waitpid(exited.si_pid, 0)
        for leaving in self._leaving.values():
            self._send(leaving.gone)


def _import_parts(workload: str, needed_by: Needs) -> None:
    load_function(workload)
    preload = getattr(load_module(workload), "preload" if needed_by == "window" else "preload_survey", None)
    if preload is not None:
        preload()


def _import(name: str) -> None:
    """Import a module that a command's settings name. Raises BadParameters."""
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {words(error)}"
        raise BadParameters(f"command.preload: importing {name} failed: {why}") from error


def _exited_child() -> int | None:
    """The pid of a child that has exited and is still to be reaped; None without one."""
    try:
        exited = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if exited is None else exited.si_pid


def _kill_group(group: int) -> None:
    """Kill a group whose leader is not reaped yet, so that its number is not anybody else's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _kill_process(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        _log(f"process group {group} has a member of another user, which cannot be killed")
        return False
    return True


def _read_all(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    data = bytearray()
    while len(data) < size and (chunk := os.pread(descriptor, size - len(data), len(data))):
        data += chunk
    return bytes(data)


def _log(text: str) -> None:
    print(f"gpusched launcher {os.getpid()}: {text}", file=sys.stderr)  # noqa: T201


def main(arguments: list[str]) -> int:
    descriptor, parent = int(arguments[0]), int(arguments[1])
    sys.path.extend(arguments[2:3])
    signals.restore()
    linux.die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        return 0
    linux.adopt_orphans()
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # Every window inherits this; its descriptor 2 is its log.
    faulthandler.enable(file=2, all_threads=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    gc.freeze()
    launcher = Launcher(socket.socket(fileno=descriptor))
    for workload in arguments[3:]:
        launcher.expect(workload)
    launcher.run()
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
