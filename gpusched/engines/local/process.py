"""One forked process: the messages on its pipe, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import msgspec

from gpusched.engines.attendance import Attendant
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

_READ_BYTES = 64 * 1024
_EXCERPT_BYTES = 200

_message_decoder = msgspec.json.Decoder(PipeMessage)


class Process:
    """A forked process; `attendant` hears of it."""

    def __init__(
        self,
        launcher_pid: int,
        pipe: int,
        attendant: Attendant[Process, ProcessEnd],
        close_log: Callable[[int], int],
        *,
        read_after_s: float,
    ) -> None:
        """`close_log` is called once, with the pid, when no process writes to the log any more; it returns the number
        of bytes that were cut out.

        The pipe is read once the process has run for `read_after_s`, or has ended.
        """
        self.pid = 0
        #: memory that it shares with its launcher
        self.shared_bytes = 0
        self._launcher_pid = launcher_pid
        self._attendant = attendant
        self._close_log = close_log
        self._loop = asyncio.get_running_loop()
        self._read_after_s = read_after_s
        self._timer: asyncio.TimerHandle | None = None
        self._pipe = pipe
        #: the loop calls `_read` when there is something to read
        self._is_watched = False
        #: nothing more is read: the pipe is at its end, or the process has misbehaved
        self._is_read = False
        self._is_gone = False
        self._violation: str | None = None
        self._line = bytearray()
        self._received_bytes = 0
        self._progress_count = 0
        self._began = self._loop.time()
        #: loop time at which it was first sent SIGKILL
        self._killed_at: float | None = None
        #: loop time at which it was first seen to have ended
        self._ended_at: float | None = None
        #: the rest of its group, and the launcher's strays, have been sent SIGKILL, as the launcher was late
        self._rest_killed = False
        self._is_stuck = False

    def signal(self, signum: int) -> None:
        """Signal the whole process group; nothing happens if the process has been reaped.

        SIGTERM is followed by SIGCONT, so that a process which was stopped can obey.
        """
        if not self.pid or self._is_gone:
            return
        if signum == signal.SIGKILL and self._killed_at is None:
            self._killed_at = self._loop.time()
        groups.signal_group(self.pid, self._launcher_pid, signum)
        if signum == signal.SIGTERM:
            groups.signal_group(self.pid, self._launcher_pid, signal.SIGCONT)

    # -- called by the link --------------------------------------------------------------------------------------------

    def set_forked(self, pid: int, shared_bytes: int) -> None:
        self.pid, self.shared_bytes = pid, shared_bytes
        if self._read_after_s:
            self._timer = self._loop.call_later(self._read_after_s, self._watch_pipe)
        else:
            self._watch_pipe()
        self._attendant.started(self)

    def set_refused(self, error: LaunchError | OSError) -> None:
        self._close_pipe()
        self._close_log(self.pid)
        self._attendant.refused(error)

    def set_gone(self, end: ProcessEnd) -> None:
        self._is_gone = True
        if self._timer is not None:
            self._timer.cancel()
        while not self._is_read:
            self._read(draining=True)
        self._close_pipe()
        if self._line and self._violation is None and end.exit_code is not None:
            self._violation = f"its last line does not end: {_excerpt(self._line)}"
        self._attendant.ended(
            msgspec.structs.replace(
                end,
                violation=self._violation,
                killed=end.killed or self._killed_at is not None,
                log_left_out_bytes=self._close_log(self.pid),
            )
        )

    def look(self, strays: Callable[[], list[int]], *, launcher_stopped: bool) -> bool:
        """Check the process: report it if it is stuck; return whether its launcher owes its end.

        `strays` lists processes that have left their windows: the launcher reports no window as gone before they die. A
        launcher that is stopped kills neither them nor the rest of the group, so it owes the end whatever is left.
        """
        if not self.pid or self._is_gone:
            return False
        now = self._loop.time()
        if self._ended_at is None and not proc.lives(self.pid):
            self._ended_at = now  # its launcher kills the rest of the group, and may be about to report that
            return launcher_stopped
        due_at = self._ended_at if self._killed_at is None else self._killed_at
        late_s = 0.0 if due_at is None else now - due_at
        if self._ended_at is not None and launcher_stopped:
            return True
        # Half of the grace is its launcher's, to kill its remaining processes; in the other half those have to die.
        late = 2 * late_s >= KILL_GRACE_S
        if self._ended_at is None and not late:
            return False
        # Until it calls setsid it is in its launcher's group.
        left = proc.members(self.pid) or ([self.pid] if self._ended_at is None else strays())
        if left and self._rest_killed and late_s >= KILL_GRACE_S:
            self.be_stuck(left[0])
        elif left and late and not self._rest_killed:
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
            self._attendant.stuck(f"{its}does not die ({proc.doing(pid)})")

    # -- the pipe ------------------------------------------------------------------------------------------------------

    def _watch_pipe(self) -> None:
        self._timer = None
        self._is_watched = True
        self._loop.add_reader(self._pipe, self._read)

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
                if self._is_read:
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
        self._attendant.heard(message)

    def _violate(self, violation: str) -> None:
        self._violation = violation
        self._line.clear()
        self._stop_reading()
        self.signal(signal.SIGKILL)

    def _stop_reading(self) -> None:
        self._is_read = True
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._pipe)

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def _excerpt(data: bytes | bytearray) -> str:
    return repr(bytes(data[:_EXCERPT_BYTES]))
