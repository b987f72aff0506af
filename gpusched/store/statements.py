"""The store's SQL statements, except one-liners, which stand where they are used. The tables are in `migrations/`."""

from __future__ import annotations

from gpusched.core.statuses import ACTIVE, FAILURES, UNFINISHED


def _listed(statuses: tuple[str, ...]) -> str:
    return ", ".join(f"'{status}'" for status in statuses)


ACCEPT = "INSERT INTO batches (id, batch, output_dir, submitted_at, owner, accepted_at) VALUES (?, ?, ?, ?, ?, ?)"
INSERT_WINDOW = (
    "INSERT INTO windows (batch_id, label, symbol, status, attempt, moved_at, finishing, plan, state, constant)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
MOVE = (
    "UPDATE windows SET status = ?, attempt = ?, moved_at = ?, finishing = ?, state = ?, constant = ?"
    " WHERE batch_id = ? AND label = ?"
)
ID = "SELECT id FROM windows WHERE batch_id = ? AND label = ?"
COUNT = "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET windows = windows + excluded.windows"
COUNT_CONSTANTS = "UPDATE batches SET constants = constants + ? WHERE id = ?"
TELL = f"INSERT INTO story (id, at, old, new, attempt, reason, window) VALUES (?, ?, ?, ?, ?, ?, ({ID}))"  # noqa: S608
PLACE = (
    "INSERT OR REPLACE INTO attempts (slot, device, node, placed_at, attempt, window)"  # noqa: S608
    f" VALUES (?, ?, ?, ?, ?, ({ID}))"
)
START = f"UPDATE attempts SET slot = ?, pid = ?, started_at = ? WHERE attempt = ? AND window = ({ID})"  # noqa: S608
END = (
    "UPDATE attempts SET slot = ?, pid = coalesce(?, pid), started_at = coalesce(?, started_at), ended_at = ?,"  # noqa: S608
    " ending = ?, message = ?, traceback = ?, cpu_seconds = ?, peak_memory_bytes = ?, device_memory_bytes = ?,"
    f" device_seconds = ?, own_memory_bytes = ? WHERE attempt = ? AND window = ({ID})"
)
#: the moves of a window, and between them the changes of its batch's terms until the window was finished
STORY = """
    WITH w AS (
        SELECT id, coalesce(finishing, 9e18) AS finishing FROM windows WHERE batch_id = :batch_id AND label = :label
    )
    SELECT at, old, new, attempt, reason FROM (
        SELECT s.id AS place, 0 AS kind, s.at, s.old, s.new, s.attempt, s.reason FROM story s, w WHERE s.window = w.id
        UNION ALL
        SELECT b.after, 1, b.at, NULL, NULL, NULL, b.reason FROM batch_story b, w
        WHERE b.batch_id = :batch_id AND b.after < w.finishing
    ) ORDER BY place, kind
"""
LEARN = "INSERT OR REPLACE INTO learned VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
LEARNED = "SELECT * FROM learned ORDER BY workload, device_type, bucket"
#: a point that is learned again moves to the end
LEARN_POINT = "INSERT OR REPLACE INTO learned_points VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
LEARNED_POINTS = "SELECT * FROM learned_points ORDER BY rowid"
KEEP_TIMING = "INSERT OR REPLACE INTO timings VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
TIMINGS = "SELECT * FROM timings WHERE workload = ? AND settings = ?"
#: does nothing if the batch has been removed meanwhile
KEEP_HISTORY = "INSERT OR REPLACE INTO histories SELECT id, ? FROM batches WHERE id = ?"

#: the fields of gpusched.core.changes.Change behind the batch
ADVANCE = "INSERT OR REPLACE INTO changes (batch_id, verb, label, number, done, windows) VALUES (?, ?, ?, ?, ?, ?)"
CHANGES = "SELECT verb, label, number, done, windows FROM changes WHERE batch_id = ? ORDER BY number"
#: batches to take up after a restart; a finished one with a pending change is among them: the change may reopen it
TO_TAKE_UP = """
    SELECT id FROM batches b WHERE finished_at IS NULL OR EXISTS (SELECT 1 FROM changes c WHERE c.batch_id = b.id)
    ORDER BY number
"""
FINISH = "UPDATE batches SET finished_at = ?, index_late = 1 WHERE id = ?"
LATE_INDEXES = """
    SELECT batch FROM batches b
    WHERE index_late AND finished_at IS NOT NULL AND forgetting IS NULL
      AND NOT EXISTS (SELECT 1 FROM batches l WHERE l.output_dir = b.output_dir AND l.number > b.number)
    ORDER BY number
"""
INDEX_WRITTEN = "UPDATE batches SET index_late = 0 WHERE id = ?"
HOLD = "UPDATE batches SET held_kind = ?, held_reason = ? WHERE id = ?"
RECOVERED = (
    "SELECT batch, held_kind, held_reason, finished_at IS NOT NULL FROM batches WHERE id = ? AND forgetting IS NULL"
)
NOTES = (
    "SELECT symbol, notes FROM notes WHERE batch_id = :batch_id AND (:symbol IS NULL OR symbol = :symbol)"
    " ORDER BY number LIMIT :symbols"
)
BATCHES = (
    "SELECT id, output_dir, submitted_at, held_reason, finished_at, constants, owner FROM batches"
    " WHERE forgetting IS NULL"
)
COUNTS = "SELECT batch_id, status, windows FROM counts WHERE windows > 0"
REMOVE_FORGOTTEN = (
    "DELETE FROM windows WHERE id IN ("
    "SELECT w.id FROM windows w JOIN batches b ON b.id = w.batch_id"
    " WHERE w.batch_id = ? AND b.forgetting IS NOT NULL LIMIT ?)"
)
ATTEMPT_COLUMNS = (
    "a.attempt, a.slot, a.device, a.node, a.placed_at, a.pid, a.started_at, a.ended_at, a.ending, a.message,"
    " a.traceback, a.cpu_seconds, a.peak_memory_bytes, a.device_memory_bytes, a.device_seconds, a.own_memory_bytes"
)
#: of a window and its last attempt: all NULL from the slot on if there was none
WINDOW_COLUMNS = (
    "w.id, w.finishing, w.batch_id, w.label, w.plan, w.state, w.moved_at, a.slot, a.device, a.node, a.placed_at, a.pid,"
    " a.started_at, a.ended_at, a.cpu_seconds, a.peak_memory_bytes, a.device_memory_bytes, a.device_seconds,"
    " a.own_memory_bytes"
)
_WINDOWS = (
    f"SELECT {WINDOW_COLUMNS} FROM windows w"  # noqa: S608
    " LEFT JOIN attempts a ON a.window = w.id AND a.attempt = w.attempt"
)
ONE_WINDOW = f"{_WINDOWS} WHERE w.batch_id = ? AND w.label = ?"
# the index is named because the planner would otherwise sort the whole batch for every page
IN_ORDER = (
    f"SELECT {WINDOW_COLUMNS} FROM windows w INDEXED BY windows_in_order"  # noqa: S608
    " LEFT JOIN attempts a ON a.window = w.id AND a.attempt = w.attempt"
    " WHERE w.batch_id = ? AND w.id > ? ORDER BY w.id LIMIT ?"
)
STATES = (
    "SELECT id, plan, state FROM windows INDEXED BY windows_in_order WHERE batch_id = ? AND id > ? ORDER BY id LIMIT ?"
)
BY_STATUS = f"{_WINDOWS} WHERE w.batch_id = ? AND w.status = ? AND w.id > ? ORDER BY w.id LIMIT ?"
BY_FINISHING = (
    f"{_WINDOWS} WHERE w.batch_id = ? AND w.finishing IS NOT NULL AND (w.finishing, w.id) > (?, ?)"
    " ORDER BY w.finishing, w.id LIMIT ?"
)
#: the moves by which windows left their slots for good, the latest first. Only the last `:lines` lines of the story are
#: searched: there may be a million lines of other kinds
ENDINGS = (
    f"SELECT {WINDOW_COLUMNS}, s.reason"  # noqa: S608
    " FROM (SELECT id, window, old, reason FROM story ORDER BY id DESC LIMIT :lines) s"
    " CROSS JOIN windows w ON w.id = s.window AND w.finishing = s.id"
    " JOIN attempts a ON a.window = w.id AND a.attempt = w.attempt"
    f" WHERE (s.old IN ({_listed(ACTIVE)}) OR w.status = 'lost')"
    " AND (:batch_id IS NULL OR w.batch_id = :batch_id)"
    f" AND (NOT :failed OR w.status IN ({_listed(FAILURES)})) ORDER BY s.id DESC LIMIT :windows"
)

#: for each active window of a batch: its attempts since it last finished that began and were interrupted or never ended
LOSSES = f"""
    SELECT w.label, count(*) FROM windows w JOIN attempts a ON a.window = w.id
    WHERE w.batch_id = ? AND w.status IN ({_listed(ACTIVE)})
      AND a.started_at IS NOT NULL AND (a.ending IS NULL OR a.ending = 'interrupted')
      AND a.attempt > coalesce((
          SELECT max(s.attempt) FROM story s
          WHERE s.window = w.id AND s.new NOT IN ({_listed(UNFINISHED)})
      ), 0)
    GROUP BY w.id
"""  # noqa: S608

#: the last batches whose id begins with a text
NAMED_LIKE = """
SELECT batch FROM batches WHERE substr(id, 1, ?) = ? AND forgetting IS NULL ORDER BY number DESC LIMIT ?
"""
