"""Hooks: an operator's command that is called when a batch ends or is held, for mail, chat, or the next stage.

It is called once for each event, with a JSON object on its stdin, and no window waits for it. Its output is discarded,
except for the last line of its stderr if it fails. Each call is made at most once: it is lost if the daemon dies first,
or if `MOST_WAITING` others wait already.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections import deque
from collections.abc import Callable

import anyio

from gpusched import config, programs
from gpusched.core.events import BatchFinished, BatchHeld
from gpusched.core.statuses import totals
from gpusched.core.totals import batch_object
from gpusched.protocol import BatchStatus
from gpusched.supervisor.followers import News

#: calls that may wait for the one that runs
MOST_WAITING = 1000

log = logging.getLogger("gpusched.daemon")


class Hooks:
    """Calls the configured command for the news that it follows. `batch` reads a batch from the store."""

    def __init__(self, settings: config.Hooks, batch: Callable[[str], BatchStatus | None]) -> None:
        self._command = settings.command
        self._timeout_s = settings.timeout_s
        self._batch = batch
        self._waiting: deque[bytes] = deque()
        #: no further news follow
        self._is_last = False
        #: set when a call waits, or when there will be no more
        self._nudge = anyio.Event()
        self._ended = anyio.Event()

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
        self._is_last = True
        self._nudge.set()
        await self._ended.wait()

    async def run(self) -> None:
        """Make the calls, one after the other."""
        while self._waiting or not self._is_last:
            if self._waiting:
                await self._run(self._waiting.popleft())
            else:
                self._nudge = anyio.Event()
                await self._nudge.wait()
        self._ended.set()

    def _call(self, event: str, batch_id: str, at: float, reason: str | None) -> None:
        row = self._batch(batch_id)
        if row is None:
            return
        batch = batch_object(row.id, row.output_dir, totals(row.counts), max(0.0, at - row.submitted_at))
        when = dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds")
        message = {"event": event, "at": when, "reason": reason} | batch
        if len(self._waiting) >= MOST_WAITING:
            log.warning("hook left out: too many wait event=%s batch=%s", event, batch_id)
            return
        self._waiting.append(json.dumps(message).encode() + b"\n")
        self._nudge.set()

    async def _run(self, message: bytes) -> None:
        command, timeout_s = self._command, self._timeout_s
        try:
            called = await programs.call(command, message, timeout_s=timeout_s)
        except OSError as error:
            log.warning("hook cannot be called command=%r why=%r", command[0], error.strerror)
            return
        if called.status is None:
            log.warning("hook stopped after %g s command=%r stderr=%r", timeout_s, command[0], called.said)
        elif called.status:
            log.warning("hook failed status=%d command=%r stderr=%r", called.status, command[0], called.said)
