-- From version 3 to 4.

ALTER TABLE attempts ADD COLUMN own_memory_bytes INTEGER;  -- NULL: not known
ALTER TABLE learned ADD COLUMN host_memory_max INTEGER NOT NULL DEFAULT 0;
