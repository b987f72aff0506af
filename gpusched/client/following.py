"""Following a batch to its end."""

from __future__ import annotations

from collections.abc import Callable

from gpusched.client.connection import Subscription
from gpusched.core.events import BatchFinished, BatchHeld, Update
from gpusched.errors import TOO_MANY_FAILURES, GpuschedError
from gpusched.protocol import BatchAnnounced, DeviceReported, Snapshot


class StageCancelled(GpuschedError):
    """A stage is forgotten when it is cancelled, so there is no batch that could be asked."""

    exit_code = TOO_MANY_FAILURES
    problem = "{name} was cancelled before it started"
    remedy = "nothing of it was trained; `gpusched submit` accepts it again"


def follow(
    subscription: Subscription,
    batch_id: str,
    on_snapshot: Callable[[Snapshot], None] = lambda snapshot: None,
    on_update: Callable[[Update], None] = lambda update: None,
    *,
    deadline: float | None = None,
) -> bool:
    """Pass on snapshots and updates until the batch is finished, held or gone; return False if the deadline came first.

    A stage that starts, and a new round, are passed on as a snapshot without windows at work. `deadline` is an instant
    of the monotonic clock. Raises StageCancelled, and HungUp when the daemon exits.
    """
    waited = False

    def ends(snapshot: Snapshot) -> bool:
        nonlocal waited
        on_snapshot(snapshot)
        state = next((batch.state for batch in snapshot.batches if batch.id == batch_id), None)
        if state is None and waited:
            raise StageCancelled(name=batch_id)
        waited = state == "waiting"
        return state not in ("waiting", "open")

    if ends(subscription.snapshot):
        return True
    for delta in subscription if deadline is None else subscription.until(deadline):
        match delta:
            case Snapshot():
                if ends(delta):
                    return True
            case BatchAnnounced(batch=batch):
                on_snapshot(Snapshot(at=batch.submitted_at, batches=(batch,), active=(), progress=(), devices=()))
            case DeviceReported():
                pass
            case _:
                on_update(delta)
                if isinstance(delta, BatchFinished | BatchHeld) and delta.batch_id == batch_id:
                    return True
    return False
