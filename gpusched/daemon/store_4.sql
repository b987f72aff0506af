-- From version 3 to 4.

ALTER TABLE attempts ADD COLUMN own_memory_bytes INTEGER;  -- NULL: not known
ALTER TABLE learned ADD COLUMN host_memory_max INTEGER NOT NULL DEFAULT 0;

-- gpusched.core.fastest.Timing
CREATE TABLE timings (
    workload    TEXT NOT NULL,
    settings    TEXT NOT NULL,
    model       TEXT NOT NULL,
    device_type TEXT NOT NULL,
    bucket      INTEGER NOT NULL,
    rows        INTEGER NOT NULL,
    seconds     REAL NOT NULL,
    at_least    INTEGER NOT NULL,
    PRIMARY KEY (workload, settings, model, device_type, bucket)
) WITHOUT ROWID;
