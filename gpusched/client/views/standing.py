"""How batches stand, for a listing: what each does now, the order in which people look for them, why windows failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from gpusched.client.views.reasons import bare_reason, general_reason
from gpusched.core.statuses import ACTIVE, FAILURES, tally
from gpusched.protocol import BatchStatus, WindowLine

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
        found = [batch for batch in batches if self.name in batch.id and self._is_in_state(batch)]
        if self.limit is None or len(found) <= self.limit:
            return found
        kept = {batch.id for batch in by_urgency(found)[: self.limit]}
        return [batch for batch in found if batch.id in kept]

    def _is_in_state(self, batch: BatchStatus) -> bool:
        if self.state == "failed":
            return failures(batch) > 0
        return self.state in (None, standing(batch))


def by_urgency(batches: Sequence[BatchStatus]) -> list[BatchStatus]:
    """Batches that run first, then those that wait, are held and are finished; the newest first within each."""
    return sorted(batches, key=lambda batch: (STANDINGS.index(standing(batch)), -batch.submitted_at))


class FailureGroup(msgspec.Struct, kw_only=True):
    """Windows that failed for the same reason, and the first of them."""

    reason: str
    windows: int
    example: WindowLine


def by_reason(lines: Iterable[WindowLine]) -> list[FailureGroup]:
    """Failed windows grouped by kind and reason, the largest group first."""
    groups: dict[tuple[str | None, str], FailureGroup] = {}
    for line in lines:
        bare = bare_reason(line)
        general = general_reason(bare, line.symbol)
        group = groups.get((line.failure, general))
        if group is None:
            groups[line.failure, general] = FailureGroup(reason=bare, windows=1, example=line)
        else:
            group.windows += 1
            group.reason = group.reason if group.reason == bare else general
    return sorted(groups.values(), key=lambda group: -group.windows)
