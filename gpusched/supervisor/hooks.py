"""Hooks: an operator's command that is called when a batch ends or is held, for mail, chat, or the next stage.

It is called once for each event, with a JSON object on its stdin, and no window waits for it. Its output is discarded,
except for the last line of its stderr if it fails. Each call is made at most once: it is lost if the daemon dies first,
or if `MOST_WAITING` others wait already.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import signal
from asyncio.subprocess import DEVNULL
from collections.abc import Callable, Sequence

import anyio
import anyio.abc

from gpusched.core.events import BatchFinished, BatchHeld
from gpusched.core.statuses import totals
from gpusched.core.totals import batch_object
from gpusched.protocol import BatchStatus
from gpusched.supervisor.followers import News

#: calls that may wait for the one that runs
MOST_WAITING = 1000
#: bytes of a hook's stderr that are kept
_KEPT = 4096

log = logging.getLogger("gpusched.daemon")


class Hooks:
    """Calls `command` (program and arguments) for the updates that it follows, each for at most `timeout_s` seconds."""

    def __init__(self, command: Sequence[str], timeout_s: float, batch: Callable[[str], BatchStatus | None]) -> None:
        self._command = tuple(command)
        self._timeout_s = timeout_s
        self._batch = batch
        self._ended = anyio.Event()
        self._send, self._receive = anyio.create_memory_object_stream[bytes](MOST_WAITING)

    def follow(self, news: News) -> None:
        """Queue a call if a batch has finished or is held."""
        if not self._command:
            return
        match news:
            case BatchFinished(batch_id=batch_id, at=at):
                self._call("finished", batch_id, at, None)
            case BatchHeld(batch_id=batch_id, at=at, reason=reason):
                self._call("held", batch_id, at, reason)

    async def finished(self) -> None:
        """Wait for all calls; no further update may follow."""
        self._send.close()
        await self._ended.wait()

    async def run(self) -> None:
        """Make the calls, one after the other."""
        async with self._receive:
            async for message in self._receive:
                await self._run(message)
        self._ended.set()

    def _call(self, event: str, batch_id: str, at: float, reason: str | None) -> None:
        row = self._batch(batch_id)
        if row is None:
            return
        batch = batch_object(row.id, row.output_dir, totals(row.counts), max(0.0, at - row.submitted_at))
        when = dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds")
        message = {"event": event, "at": when, "reason": reason} | batch
        try:
            self._send.send_nowait(json.dumps(message).encode() + b"\n")
        except anyio.WouldBlock:
            log.warning("hook left out: too many wait event=%s batch=%s", event, batch_id)

    async def _run(self, message: bytes) -> None:
        try:
            process = await anyio.open_process(self._command, stdout=DEVNULL, start_new_session=True)
        except OSError as error:
            log.warning("hook cannot be called command=%r why=%r", self._command[0], error.strerror)
            return
        stderr = bytearray()
        try:
            with anyio.move_on_after(self._timeout_s) as patience:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_feed, process, message)
                    assert process.stderr is not None
                    async for part in process.stderr:
                        stderr += part
                        del stderr[:-_KEPT]
                    await process.wait()
        finally:
            # Its child processes end with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.aclose()
        last = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        if patience.cancelled_caught:
            log.warning("hook stopped after %g s command=%r stderr=%r", self._timeout_s, self._command[0], last)
        elif process.returncode:
            log.warning("hook failed status=%d command=%r stderr=%r", process.returncode, self._command[0], last)


async def _feed(process: anyio.abc.Process, message: bytes) -> None:
    """Write the message to the hook's stdin, which it may have closed without reading."""
    assert process.stdin is not None
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.send(message)
        await process.stdin.aclose()
