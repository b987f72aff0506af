"""A window process's side of its pipe: one JSON object per line, and progress that is merged before it is sent."""

from __future__ import annotations

import _thread
import os
import signal
import time
import traceback
from types import FrameType
from typing import cast

import msgspec

from gpusched import files
from gpusched.worker.messages import Error, ErrorKind, PipeMessage, Progress
from gpusched.worker.tracebacks import source_line
from gpusched.workload import ProgramFailed, ProgramSkipped

#: seconds between progress messages, at least
PROGRESS_INTERVAL_S = 0.2
MAX_PHASE_CHARS = 200
MAX_MESSAGE_CHARS = 4 * 1024
MAX_TRACEBACK_CHARS = 64 * 1024
#: exit code of a process whose supervisor is gone
ORPHANED = 70


class Stream:
    """The write end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._encoder = msgspec.json.Encoder()

    def send(self, message: PipeMessage) -> None:
        """Write the whole line. Ends the process, without a message, if nobody reads the pipe any more."""
        try:
            files.write(self._descriptor, self._encoder.encode(message) + b"\n")
        except BrokenPipeError:
            os._exit(ORPHANED)


class MergedProgress:
    """`Report` for a window process: calls in quick succession become one message.

    A call is sent at once if the interval since the last message is over. Otherwise the latest call is sent when it is:
    by the next call, or by an alarm if there is none, so that a long phase is seen, too (unless it is one call into a
    library: the alarm runs only between Python's instructions, and does not interrupt system calls). Only the main
    thread can set the alarm, and a workload may have set its own, as a time limit: then it waits for the next call. A
    window that is shorter than the interval sends nothing.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._pending: tuple[str, int, int] | None = None
        self._armed = False
        self._main_thread = _thread.get_ident()
        self._due_at = time.monotonic() + PROGRESS_INTERVAL_S

    def __call__(self, phase: str, round: int = 0, rounds: int = 0) -> None:
        self._pending = (phase, round, rounds)
        if time.monotonic() >= self._due_at:
            self._send_pending()
        elif not self._armed and _thread.get_ident() == self._main_thread:
            self._arm()

    def stop(self) -> None:
        """Send no more progress; a pending report is dropped, because it is out of date."""
        self._pending = None
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _arm(self) -> None:
        if signal.getsignal(signal.SIGALRM) not in (signal.SIG_DFL, self._on_alarm):
            return
        self._armed = True
        signal.signal(signal.SIGALRM, self._on_alarm)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, max(self._due_at - time.monotonic(), 0.001))

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        self._armed = False
        self._send_pending()

    def _send_pending(self) -> None:
        # Taken before it is sent: the alarm may interrupt the lines below, and then finds nothing to do.
        pending, self._pending = self._pending, None
        if pending is None:
            return
        self._due_at = time.monotonic() + PROGRESS_INTERVAL_S
        phase, round, rounds = pending
        # Whatever a workload reports (numbers of numpy, averages), it is no reason for its window to fail.
        phase = encodable(str(phase)[:MAX_PHASE_CHARS])
        self._stream.send(Progress(phase=phase, round=_whole(round), rounds=_whole(rounds)))


def _whole(number: object) -> int:
    """A number as a whole one; 0 for anything else."""
    try:
        return int(cast(int, number))
    except (TypeError, ValueError, OverflowError):
        return 0


def error_message(kind: ErrorKind, error: BaseException) -> Error:
    """Make the message for an exception; of a long traceback it keeps the end, where the cause is."""
    if isinstance(error, ProgramFailed | ProgramSkipped):
        # The program's own words. What it wrote is the only traceback there is.
        return Error(
            kind=kind,
            message=encodable(str(error)[:MAX_MESSAGE_CHARS]),
            traceback=encodable(error.output[-MAX_TRACEBACK_CHARS:]),
            cause=type(error).__name__,
            source_line=encodable(source_line(error.output)),
        )
    # Messages of these kinds were written for people, so they need no class name before them, and no line behind them.
    written = kind in ("no_data", "bad_data", "bad_parameters", "permanent")
    text, remedy = words(error), getattr(error, "remedy", "")
    if remedy:
        text = f"{text}; {remedy}"
    name = type(error).__name__
    if text and not written:
        text = f"{name}: {text}"
    message, whole = text or name, "".join(traceback.format_exception(error))
    return Error(
        kind=kind,
        message=encodable(message[:MAX_MESSAGE_CHARS]),
        traceback=encodable(whole[-MAX_TRACEBACK_CHARS:]),
        cause=encodable(name),
        place=encodable(_place(error)) if kind == "raised" or isinstance(error, SystemExit) else "",
        source_line="" if written else encodable(source_line(whole)),
    )


def _place(error: BaseException) -> str:
    """The type of an exception and the line that raised it; empty for an error of a file or a connection.

    Those come of the machine, which may be in another state at the next attempt.
    """
    if isinstance(error, OSError):
        return ""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    return "".join(f"{type(error).__qualname__} at {frame.filename}:{frame.lineno}" for frame in frames)


def words(error: BaseException) -> str:
    """The message of an exception; empty if its own `__str__` fails."""
    try:
        return str(error)
    except Exception:  # the one that it came from is worth more
        return ""


def encodable(text: str) -> str:
    """Replace the lone surrogates that undecodable file names leave in messages."""
    return text.encode("utf-8", "replace").decode("utf-8")
