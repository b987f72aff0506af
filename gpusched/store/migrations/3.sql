-- From version 2 to 3.

ALTER TABLE attempts ADD COLUMN device_seconds REAL;  -- NULL: its driver does not count them
