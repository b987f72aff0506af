"""Other programs: the only module that starts processes, besides launchers and windows, which fork.

Each program leads a session of its own: a Ctrl-C meant for gpusched does not reach it, and a signal to its group
reaches its children, too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NamedTuple

PIPE, STDOUT = subprocess.PIPE, subprocess.STDOUT
Program = subprocess.Popen[bytes]
#: bytes of a called program's stderr that are kept, and characters of its last line
_KEPT, _MOST_CHARS = 4096, 500


class Called(NamedTuple):
    """How a called program ended."""

    #: exit status, negative for a signal; None: it took too long and was stopped. Then its children, which keep its
    #: stderr open, may have been stopped as well
    status: int | None
    #: the last line of its stderr
    said: str


def start(
    command: Sequence[str | os.PathLike[str]],
    *,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    environment: Mapping[str, str] | None = None,
    kept_open: tuple[int, ...] = (),
) -> Program:
    """Start a program without input. `kept_open`: descriptors that it inherits. Raises OSError."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        pass_fds=kept_open,
        start_new_session=True,
    )


def ended(program: Program, within_s: float) -> int | None:
    """Wait for a program's end; return its exit status, negative for a signal, or None if it takes longer."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return program.wait(within_s)
    return None


def signal_group(program: Program, signum: int) -> None:
    """Signal a program and its children; nothing happens if none is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signum)


def answer(*command: str | os.PathLike[str], within_s: float) -> str | None:
    """The stdout of a program; None if it is missing, fails or takes longer."""
    try:
        with start(command, stdout=PIPE, stderr=subprocess.DEVNULL) as program:
            try:
                output, _ = program.communicate(timeout=within_s)
            finally:
                signal_group(program, signal.SIGKILL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return output.decode(errors="replace") if program.returncode == 0 else None


async def call(command: Sequence[str], message: bytes, *, timeout_s: float) -> Called:
    """Call a program with a message as its stdin, and discard its stdout. Its children end with it. Raises OSError."""
    import anyio  # `start` comes before everything that is slow to import

    stderr = bytearray()
    with _readable(message) as stdin, _pipe() as (ours, theirs):
        with theirs:
            process = await anyio.open_process(
                command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True
            )
        try:
            with anyio.move_on_after(timeout_s):
                while part := await _part(ours):
                    stderr += part
                    del stderr[:-_KEPT]
                await process.wait()
        finally:
            status = process.returncode
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.wait()
    last = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return Called(status, last[-_MOST_CHARS:])


def _readable(message: bytes) -> IO[bytes]:
    """A file in memory with the message: a program that does not read it keeps nobody waiting."""
    file = os.fdopen(os.memfd_create("gpusched-message", os.MFD_CLOEXEC), "w+b")
    file.write(message)
    file.seek(0)
    return file


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A pipe of our own, which is closed here even if a process keeps the other end; asyncio's waits for that one."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as ours, os.fdopen(writer, "wb", buffering=0) as theirs:
        yield ours, theirs


async def _part(pipe: IO[bytes]) -> bytes:
    """The next bytes from the pipe; empty at its end."""
    import anyio

    await anyio.wait_readable(pipe)
    return os.read(pipe.fileno(), _KEPT)
