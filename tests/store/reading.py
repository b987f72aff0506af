"""All that a store can be asked."""

from __future__ import annotations

from gpusched.store.store import Store


def read_everything(store: Store) -> None:
    for batch in store.batches():
        store.batch(batch.id)
        store.accepted(batch.id)
        for row in [*store.windows(batch.id), *store.finished_windows(batch.id)]:
            store.window(row.key)
            store.story(row.key)
            store.attempts(row.key)
    list(store.unfinished())
    store.devices()
    store.learned()
