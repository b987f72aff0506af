"""How batches stand, for a listing: what each does now, the order in which people look for them, why windows failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from gpusched.core.statuses import ACTIVE, FAILURES, UNFINISHED, tally
from gpusched.protocol import BatchStatus

Standing = Literal["running", "waiting", "held", "finished"]
STANDINGS: tuple[Standing, ...] = ("running", "waiting", "held", "finished")


def standing(batch: BatchStatus) -> Standing:
    """The present activity of a batch."""
    if batch.state != "open":
        return batch.state
    if tally(batch.counts, ACTIVE):
        return "running"
    return "waiting" if why_held(batch) is None else "held"


def why_held(batch: BatchStatus) -> str | None:
    """Why nothing more of a batch starts until it is released: it is held, or every window is that is left."""
    held = batch.counts.get("held", 0)
    if batch.held_reason is not None or batch.state != "open" or not held:
        return batch.held_reason
    return all_held(held, tally(batch.counts, UNFINISHED))


def all_held(held: int, left: int) -> str | None:
    """The windows that are left of a batch, in words, if all of them are held; None if not, or if none is left."""
    if not held or left > held:
        return None
    return f"{'the window that is' if held == 1 else f'all {held} windows that are'} left"


def failures(batch: BatchStatus) -> int:
    """The number of its windows that failed, timed out or were lost."""
    return tally(batch.counts, FAILURES)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The batches that a listing is to show."""

    #: a part of the id; empty: any
    name: str = ""
    #: a standing, or `failed` for batches with failures; None: any
    state: Standing | Literal["failed"] | None = None
    #: at most so many batches; None: all
    limit: int | None = None

    def pick(self, batches: Iterable[BatchStatus]) -> list[BatchStatus]:
        """Those that are wanted, in their order, the newest ones if there are more than the limit."""
        matches = [batch for batch in batches if self.name in batch.id and self._is_in_state(batch)]
        if self.limit is None or len(matches) <= self.limit:
            return matches
        kept = {batch.id for batch in by_urgency(matches)[: self.limit]}
        return [batch for batch in matches if batch.id in kept]

    def _is_in_state(self, batch: BatchStatus) -> bool:
        if self.state == "failed":
            return failures(batch) > 0
        return self.state in (None, standing(batch))


def by_urgency(batches: Sequence[BatchStatus]) -> list[BatchStatus]:
    """Batches that run first, then those that wait, are held and are finished; the newest first within each."""
    return sorted(batches, key=lambda batch: (STANDINGS.index(standing(batch)), -batch.submitted_at))


def way_on(batch: BatchStatus) -> str:
    """How a batch that the daemon holds goes on: a sentence with the command."""
    if batch.waits:
        return f"once that is mended, `gpusched release {batch.id}` has it looked at again"
    return lets_go_on(batch.id)


def lets_go_on(batch_id: str) -> str:
    """How a batch whose windows are held goes on: a sentence with the command."""
    return f"`gpusched release {batch_id}` lets it go on"
