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
from gpusched.core.states import Finished, Running, State, is_active
from gpusched.core.statuses import attempt_of, status_of
from gpusched.core.worth import is_constant
from gpusched.store import statements
from gpusched.store.database import Database
from gpusched.store.moves import Moves
from gpusched.store.rows import bounded, to_json


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
        moves = Moves(self._database, self._line)
        sync = bool(histories) or not records or not all(map(_may_be_late, records))
        with self._database.transaction(sync=sync):
            for record in records:
                if isinstance(record, WindowMoved):
                    moves.add(record)
                else:
                    moves.write()
                    self._write(record, moves.line)
            moves.write()
            for estimate in learned:
                learn = statements.LEARN_POINT if estimate.is_of_a_point else statements.LEARN
                self._execute(learn, msgspec.structs.astuple(estimate))
            for batch_id, samples in histories.items():
                self._execute(statements.KEEP_HISTORY, (to_json(samples), batch_id))
        self._line = moves.line

    def _write(self, record: Record, line: int) -> None:
        """Write a record that moves no window; `line` is the number of the last line of all stories by then."""
        match record:
            case WindowsAdded():
                self._add(record)
            case BatchAccepted():
                self._accept(record)
            case BatchHeld(batch_id=batch_id, kind=kind, reason=reason):
                self._execute(statements.HOLD, (kind, reason, batch_id))
            case BatchReleased():
                self._execute(statements.HOLD, (None, None, record.batch_id))
            case BatchAltered():
                self._alter(record, line)
            case BatchReopened():
                self._execute("UPDATE batches SET finished_at = NULL WHERE id = ?", (record.batch_id,))
            case ChangeAdvanced(batch_id=batch_id, change=change):
                self._execute(statements.ADVANCE, (batch_id, *msgspec.structs.astuple(change)))
            case ChangeMade(batch_id=batch_id, change=change, recorded=recorded):
                if recorded:
                    row = (batch_id, change.number)
                    self._execute("DELETE FROM changes WHERE batch_id = ? AND number = ?", row)
            case BatchFinished():
                self._execute(statements.FINISH, (record.at, record.batch_id))
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
                    0 if type(state) is Finished else None,
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

    def _alter(self, record: BatchAltered, line: int) -> None:
        batch = record.batch
        self._execute("UPDATE batches SET batch = ? WHERE id = ?", (to_json(batch), batch.id))
        row = (batch.id, line, record.at, "; ".join(record.changes))
        self._execute("INSERT INTO batch_story VALUES (?, ?, ?, ?)", row)


def _may_be_late(record: Record) -> bool:
    """Whether a loss of power may lose the record: nothing is done because of it, and a restart does without it.

    A restart treats a window that was starting like one that was running, and resumes a change where it last stood.
    """
    match record:
        case WindowMoved(old=old, new=new):
            return type(new) is Running or not (is_active(old) or is_active(new))
        case ChangeAdvanced(recorded=recorded):
            return recorded
        case WindowsAdded():
            return True
        case _:
            return False
