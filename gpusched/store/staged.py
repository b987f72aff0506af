"""Stages in the store: requests for batches that wait for others."""

from __future__ import annotations

import msgspec

from gpusched.store.database import Database

_ALL = (
    "SELECT batch_id, digest, request, peer, submitted_at, output_dir, held FROM stages ORDER BY submitted_at, batch_id"
)
_PUT = (
    "INSERT OR REPLACE INTO stages (batch_id, digest, request, peer, submitted_at, output_dir, held)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)


class StagedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A request that waits. `request` and `peer` are JSON."""

    batch_id: str
    digest: str
    request: bytes
    peer: bytes | None
    submitted_at: float
    output_dir: str
    #: why it cannot be started; None: it waits
    held: str | None = None


class Staged:
    """The table of stages; each change is durable when its method returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rows(self) -> list[StagedRow]:
        """All stages, in the order of submission."""
        rows = self._database.query(_ALL)
        named = (dict(zip(StagedRow.__struct_fields__, row, strict=True)) for row in rows)
        with self._database.decoding("stages"):
            return [msgspec.convert(fields, StagedRow) for fields in named]

    def row(self, batch_id: str) -> StagedRow | None:
        return next((row for row in self.rows() if row.batch_id == batch_id), None)

    def put(self, row: StagedRow) -> None:
        """Add a stage, or replace the one of the same batch."""
        with self._database.transaction():
            self._database.execute(_PUT, msgspec.structs.astuple(row))

    def hold(self, batch_id: str, why: str | None) -> None:
        with self._database.transaction():
            self._database.execute("UPDATE stages SET held = ? WHERE batch_id = ?", (why, batch_id))

    def remove(self, batch_id: str) -> None:
        with self._database.transaction():
            self._database.execute("DELETE FROM stages WHERE batch_id = ?", (batch_id,))
