-- From version 3 to 4.

ALTER TABLE attempts ADD COLUMN own_memory_bytes INTEGER;  -- NULL: not known
-- Of the device. A slot below zero is a place in which a window waited there for another one to end.
ALTER TABLE attempts ADD COLUMN node TEXT NOT NULL DEFAULT '';
-- Changes of a batch's terms, for the stories of its unfinished windows.
CREATE TABLE batch_story (
    batch_id TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    after    INTEGER NOT NULL,                       -- the story's last line by then
    at       REAL NOT NULL,
    reason   TEXT NOT NULL
);
CREATE INDEX batch_story_by_batch ON batch_story (batch_id, after);

-- A batch that is being removed: 'records' only, or 'results' too. NULL: the batch stays.
ALTER TABLE batches ADD COLUMN forgetting TEXT;

ALTER TABLE learned ADD COLUMN host_memory_max INTEGER NOT NULL DEFAULT 0;

-- Changes of a batch that are not completed: gpusched.core.changes.Change.
CREATE TABLE changes (
    batch_id TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    verb     TEXT NOT NULL,
    label    TEXT,                 -- NULL: all windows
    number   INTEGER NOT NULL,     -- they are made in this order
    done     INTEGER NOT NULL,     -- windows from the first that have been looked at
    windows  INTEGER NOT NULL,     -- that it applied to so far
    PRIMARY KEY (batch_id, number)
) WITHOUT ROWID;
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
-- Notes on the data of a batch, by symbol: [gpusched.core.model.DataNote], JSON.
CREATE TABLE notes (
    batch_id TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    number   INTEGER NOT NULL,                           -- order of the symbols
    symbol   TEXT NOT NULL,
    notes    TEXT NOT NULL,
    PRIMARY KEY (batch_id, number)
) WITHOUT ROWID;
CREATE INDEX notes_by_symbol ON notes (batch_id, symbol);

-- gpusched.core.model.HoldKind; NULL: not held.
ALTER TABLE batches ADD COLUMN held_kind TEXT;
UPDATE batches SET held_kind = CASE
    WHEN held_reason LIKE 'no device is left that could run it%' THEN 'stranded'
    WHEN held_reason LIKE 'the last % windows failed in the same way%' THEN 'breaker'
    ELSE 'request'
END WHERE held_reason IS NOT NULL;

-- 1: the model of the window predicts a constant (gpusched.core.worth). A batch counts its own, for listings.
ALTER TABLE windows ADD COLUMN constant INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN constants INTEGER NOT NULL DEFAULT 0;
-- Whoever moves windows counts them as well, once for all that move in a transaction (gpusched.store.moves).
DROP TRIGGER windows_moved;

-- 1: the batch has finished, and its index is not whole yet.
ALTER TABLE batches ADD COLUMN index_late INTEGER NOT NULL DEFAULT 0;

-- The uid of its client, as in the JSON of `batch`. NULL: root, or the daemon's own user.
ALTER TABLE batches ADD COLUMN owner INTEGER;

-- Requests for batches that wait for others (gpusched.service.stages); a stage that has started is a batch.
CREATE TABLE stages (
    batch_id     TEXT PRIMARY KEY,
    digest       TEXT NOT NULL,
    request      BLOB NOT NULL,    -- gpusched.protocol.Submit, JSON
    peer         BLOB,             -- gpusched.service.clients.Peer, JSON; NULL: the daemon itself
    submitted_at REAL NOT NULL,
    output_dir   TEXT NOT NULL,
    held         TEXT              -- why it cannot be started; NULL: it waits
) WITHOUT ROWID;

-- gpusched.core.estimates.Estimate of workloads at points of sweeps, the earliest first, at most MOST_POINTS of them.
CREATE TABLE learned_points (
    workload        TEXT NOT NULL,    -- and the point
    device_type     TEXT NOT NULL,
    bucket          INTEGER NOT NULL,
    count           INTEGER NOT NULL,
    rows_mean       REAL NOT NULL,
    seconds_mean    REAL NOT NULL,
    seconds_max     REAL NOT NULL,
    memory_count    INTEGER NOT NULL,
    memory_mean     REAL NOT NULL,
    memory_max      INTEGER NOT NULL,
    host_memory_max INTEGER NOT NULL,
    PRIMARY KEY (workload, device_type, bucket)
);
CREATE TRIGGER learned_points_bounded AFTER INSERT ON learned_points WHEN NEW.rowid % 1000 = 0 BEGIN
    DELETE FROM learned_points WHERE rowid IN (
        SELECT rowid FROM learned_points ORDER BY rowid DESC LIMIT -1 OFFSET 20000
    );
END;
