"""Writing a turn: the rows that the records of one turn of the supervisor add and change, in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gpusched.core.estimates import Estimate
from gpusched.core.events import (
    BatchAccepted,
    BatchAltered,
    BatchFinished,
    BatchHeld,
    BatchReleased,
    BatchReopened,
    ChangeAdvanced,
    ChangeMade,
    DeviceChanged,
    DeviceTuned,
    Record,
    WindowMoved,
    WindowsAdded,
)
from gpusched.core.model import Batch, PlannedWindow
from gpusched.core.samples import Sample
from gpusched.core.states import Active, Finished, Running, Starting, State, Stopping
from gpusched.core.statuses import attempt_of, status_of
from gpusched.core.worth import is_constant
from gpusched.store import statements
from gpusched.store.database import Database
from gpusched.store.rows import bounded, ending_columns, to_json


class TurnWriter:
    """Writes turns to an open file, and numbers the lines of all stories."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._execute = database.execute
        #: number of the last line of all stories
        self._line: int = database.query("SELECT coalesce(max(id), 0) FROM story")[0][0]

    def write(
        self, records: Sequence[Record], learned: Iterable[Estimate], histories: Mapping[str, Sequence[Sample]]
    ) -> None:
        """Commit everything, durably, or nothing; see `Store.record`."""
        line = self._line
        sync = bool(histories) or not records or not all(map(_may_be_late, records))
        try:
            with self._database.transaction(sync=sync):
                for record in records:
                    self._write(record)
                for estimate in learned:
                    self._execute(statements.LEARN, msgspec.structs.astuple(estimate))
                for batch_id, samples in histories.items():
                    self._execute(statements.KEEP_HISTORY, (to_json(samples), batch_id))
        except BaseException:
            self._line = line
            raise

    def _write(self, record: Record) -> None:
        match record:
            case WindowMoved():
                self._move(record)
            case WindowsAdded():
                self._add(record)
            case BatchAccepted():
                self._accept(record)
            case BatchHeld(batch_id=batch_id, kind=kind, reason=reason):
                self._execute(statements.HOLD, (kind, reason, batch_id))
            case BatchReleased():
                self._execute(statements.HOLD, (None, None, record.batch_id))
            case BatchAltered():
                self._alter(record)
            case BatchReopened():
                self._execute("UPDATE batches SET finished_at = NULL WHERE id = ?", (record.batch_id,))
            case ChangeAdvanced(batch_id=batch_id, change=change):
                self._execute(statements.ADVANCE, (batch_id, *msgspec.structs.astuple(change)))
            case ChangeMade(batch_id=batch_id, change=change, recorded=recorded):
                if recorded:
                    row = (batch_id, change.number)
                    self._execute("DELETE FROM changes WHERE batch_id = ? AND number = ?", row)
            case BatchFinished():
                self._execute("UPDATE batches SET finished_at = ? WHERE id = ?", (record.at, record.batch_id))
            case DeviceChanged():
                device = (record.device_id, record.health, record.reason, record.at)
                self._execute("INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?)", device)
            case DeviceTuned():
                pass  # not kept: the next start tunes anew, since other programs may use the machine by then

    def _add(self, record: WindowsAdded) -> None:
        if record.first:
            self._begin_batch(record.batch, record.at)
            # Marked as being forgotten, it is hidden until it is accepted, and removed after a crash.
            self._execute("UPDATE batches SET forgetting = 'records' WHERE id = ?", (record.batch.id,))
        self._insert(record.batch.id, record.windows, record.at)

    def _accept(self, record: BatchAccepted) -> None:
        batch = record.batch
        if record.added == 0:
            self._begin_batch(batch, record.at)
        self._insert(batch.id, record.windows[record.added :], record.at)
        self._execute("UPDATE batches SET accepted_at = ?, forgetting = NULL WHERE id = ?", (record.at, batch.id))
        self._database.execute_many(
            "INSERT INTO notes VALUES (?, ?, ?, ?)",
            [(batch.id, n, symbol, to_json(notes)) for n, (symbol, notes) in enumerate(record.notes.items())],
        )

    def _begin_batch(self, batch: Batch, at: float) -> None:
        """Insert a batch, in the place of its earlier round if there is one."""
        self._execute("DELETE FROM batches WHERE id = ?", (batch.id,))
        about = (batch.id, to_json(batch), batch.output_dir, batch.submitted_at, batch.owner)
        self._execute(statements.ACCEPT, (*about, at))

    def _insert(self, batch_id: str, windows: Sequence[tuple[PlannedWindow, State]], at: float) -> None:
        rows = (
            (
                *(batch_id, plan.window.label, plan.window.symbol, status_of(state), attempt_of(state), at),
                *(
                    0 if isinstance(state, Finished) else None,
                    to_json(plan),
                    to_json(bounded(state)),
                    is_constant(state),
                ),
            )
            for plan, state in windows
        )
        self._database.execute_many(statements.INSERT_WINDOW, rows)
        counts = Counter(status_of(state) for _, state in windows)
        self._database.execute_many(statements.COUNT, ((batch_id, *counted) for counted in counts.items()))
        self._execute(statements.COUNT_CONSTANTS, (sum(is_constant(state) for _, state in windows), batch_id))

    def _alter(self, record: BatchAltered) -> None:
        batch = record.batch
        self._execute("UPDATE batches SET batch = ? WHERE id = ?", (to_json(batch), batch.id))
        line = (batch.id, self._line, record.at, "; ".join(record.changes))
        self._execute("INSERT INTO batch_story VALUES (?, ?, ?, ?)", line)

    def _move(self, record: WindowMoved) -> None:
        old, new, at, key = record.old, record.new, record.at, record.key
        self._line += 1
        status, attempt = status_of(new), attempt_of(new)
        finishing = self._line if isinstance(new, Finished) else None
        row = (status, attempt, at, finishing, to_json(bounded(new)), is_constant(new), key.batch_id, key.label)
        moved = self._execute(statements.MOVE, row).fetchall()
        if not moved:
            raise LookupError(f"{key}: the store has no such window")
        ((window,),) = moved
        self._execute(statements.TELL, (self._line, window, at, status_of(old), status, attempt, record.reason))
        match new:
            case Starting():
                self._execute(statements.PLACE, (window, attempt, new.slot.index, new.slot.device_id, at))
            case Running():
                self._execute(statements.START, (new.pid, new.started_at, window, attempt))
            case Stopping(pid=int(pid)) if not isinstance(old, Running) and getattr(old, "pid", None) is None:
                self._execute(statements.START, (pid, at, window, attempt))
            case _ if isinstance(old, Active) and not isinstance(new, Active):
                self._execute(statements.END, (*ending_columns(record), window, old.attempt))


def _may_be_late(record: Record) -> bool:
    """Whether a loss of power may lose the record: nothing is done because of it, and a restart ends up as well.

    A restart treats a window that was starting like one that was running, and resumes a change where it last stood.
    """
    match record:
        case WindowMoved(old=old, new=new):
            return isinstance(new, Running) or (not isinstance(old, Active) and not isinstance(new, Active))
        case ChangeAdvanced(recorded=recorded):
            return recorded
        case WindowsAdded():
            return True
        case _:
            return False
