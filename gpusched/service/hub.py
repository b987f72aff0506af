"""The hub: sends updates to subscribers, without ever waiting for one.

Updates are gathered for a moment, encoded once, and pushed to each subscriber that they concern. Of several reports of
progress of a window, only the last is sent. If there are too many updates at once (a large batch is cancelled),
subscribers get a new snapshot instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from gpusched import clock
from gpusched.core.events import (
    DeviceChanged,
    DeviceLost,
    DeviceRead,
    ProgressReported,
    Update,
    WindowMoved,
)
from gpusched.core.model import Reading, WindowKey
from gpusched.core.samples import Recent
from gpusched.core.states import Running
from gpusched.core.statuses import ACTIVE
from gpusched.core.updates import batch_of
from gpusched.engines.condition import TroubleChanged
from gpusched.protocol import BatchStatus, DeviceReported, Snapshot, encode
from gpusched.service import views
from gpusched.service.views import RECENT_WINDOWS
from gpusched.supervisor.followers import News, Noted, TurnEnded
from gpusched.supervisor.runtime import Runtime

#: seconds for which updates are gathered
GATHER_S = 0.05
#: if more updates than this are gathered, a snapshot replaces them
FLOOD = 2000
#: finished batches that a snapshot of all batches shows
RECENT_BATCHES = 50


class Subscriber(Protocol):
    def push(self, frames: bytes) -> None:
        """Take the frames without blocking, or drop the subscriber."""


class Hub:
    """Distributes the updates of a runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._store = runtime.store
        self._condition = runtime.condition
        self._pool = runtime.supervisor.scheduler.pool
        #: readings of the last minutes
        self.recent = Recent()
        #: the next push must be a new snapshot
        self._anew = False
        #: the batch that a subscriber follows; None: all
        self._subscribers: dict[Subscriber, str | None] = {}
        #: updates that have not been pushed yet; empty while there are no subscribers
        self._pending: list[Update | Reading] = []
        #: the last report of each running window
        self._progress: dict[WindowKey, ProgressReported] = {}
        #: the last report of each running window that has been pushed
        self._pushed_progress: dict[WindowKey, ProgressReported] = {}
        self._timer: asyncio.TimerHandle | None = None

    # -- gathering ---------------------------------------------------------------------------------------------------

    def follow(self, news: News) -> None:
        match news:
            case WindowMoved(key=key, new=new):
                if type(new) is not Running:
                    self._progress.pop(key, None)
                    self._pushed_progress.pop(key, None)
            case DeviceLost() | Noted() | TurnEnded():
                return
            case TroubleChanged():
                # A new snapshot: trouble has no delta, which a client of an older version would not know.
                self.renew()
                return
            case DeviceRead(reading=reading):
                self.recent.add(reading)
                self._gather(reading)
                return
            case ProgressReported(key=key):
                self._progress[key] = news
        self._gather(news)

    def _gather(self, update: Update | Reading) -> None:
        if not self._subscribers:
            return
        if not isinstance(update, ProgressReported):
            self._pending.append(update)
        self._push_soon()

    def _push_soon(self) -> None:
        if self._timer is None and self._subscribers:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._push)

    # -- subscribers -------------------------------------------------------------------------------------------------

    def subscribe(self, subscriber: Subscriber, batch_id: str | None) -> None:
        """Push a snapshot of one batch or of all, then every later update."""
        self._push()
        self._subscribers[subscriber] = batch_id
        subscriber.push(encode(self.snapshot(batch_id)))

    def renew(self) -> None:
        """Push a new snapshot soon, behind the updates gathered: something changed for which there is no delta."""
        self._anew = True
        self._push_soon()

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.pop(subscriber, None)
        if not self._subscribers:
            self._pending.clear()
            self._pushed_progress.clear()

    def snapshot(self, batch_id: str | None) -> Snapshot:
        """The state that the store has committed, on which later deltas build."""
        batches = list(self._shown(batch_id))
        active = [
            line
            for batch in batches
            for status in ACTIVE
            if batch.counts.get(status)
            for line in self._store.windows(batch.id, status=status)
        ]
        return Snapshot(
            at=clock.wall(),
            batches=tuple(batches),
            active=tuple(active),
            progress=tuple(self._progress[line.key] for line in active if line.key in self._progress),
            devices=views.devices(self._pool),
            ended=tuple(map(views.ending, self._store.endings(batch_id, RECENT_WINDOWS))),
            failed=tuple(map(views.ending, self._store.endings(batch_id, RECENT_WINDOWS, failed=True))),
            troubles=self._condition.troubles,
        )

    def _shown(self, batch_id: str | None) -> Iterator[BatchStatus]:
        if batch_id is not None:
            batch, stage = self._store.batch(batch_id), self._store.staged.row(batch_id)
            if stage is not None and (batch is None or batch.state == "finished"):
                yield views.stage_status(self._store, stage)
            elif batch is not None:
                yield views.batch_status(batch)
            return
        batches = list(views.batches(self._store))
        finished = [batch for batch in batches if batch.state == "finished"]
        older = {batch.id for batch in finished[:-RECENT_BATCHES]}
        yield from (batch for batch in batches if batch.id not in older)

    # -- pushing -----------------------------------------------------------------------------------------------------

    def _push(self) -> None:
        """Push the gathered updates."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, []
        if not self._subscribers:
            return
        parts = self._frames(pending) if len(pending) <= FLOOD else None
        # A device that is being tried may be new, and subscribers do not know it yet: only a snapshot shows it.
        joining = any(isinstance(update, DeviceChanged) and update.health == "trying" for update in pending)
        anew, self._anew = self._anew or joining, False
        frames: dict[str | None, bytes] = {}
        for subscriber, wanted in tuple(self._subscribers.items()):
            if wanted not in frames:
                if parts is None:
                    frames[wanted] = encode(self.snapshot(wanted))
                else:
                    frames[wanted] = b"".join(f for about, f in parts if about in (None, wanted) or wanted is None)
                    frames[wanted] += encode(self.snapshot(wanted)) if anew else b""
            if frames[wanted]:
                subscriber.push(frames[wanted])

    def _frames(self, pending: list[Update | Reading]) -> list[tuple[str | None, bytes]]:
        """The frames, each with the batch that it concerns; None: all batches."""
        parts: list[tuple[str | None, bytes]] = []
        for update in pending:
            if isinstance(update, Reading):
                parts.append((None, encode(DeviceReported(reading=update))))
            elif (delta := views.delta(update)) is not None:
                parts.append((batch_of(update), encode(delta)))
        for key, progress in self._progress.items():
            if self._pushed_progress.get(key) is not progress:
                self._pushed_progress[key] = progress
                parts.append((key.batch_id, encode(progress)))
        return parts
