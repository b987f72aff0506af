"""One forked process: the messages on its pipe, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import anyio
import msgspec

from gpusched.engines.local import groups, proc
from gpusched.engines.local.groups import KILL_GRACE_S
from gpusched.errors import LaunchError
from gpusched.worker.messages import (
    MAX_LINE_BYTES,
    MAX_STREAM_BYTES,
    PROGRESS_BURST,
    PROGRESS_PER_S,
    PipeMessage,
    ProcessEnd,
    Progress,
)

OnMessage = Callable[[PipeMessage], None]
OnStuck = Callable[[str], None]

_READ_BYTES = 64 * 1024
_EXCERPT_BYTES = 200

_message_decoder = msgspec.json.Decoder(PipeMessage)


class Process:
    """A forked process. `wait` must be awaited for each one."""

    def __init__(
        self, launcher_pid: int, pipe: int, on_stuck: Callable[[int, str], None], close_log: Callable[[int], int]
    ) -> None:
        """`on_stuck` is called with the pid and a sentence if the process is stuck and `wait` has no callback for it.

        `close_log` is called once, with the pid, when no process writes to the log any more; it returns the number of
        bytes that were cut out.
        """
        self.pid = 0
        #: memory that it shares with its launcher
        self.shared_bytes = 0
        self._launcher_pid = launcher_pid
        self._close_log = close_log
        self._loop = asyncio.get_running_loop()
        self._forked: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[ProcessEnd] = self._loop.create_future()
        self._pipe = pipe
        self._reading = False
        self._on_message: OnMessage | None = None
        self._on_stuck: OnStuck | None = None
        self._on_stuck_alone = on_stuck
        self._failure: BaseException | None = None
        self._violation: str | None = None
        self._line = bytearray()
        self._received_bytes = 0
        self._progress_count = 0
        self._began = self._loop.time()
        #: loop time at which it was first sent SIGKILL
        self._killed_at: float | None = None
        #: loop time at which it was first seen to have ended
        self._ended_at: float | None = None
        #: what was left of its group and of the launcher's strays when it was overdue has been sent SIGKILL
        self._rest_killed = False
        self._is_stuck = False

    def signal(self, signum: int) -> None:
        """Signal the whole process group; nothing happens if the process has been reaped.

        SIGTERM is followed by SIGCONT, so that a process which was stopped can obey.
        """
        if not self.pid or self._gone.done():
            return
        if signum == signal.SIGKILL and self._killed_at is None:
            self._killed_at = self._loop.time()
        groups.signal_group(self.pid, self._launcher_pid, signum)
        if signum == signal.SIGTERM:
            groups.signal_group(self.pid, self._launcher_pid, signal.SIGCONT)

    async def forked(self) -> None:
        """Wait until the process exists. Raises WorkloadNotLoadable, LaunchRefused, LauncherLost."""
        await self._forked

    async def wait(self, on_message: OnMessage, on_stuck: OnStuck | None = None) -> ProcessEnd:
        """Call `on_message` for each message until the whole process group is gone and the pipe is read to the end.

        `on_stuck` is called once, with a sentence, if the group is still there `KILL_GRACE_S` seconds after a SIGKILL.
        An exception of `on_message` kills the process and is raised here. Cancelling kills the process, too, and waits
        until it is gone (at most `KILL_GRACE_S`).
        """
        self._on_message, self._on_stuck = on_message, on_stuck
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
        return msgspec.structs.replace(end, violation=self._violation, killed=end.killed or self._killed_at is not None)

    # -- called by the link --------------------------------------------------------------------------------------------

    def set_forked(self, pid: int, shared_bytes: int) -> None:
        self.pid, self.shared_bytes = pid, shared_bytes
        if self._forked.done():  # fork() was cancelled in the meantime: nobody will wait for this process
            self.signal(signal.SIGKILL)
        else:
            self._forked.set_result(None)

    def set_refused(self, error: LaunchError) -> None:
        self._close_pipe()
        self._close_log(self.pid)
        if not self._forked.done():
            self._forked.set_exception(error)

    def set_gone(self, end: ProcessEnd) -> None:
        left_out = self._close_log(self.pid)
        self._gone.set_result(msgspec.structs.replace(end, log_left_out_bytes=left_out) if left_out else end)
        if self._forked.cancelled():
            self._close_pipe()

    def look(self, strays: Callable[[], list[int]], *, launcher_stopped: bool) -> bool:
        """Check the process: report it if it is stuck; return whether its launcher owes its end.

        `strays` lists processes that have left their windows: the launcher reports no window as gone before they die. A
        launcher that is stopped kills neither them nor the rest of the group, so it owes the end whatever is left.
        """
        if not self.pid or self._gone.done():
            return False
        now = self._loop.time()
        if self._ended_at is None and not proc.lives(self.pid):
            self._ended_at = now  # its launcher kills the rest of the group
        due_at = self._ended_at if self._killed_at is None else self._killed_at
        overdue = due_at is not None and now - due_at >= KILL_GRACE_S
        if self._ended_at is not None and launcher_stopped:
            return True
        if self._ended_at is None and not overdue:
            return False
        left = proc.members(self.pid) or strays()
        if left and overdue:
            if self._rest_killed:
                self.be_stuck(left[0])
            else:
                self._kill_rest(strays())
        return not left

    def _kill_rest(self, strays: list[int]) -> None:
        """Kill what its launcher should have killed by now: only what outlives this does not die."""
        self._rest_killed = True
        for pid in (self.pid, *strays):
            groups.signal_group(pid, self._launcher_pid, signal.SIGKILL)

    def be_stuck(self, pid: int) -> None:
        """Report, once, that the group was killed but its process `pid` does not die."""
        if not self._is_stuck:
            self._is_stuck = True
            its = "" if pid == self.pid else f"its process {pid} "
            trouble = f"{its}does not die ({proc.doing(pid)})"
            if self._on_stuck is not None:
                self._on_stuck(trouble)
            else:
                self._on_stuck_alone(self.pid, trouble)

    # -- the pipe ------------------------------------------------------------------------------------------------------

    def _read(self, draining: bool = False) -> None:
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            # The group is gone, so only strangers can still hold the other end of the pipe.
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
        except BaseException as error:  # raised to the caller of wait(), which is where it belongs
            self._failure = error
            self._stop_reading()
            self.signal(signal.SIGKILL)

    def _violate(self, violation: str) -> None:
        self._violation = violation
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


def _excerpt(data: bytes | bytearray) -> str:
    return repr(bytes(data[:_EXCERPT_BYTES]))
