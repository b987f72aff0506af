-- From version 3 to 4.

ALTER TABLE attempts ADD COLUMN own_memory_bytes INTEGER;  -- NULL: not known
ALTER TABLE learned ADD COLUMN host_memory_max INTEGER NOT NULL DEFAULT 0;

-- What was asked of a batch and is not through: gpusched.core.changes.Change.
CREATE TABLE changes (
    batch_id TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    verb     TEXT NOT NULL,
    label    TEXT,                 -- NULL: all windows
    number   INTEGER NOT NULL,     -- they are made in this order
    done     INTEGER NOT NULL,     -- windows from the first that have been looked at
    windows  INTEGER NOT NULL,     -- that it applied to so far
    PRIMARY KEY (batch_id, number)
) WITHOUT ROWID;
