"""Why a window waits, in words for people: what holds it back, and the reason against each device.

The reasons against devices are those of the rules by which windows are placed (`gpusched.core.placement`).
"""

from __future__ import annotations

import msgspec

from gpusched.core.dispatch import Dispatcher
from gpusched.core.model import Batch, Instant
from gpusched.core.placement import Demand, objection, suits
from gpusched.core.pool import Pool
from gpusched.core.queue import BatchQueue, Entry
from gpusched.core.reasons import DeviceReason, Explanation, Hindrance, summary
from gpusched.core.states import Held, Queued
from gpusched.core.statuses import status_of
from gpusched.core.wording import counted

#: batches named at most
NAMED = 3


def explain(
    entry: Entry, batch: BatchQueue, *, dispatcher: Dispatcher, pool: Pool, shutdown: bool, now: Instant
) -> Explanation:
    """Explain the state of a window of an unfinished batch."""
    state = entry.state
    told = Explanation(status=status_of(state), summary=summary(state))
    if not isinstance(state, Queued | Held):
        return told
    before, kept = dispatcher.before(batch, now)
    hindrances = [Hindrance("shutdown", "the daemon is stopping and starts nothing more")] if shutdown else []
    hindrances += _of_batch(batch)
    if isinstance(state, Held):
        hindrances.append(Hindrance("window", "the window is held by request"))
        return msgspec.structs.replace(told, hindrances=tuple(hindrances))
    if (left := entry.ready_at - now.monotonic) > 0:
        hindrances.append(Hindrance("backoff", f"after a failed attempt the next one is due in {left:.0f} s"))
    if batch.may_have_ready and before:
        hindrances.append(Hindrance("turn", _turn(before, batch)))
    if batch.may_have_ready and (ahead := batch.ahead_of(entry, now)):
        windows = counted(ahead, "window of its batch goes", "windows of its batch go")
        hindrances.append(Hindrance("order", f"{windows} first, those with the most rows before others"))
    demand = dispatcher.demand_of(entry, batch, kept, now)
    return msgspec.structs.replace(
        told, hindrances=tuple(hindrances), devices=_of_devices(pool, demand, batch.batch, kept)
    )


def _of_batch(batch: BatchQueue) -> list[Hindrance]:
    hindrances = []
    if batch.held is not None:
        hindrances.append(Hindrance("batch", f"its batch is held: {batch.held.text}"))
    if batch.is_being_cancelled:
        hindrances.append(Hindrance("cancelled", "its batch is being cancelled"))
    if batch.is_at_limit:
        most = batch.batch.spec.workers
        hindrances.append(Hindrance("workers", f"its batch runs {most} at a time (`workers`), and as many run"))
    return hindrances


def _turn(before: list[BatchQueue], batch: BatchQueue) -> str:
    """The batches that go first, with their priorities where these differ."""
    own = batch.batch.spec.priority
    names = [
        f"{one.batch.id} (priority {one.batch.spec.priority}, here {own})"
        if one.batch.spec.priority != own
        else one.batch.id
        for one in before[:NAMED]
    ]
    more = f" and {len(before) - NAMED} more" if len(before) > NAMED else ""
    return f"{', '.join(names)}{more} {'goes' if len(before) == 1 else 'go'} first"


def _of_devices(pool: Pool, demand: Demand, batch: Batch, kept: set[str]) -> tuple[DeviceReason, ...]:
    reasons = []
    for state in pool.devices.values():
        reason = objection(state, demand)
        if not suits(state.device, demand.wanted) and suits(state.device, batch.device):
            reason = "the other kind of device is expected to have it done sooner, or has the memory for it"
        elif reason is None and state.device.id in kept:
            reason = "kept free for a window of an earlier batch that needs more of it"
        reasons.append(DeviceReason(state.device.id, reason))
    return tuple(reasons)
