"""Which finished batches stay in memory: those that finished last, so that it stays bounded. The store has them all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gpusched.core.events import BatchAccepted, BatchFinished, BatchReopened
from gpusched.core.scheduler import Scheduler
from gpusched.supervisor.followers import News

#: windows of finished batches kept in memory at most
KEPT_WINDOWS = 10_000


class Kept:
    """The finished batches of `scheduler`; it forgets the oldest when their windows are too many."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        #: finished batches in memory and their numbers of windows, in the order of finishing
        self._finished: dict[str, int] = {}
        self._windows = 0

    def follow(self, news: News) -> None:
        match news:
            case BatchFinished(batch_id=batch_id):
                self._keep(batch_id)
                while self._windows > KEPT_WINDOWS and len(self._finished) > 1:
                    self.drop(next(iter(self._finished)))
            case BatchReopened(batch_id=batch_id):
                self._leave_out(batch_id)
            case BatchAccepted(batch=batch):
                self._leave_out(batch.id)

    @contextlib.contextmanager
    def held(self, batch_id: str) -> Iterator[None]:
        """Within the context, a finished batch that is in memory, or comes there, is not forgotten."""
        self._leave_out(batch_id)
        try:
            yield
        finally:
            if self._scheduler.batch(batch_id) is not None and not self._scheduler.is_at_work(batch_id):
                self._keep(batch_id)

    def drop(self, batch_id: str) -> None:
        """Forget a finished batch."""
        self._leave_out(batch_id)
        self._scheduler.forget(batch_id)

    def _keep(self, batch_id: str) -> None:
        self._leave_out(batch_id)
        self._finished[batch_id] = self._scheduler.size(batch_id)
        self._windows += self._finished[batch_id]

    def _leave_out(self, batch_id: str) -> None:
        self._windows -= self._finished.pop(batch_id, 0)
