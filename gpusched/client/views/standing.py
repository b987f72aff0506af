"""How batches stand, for a listing: what each does now, the order in which people look for them, why windows failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from gpusched.core.statuses import ACTIVE, FAILURES, tally
from gpusched.protocol import BatchStatus

Standing = Literal["running", "waiting", "held", "finished"]
STANDINGS: tuple[Standing, ...] = ("running", "waiting", "held", "finished")


def standing(batch: BatchStatus) -> Standing:
    """The present activity of a batch."""
    if batch.state != "open":
        return batch.state
    return "running" if tally(batch.counts, ACTIVE) else "waiting"


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
    release = f"`gpusched release {batch.id}`"
    return f"once that is mended, {release} has it looked at again" if batch.waits else f"{release} lets it go on"
