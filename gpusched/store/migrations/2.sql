-- From version 1 to 2.

ALTER TABLE attempts ADD COLUMN device_memory_bytes INTEGER;  -- NULL: no reading saw it use any

-- Readings of the devices while windows of a batch ran: [gpusched.core.samples.Sample], JSON.
CREATE TABLE histories (
    batch_id TEXT PRIMARY KEY REFERENCES batches (id) ON DELETE CASCADE,
    samples  TEXT NOT NULL
) WITHOUT ROWID;
