"""The finished batches whose index, a file in their output directory, is not whole yet."""

from __future__ import annotations

from gpusched.core.model import Batch
from gpusched.store import statements
from gpusched.store.database import Database
from gpusched.store.rows import decode_batch


class LateIndexes:
    """A batch becomes one of them in the transaction that records its end, until its index has been written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def batches(self) -> list[Batch]:
        """In the order of acceptance, without those whose directory a later batch has taken."""
        rows = self._database.query(statements.LATE_INDEXES)
        with self._database.decoding("batches"):
            return [decode_batch(batch) for (batch,) in rows]

    def written(self, batch_id: str) -> None:
        """Note that the index is whole. If that is lost, it is written once more."""
        with self._database.transaction(sync=False):
            self._database.execute(statements.INDEX_WRITTEN, (batch_id,))
