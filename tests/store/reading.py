"""All that a store can be asked, and what another program does to its file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from gpusched.store.store import Store


def execute(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(sql)
    connection.close()


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
