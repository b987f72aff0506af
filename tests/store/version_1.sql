-- A store of version 1, as gpusched wrote it. Frozen: it must load for ever. Do not edit.
PRAGMA application_id = 1735423347;
PRAGMA user_version = 1;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
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
INSERT INTO batches VALUES(1,'nifty-1a2b3c4d','{"id":"nifty-1a2b3c4d","digest":"d","output_dir":"/out/nifty-1a2b3c4d","submitted_at":1700000000.0,"spec":{"symbols":["A","M&M"],"start":"2022-01-01","end":"2024-12-31","window_days":180,"data_root":"/data","workload":"gpusched.teacher:train_window","settings":{"horizon":7},"device":"auto","workers":0,"priority":0,"limits":{"max_attempts":3,"timeout_s":3600.0,"grace_s":10.0,"backoff_s":1.0,"backoff_max_s":60.0,"memory_limit_bytes":0,"max_failure_rate":0.0,"breaker_failures":10}}}','/out/nifty-1a2b3c4d',1700000000.0,1700000000.0,'10 windows failed the same way',NULL);
INSERT INTO batches VALUES(2,'done','{"id":"done","digest":"d","output_dir":"/out/done","submitted_at":1700000010.0,"spec":{"symbols":["A","M&M"],"start":"2022-01-01","end":"2024-12-31","window_days":180,"data_root":"/data","workload":"gpusched.teacher:train_window","settings":{"horizon":7},"device":"auto","workers":0,"priority":0,"limits":{"max_attempts":3,"timeout_s":3600.0,"grace_s":10.0,"backoff_s":1.0,"backoff_max_s":60.0,"memory_limit_bytes":0,"max_failure_rate":0.0,"breaker_failures":10}}}','/out/done',1700000010.0,1700000010.0,NULL,1700000012.0);
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
INSERT INTO windows VALUES(1,'nifty-1a2b3c4d','M&M_2000-01-01_to_2000-01-07','M&M','succeeded',1,1700000002.0,3,'{"window":{"symbol":"M&M","start":"2000-01-01","end":"2000-01-07"},"bars":7,"usable_rows":5,"skip_reason":null,"fingerprint":"f0","committed":null}','{"type":"finished","attempts":1,"outcome":{"type":"succeeded","result":{"type":"result","artifacts_path":"/out/x","metrics":{"accuracy":0.5,"auc":null},"sample_counts":{"train":80,"validation":20},"fingerprint":"f1","device_type":"gpu","device":"GPU-0","phases":{"read":0.25,"train":0.5},"seconds":0.75}}}');
INSERT INTO windows VALUES(2,'nifty-1a2b3c4d','M&M_2000-01-02_to_2000-01-08','M&M','running',2,1700000003.5,NULL,'{"window":{"symbol":"M&M","start":"2000-01-02","end":"2000-01-08"},"bars":7,"usable_rows":5,"skip_reason":null,"fingerprint":"f1","committed":null}','{"type":"running","attempt":2,"slot":{"index":1,"device_id":"GPU-0"},"pid":4002,"started_at":1700000003.5}');
INSERT INTO windows VALUES(3,'nifty-1a2b3c4d','M&M_2000-01-03_to_2000-01-09','M&M','skipped',0,1700000000.0,0,'{"window":{"symbol":"M&M","start":"2000-01-03","end":"2000-01-09"},"bars":7,"usable_rows":5,"skip_reason":null,"fingerprint":"f2","committed":null}','{"type":"finished","attempts":0,"outcome":{"type":"skipped","reason":"6 usable rows, 20 are needed"}}');
INSERT INTO windows VALUES(4,'nifty-1a2b3c4d','M&M_2000-01-04_to_2000-01-10','M&M','failed',1,1700000005.0,11,'{"window":{"symbol":"M&M","start":"2000-01-04","end":"2000-01-10"},"bars":7,"usable_rows":5,"skip_reason":null,"fingerprint":"f3","committed":null}','{"type":"finished","attempts":1,"outcome":{"type":"failed","failure":{"type":"failure","kind":"raised","message":"ValueError: no","traceback":"Traceback …\nValueError: no"}}}');
INSERT INTO windows VALUES(5,'nifty-1a2b3c4d','M&M_2000-01-05_to_2000-01-11','M&M','queued',1,1700000000.0,NULL,'{"window":{"symbol":"M&M","start":"2000-01-05","end":"2000-01-11"},"bars":7,"usable_rows":5,"skip_reason":null,"fingerprint":"f4","committed":null}','{"type":"queued","attempt":1}');
INSERT INTO windows VALUES(6,'done','A_2000-01-01_to_2000-01-07','A','succeeded',1,1700000012.0,14,'{"window":{"symbol":"A","start":"2000-01-01","end":"2000-01-07"},"bars":7,"usable_rows":5,"skip_reason":null,"fingerprint":"f0","committed":null}','{"type":"finished","attempts":1,"outcome":{"type":"succeeded","result":{"type":"result","artifacts_path":"/out/x","metrics":{"accuracy":0.5,"auc":null},"sample_counts":{"train":80,"validation":20},"fingerprint":"f1","device_type":"gpu","device":"GPU-0","phases":{"read":0.25,"train":0.5},"seconds":0.75}}}');
CREATE TABLE counts (
    batch_id TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
    status   TEXT NOT NULL,
    windows  INTEGER NOT NULL,
    PRIMARY KEY (batch_id, status)
) WITHOUT ROWID;
INSERT INTO counts VALUES('done','queued',0);
INSERT INTO counts VALUES('done','running',0);
INSERT INTO counts VALUES('done','starting',0);
INSERT INTO counts VALUES('done','succeeded',1);
INSERT INTO counts VALUES('nifty-1a2b3c4d','failed',1);
INSERT INTO counts VALUES('nifty-1a2b3c4d','queued',1);
INSERT INTO counts VALUES('nifty-1a2b3c4d','running',1);
INSERT INTO counts VALUES('nifty-1a2b3c4d','skipped',1);
INSERT INTO counts VALUES('nifty-1a2b3c4d','starting',0);
INSERT INTO counts VALUES('nifty-1a2b3c4d','succeeded',1);
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
INSERT INTO attempts VALUES(1,1,1,'GPU-0',1700000001.0,4001,1700000001.4999999999,1700000002.0,'result',NULL,NULL,0.5,1048576);
INSERT INTO attempts VALUES(2,1,1,'GPU-0',1700000002.0,4001,1700000002.5,1700000003.0,'raised','ValueError: no',replace('Traceback …\nValueError: no','\n',char(10)),0.5,1048576);
INSERT INTO attempts VALUES(2,2,1,'GPU-0',1700000003.0,4002,1700000003.5,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO attempts VALUES(4,1,1,'GPU-0',1700000004.0,4001,1700000004.4999999999,1700000005.0,'raised','ValueError: no',replace('Traceback …\nValueError: no','\n',char(10)),0.5,1048576);
INSERT INTO attempts VALUES(6,1,1,'GPU-0',1700000011.0,4001,1700000011.4999999999,1700000012.0,'result',NULL,NULL,0.5,1048576);
CREATE TABLE story (
    id      INTEGER PRIMARY KEY,
    window  INTEGER NOT NULL REFERENCES windows (id) ON DELETE CASCADE,
    at      REAL NOT NULL,
    old     TEXT NOT NULL,
    new     TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    reason  TEXT NOT NULL
);
INSERT INTO story VALUES(1,1,1700000001.0,'queued','starting',1,'placed');
INSERT INTO story VALUES(2,1,1700000001.4999999999,'starting','running',1,'started');
INSERT INTO story VALUES(3,1,1700000002.0,'running','succeeded',1,'ended');
INSERT INTO story VALUES(4,2,1700000002.0,'queued','starting',1,'placed');
INSERT INTO story VALUES(5,2,1700000002.5,'starting','running',1,'started');
INSERT INTO story VALUES(6,2,1700000003.0,'running','queued',2,'ended');
INSERT INTO story VALUES(7,2,1700000003.0,'queued','starting',2,'placed');
INSERT INTO story VALUES(8,2,1700000003.5,'starting','running',2,'started');
INSERT INTO story VALUES(9,4,1700000004.0,'queued','starting',1,'placed');
INSERT INTO story VALUES(10,4,1700000004.4999999999,'starting','running',1,'started');
INSERT INTO story VALUES(11,4,1700000005.0,'running','failed',1,'raised, and no attempt is left');
INSERT INTO story VALUES(12,6,1700000011.0,'queued','starting',1,'placed');
INSERT INTO story VALUES(13,6,1700000011.4999999999,'starting','running',1,'started');
INSERT INTO story VALUES(14,6,1700000012.0,'running','succeeded',1,'ended');
CREATE TABLE devices (
    id     TEXT PRIMARY KEY,
    health TEXT NOT NULL,
    reason TEXT NOT NULL,
    at     REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO devices VALUES('GPU-0','quarantined','XID 79',1700000007.0);
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
INSERT INTO learned VALUES('gpusched.teacher:train_window','gpu',7,2,100.0,0.5,0.75,1,500000000.0,500000000);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('batches',2);
CREATE INDEX windows_in_order ON windows (batch_id);
CREATE INDEX windows_by_status ON windows (batch_id, status);
CREATE INDEX windows_by_finishing ON windows (batch_id, finishing) WHERE finishing IS NOT NULL;
CREATE TRIGGER windows_moved AFTER UPDATE OF status ON windows WHEN OLD.status <> NEW.status BEGIN
    UPDATE counts SET windows = windows - 1 WHERE batch_id = OLD.batch_id AND status = OLD.status;
    INSERT INTO counts VALUES (NEW.batch_id, NEW.status, 1)
        ON CONFLICT (batch_id, status) DO UPDATE SET windows = windows + 1;
END;
CREATE INDEX story_by_window ON story (window);
COMMIT;
