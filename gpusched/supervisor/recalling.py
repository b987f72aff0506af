"""Taking up finished batches again that only the store remembers, so that their windows can be retried."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import anyio.lowlevel

from gpusched.core.events import Event, WindowsRecovered
from gpusched.store.store import Store
from gpusched.supervisor.index import Index
from gpusched.supervisor.portions import SLICE_WINDOWS


async def recall(store: Store, batch_id: str, index: Index, post: Callable[[Event], None]) -> None:
    """Post a batch as the store has it, a slice of its windows in each turn. Nobody may change its rows meanwhile."""
    recovered = store.recovered(batch_id, windows=False)
    if recovered is None:
        return
    rows, first = store.states(batch_id), True
    while windows := tuple(islice(rows, SLICE_WINDOWS)):
        post(WindowsRecovered(batch=recovered.batch, windows=windows, first=first))
        first = False
        await anyio.lowlevel.checkpoint()
    post(recovered)
    index.take_in(recovered.batch)  # it is written when the batch is reopened
