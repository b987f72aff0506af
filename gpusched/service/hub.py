"""The hub: tells subscribers what happens, without ever waiting for one.

What happened is gathered for a moment, encoded once, and handed to each subscriber that it concerns. A report of
progress that is followed by another is left out. When too much happens at once to be told in deltas (a large batch is
cancelled), subscribers get a new snapshot instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from gpusched import clock
from gpusched.core.events import (
    BatchAccepted,
    DeviceChanged,
    DeviceTuned,
    ProgressReported,
    Update,
    WindowMoved,
    WindowsAdded,
)
from gpusched.core.model import Reading, Running, WindowKey
from gpusched.core.placement import Pool
from gpusched.engines.condition import Condition
from gpusched.protocol import DeviceReported, Snapshot, Trouble, encode
from gpusched.service import views
from gpusched.store.rows import BatchRow
from gpusched.store.store import Store

#: seconds for which what happens is gathered
GATHER_S = 0.05
#: more than this at once is told by a snapshot
FLOOD = 2000
#: finished batches that a snapshot of all batches shows
RECENT_BATCHES = 50
#: windows that have left their slots which it shows, and as many that failed
RECENT_WINDOWS = 64

_ACTIVE = ("starting", "running", "stopping")


class Subscriber(Protocol):
    def push(self, frames: bytes) -> None:
        """Take the frames without blocking, or go away."""


class Hub:
    """`publish` belongs to the supervisor, `report` to the sampler, the rest to the server."""

    def __init__(self, store: Store, condition: Condition) -> None:
        self._store = store
        self._condition = condition
        condition.follow(self._show_trouble)
        #: what follows can only be told by a new snapshot
        self._anew = False
        self._pool = Pool()
        self._subscribers: dict[Subscriber, str | None] = {}
        #: what subscribers have not been told yet; empty while there are none
        self._untold: list[Update | Reading] = []
        self._progress: dict[WindowKey, ProgressReported] = {}
        self._told_progress: dict[WindowKey, ProgressReported] = {}
        self._timer: asyncio.TimerHandle | None = None

    def show(self, pool: Pool) -> None:
        """The pool whose devices snapshots show."""
        self._pool = pool

    # -- what happens ------------------------------------------------------------------------------------------------

    def publish(self, update: Update) -> None:
        """Something happened and is durable, or a window reported progress."""
        match update:
            case ProgressReported():
                self._progress[update.key] = update
            case WindowMoved(new=new) if not isinstance(new, Running):
                self._progress.pop(update.key, None)
                self._told_progress.pop(update.key, None)
        self._gather(update)

    def report(self, reading: Reading) -> None:
        """A device was read."""
        self._gather(reading)

    def _show_trouble(self, trouble: Trouble, present: bool) -> None:
        """No delta tells of trouble: a client of another version would not know it."""
        self._anew = True
        self._tell_soon()

    def _gather(self, update: Update | Reading) -> None:
        if not self._subscribers:
            return
        if not isinstance(update, ProgressReported):
            self._untold.append(update)
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._timer is None and self._subscribers:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._tell)

    # -- who is told -------------------------------------------------------------------------------------------------

    def subscribe(self, subscriber: Subscriber, batch_id: str | None) -> None:
        """Push a snapshot, then all that happens from this moment on, of one batch or of all."""
        self._tell()
        self._subscribers[subscriber] = batch_id
        subscriber.push(encode(self.snapshot(batch_id)))

    def refresh(self) -> None:
        """Show what there is now to those who see all batches: one is not there any more, which no delta says."""
        self._tell()
        onlookers = [subscriber for subscriber, wanted in self._subscribers.items() if wanted is None]
        frame = encode(self.snapshot(None)) if onlookers else b""
        for subscriber in onlookers:
            subscriber.push(frame)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.pop(subscriber, None)
        if not self._subscribers:
            self._untold.clear()
            self._told_progress.clear()

    def snapshot(self, batch_id: str | None) -> Snapshot:
        """What the store has committed, which is what the deltas that follow start from."""
        batches = list(self._batches(batch_id))
        active = [
            views.window_line(row)
            for batch in batches
            for status in _ACTIVE
            if batch.counts.get(status)
            for row in self._store.windows(batch.id, status=status)
        ]
        return Snapshot(
            at=clock.wall(),
            batches=tuple(map(views.batch_status, batches)),
            active=tuple(active),
            progress=tuple(self._progress[line.key] for line in active if line.key in self._progress),
            devices=views.devices(self._pool),
            ended=tuple(map(views.ending, self._store.endings(batch_id, RECENT_WINDOWS))),
            failed=tuple(map(views.ending, self._store.endings(batch_id, RECENT_WINDOWS, failed=True))),
            troubles=self._condition.troubles,
        )

    def _batches(self, batch_id: str | None) -> Iterator[BatchRow]:
        if batch_id is not None:
            batch = self._store.batch(batch_id)
            if batch is not None:
                yield batch
            return
        batches = self._store.batches()
        finished = [batch for batch in batches if batch.state == "finished"]
        older = {batch.id for batch in finished[:-RECENT_BATCHES]}
        yield from (batch for batch in batches if batch.id not in older)

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Hand over what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        untold, self._untold = self._untold, []
        if not self._subscribers:
            return
        parts = self._frames(untold) if len(untold) <= FLOOD and not self._anew else None
        self._anew = False
        # A device that is tried may be one that nobody has heard of yet.
        joining = any(isinstance(update, DeviceChanged) and update.health == "trying" for update in untold)
        frames: dict[str | None, bytes] = {}
        for subscriber, wanted in tuple(self._subscribers.items()):
            if wanted not in frames:
                if parts is None:
                    frames[wanted] = encode(self.snapshot(wanted))
                else:
                    frames[wanted] = b"".join(f for about, f in parts if about in (None, wanted) or wanted is None)
                    frames[wanted] += encode(self.snapshot(wanted)) if joining else b""
            if frames[wanted]:
                subscriber.push(frames[wanted])

    def _frames(self, untold: list[Update | Reading]) -> list[tuple[str | None, bytes]]:
        """Each frame with the batch that it is about, None for what concerns all."""
        parts: list[tuple[str | None, bytes]] = []
        for update in untold:
            if isinstance(update, Reading):
                parts.append((None, encode(DeviceReported(reading=update))))
            else:
                if (delta := views.delta(update)) is not None:
                    parts.append((_about(update), encode(delta)))
        for key, progress in self._progress.items():
            if self._told_progress.get(key) is not progress:
                self._told_progress[key] = progress
                parts.append((key.batch_id, encode(progress)))
        return parts


def _about(update: Update) -> str | None:
    match update:
        case DeviceChanged() | DeviceTuned():
            return None
        case WindowMoved(key=key) | ProgressReported(key=key):
            return key.batch_id
        case BatchAccepted(batch=batch) | WindowsAdded(batch=batch):
            return batch.id
        case _:
            return update.batch_id
