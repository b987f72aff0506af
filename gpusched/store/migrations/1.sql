-- From an empty file to version 1.
--
-- States and plans are kept whole, as tagged JSON; the columns beside them repeat only what queries ask for.

CREATE TABLE batches (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of acceptance
    id           TEXT NOT NULL UNIQUE,
    batch        TEXT NOT NULL,                      -- Batch, JSON
    output_dir   TEXT NOT NULL,
    submitted_at REAL NOT NULL,
    accepted_at  REAL NOT NULL,
    held_reason  TEXT,                               -- NULL: not held
    finished_at  REAL                                -- NULL: not finished
);

CREATE TABLE windows (
    id        INTEGER PRIMARY KEY,                   -- ascends in the order of submission
    batch_id  TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    label     TEXT NOT NULL,
    symbol    TEXT NOT NULL,
    status    TEXT NOT NULL,                         -- the name of the state, or of the outcome once finished
    attempt   INTEGER NOT NULL,                      -- the state's attempt; once finished, the number of launches
    moved_at  REAL NOT NULL,
    finishing INTEGER,                               -- story line that finished it, 0: accepted as finished
    plan      TEXT NOT NULL,                         -- PlannedWindow, JSON
    state     TEXT NOT NULL,                         -- State, JSON
    UNIQUE (batch_id, label)
);
CREATE INDEX windows_in_order ON windows (batch_id);
CREATE INDEX windows_by_status ON windows (batch_id, status);
CREATE INDEX windows_by_finishing ON windows (batch_id, finishing) WHERE finishing IS NOT NULL;

-- Windows of each batch by status: a listing of batches must not read their windows.
CREATE TABLE counts (
    batch_id TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    status   TEXT NOT NULL,
    windows  INTEGER NOT NULL,
    PRIMARY KEY (batch_id, status)
) WITHOUT ROWID;

CREATE TRIGGER windows_moved AFTER UPDATE OF status ON windows WHEN OLD.status <> NEW.status BEGIN
    UPDATE counts SET windows = windows - 1 WHERE batch_id = OLD.batch_id AND status = OLD.status;
    INSERT INTO counts VALUES (NEW.batch_id, NEW.status, 1)
        ON CONFLICT (batch_id, status) DO UPDATE SET windows = windows + 1;
END;

CREATE TABLE attempts (
    window            INTEGER NOT NULL REFERENCES windows (id) ON DELETE CASCADE,
    attempt           INTEGER NOT NULL,
    slot              INTEGER NOT NULL,
    device            TEXT NOT NULL,
    placed_at         REAL NOT NULL,
    pid               INTEGER,
    started_at        REAL,
    ended_at          REAL,
    ending            TEXT,                          -- 'result', or the kind of failure
    message           TEXT,
    traceback         TEXT,
    cpu_seconds       REAL,
    peak_memory_bytes INTEGER,
    PRIMARY KEY (window, attempt)
) WITHOUT ROWID;

CREATE TABLE story (
    id      INTEGER PRIMARY KEY,
    window  INTEGER NOT NULL REFERENCES windows (id) ON DELETE CASCADE,
    at      REAL NOT NULL,
    old     TEXT NOT NULL,
    new     TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    reason  TEXT NOT NULL
);
CREATE INDEX story_by_window ON story (window);

CREATE TABLE devices (
    id     TEXT PRIMARY KEY,
    health TEXT NOT NULL,
    reason TEXT NOT NULL,
    at     REAL NOT NULL
) WITHOUT ROWID;

-- gpusched.core.estimates.Estimate
CREATE TABLE learned (
    workload        TEXT NOT NULL,
    device_type     TEXT NOT NULL,
    bucket          INTEGER NOT NULL,
    count           INTEGER NOT NULL,
    rows_mean       REAL NOT NULL,
    seconds_mean    REAL NOT NULL,
    seconds_max     REAL NOT NULL,
    memory_count    INTEGER NOT NULL,
    memory_mean     REAL NOT NULL,
    memory_max      INTEGER NOT NULL,
    PRIMARY KEY (workload, device_type, bucket)
) WITHOUT ROWID;
