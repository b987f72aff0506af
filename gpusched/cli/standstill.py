"""Tells whoever waits for a batch that all its remaining windows are held, or which batches it waits for itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from gpusched.client.connection import Subscription
from gpusched.client.following import follow
from gpusched.client.views.batch import BatchView
from gpusched.client.views.standing import all_held, lets_go_on
from gpusched.core.events import Update
from gpusched.protocol import Snapshot


class Standstill:
    """Tells of held windows once nothing else is left of the batch that `view` shows, and again after a release."""

    def __init__(self, view: BatchView, say: Callable[[str], None]) -> None:
        self._view = view
        self._say = say
        self._told = False

    def look(self) -> None:
        """To be called whenever the view has changed."""
        why = all_held(self._view.held, self._view.total - self._view.done)
        if why is not None and not self._told:
            self._say(f"{why}; {lets_go_on(self._view.batch_id)}")
        self._told = why is not None


def follow_to_end(
    subscription: Subscription, batch_id: str, say: Callable[[str], None], say_held: Callable[[str], None]
) -> None:
    """Wait until a batch is finished, held or gone; tell which batches it waits for itself. Raises as `follow` does."""
    view = BatchView()
    standstill = Standstill(view, say_held)

    def load(snapshot: Snapshot) -> None:
        waited = view.waits
        view.load(snapshot, batch_id, time.monotonic())
        if view.waits not in ("", waited):
            say(f"{batch_id} waits {view.waits}")
        standstill.look()

    def see(update: Update) -> None:
        view.apply(update, time.monotonic())
        standstill.look()

    follow(subscription, batch_id, load, see)
