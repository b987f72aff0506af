"""Following a batch to its end."""

from __future__ import annotations

from collections.abc import Callable

from gpusched.client.connection import Subscription
from gpusched.core.events import BatchFinished, BatchHeld, Update
from gpusched.protocol import BatchAnnounced, DeviceReported, Snapshot


def follow(
    subscription: Subscription,
    batch_id: str,
    on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None,
    on_update: Callable[[Update], None] = lambda update: None,
    *,
    deadline: float | None = None,
) -> bool:
    """Pass on snapshots and updates until the batch is finished or held; return False if the deadline came first.

    `deadline` is an instant of the monotonic clock. Raises HungUp when the daemon exits.
    """

    def ends(snapshot: Snapshot) -> bool:
        on_snapshot(snapshot)
        return any(batch.id == batch_id and batch.state not in ("waiting", "open") for batch in snapshot.batches)

    if ends(subscription.snapshot):
        return True
    for delta in subscription if deadline is None else subscription.until(deadline):
        match delta:
            case Snapshot():
                if ends(delta):
                    return True
            case BatchAnnounced() | DeviceReported():
                pass
            case _:
                on_update(delta)
                if isinstance(delta, BatchFinished | BatchHeld) and delta.batch_id == batch_id:
                    return True
    return False
