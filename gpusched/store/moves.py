"""The moves of one turn: however often a window moves, its row and its attempt's are changed once.

The counts of a batch are changed once, too, and therefore not by a trigger, which would run for each window.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from gpusched.core.events import WindowMoved
from gpusched.core.model import WindowKey
from gpusched.core.states import Finished, Running, Starting, Stopping, is_active
from gpusched.core.statuses import attempt_of, status_of
from gpusched.core.worth import is_constant
from gpusched.store import statements
from gpusched.store.database import Database
from gpusched.store.rows import bounded, ending_columns, to_json

#: columns, the window's id to be filled in
_Row = tuple[Any, ...]


class Moves:
    """Collects moves within a transaction; `write` adds and changes their rows."""

    def __init__(self, database: Database, line: int) -> None:
        self._database = database
        #: number of the last line of all stories
        self.line = line
        #: the last move of each window, and the number of its line
        self._last: dict[WindowKey, tuple[WindowMoved, int]] = {}
        self._lines: list[tuple[WindowKey, _Row]] = []
        #: changes of the numbers of windows, by batch and status
        self._counts: Counter[tuple[str, str]] = Counter()
        #: by batch: the change of the number of models that predict a constant
        self._constants: Counter[str] = Counter()
        # By attempt: the values of its row. An attempt is placed, started and ended in this order.
        self._placed: dict[tuple[WindowKey, int], _Row] = {}
        self._started: dict[tuple[WindowKey, int], _Row] = {}
        self._ended: dict[tuple[WindowKey, int], _Row] = {}

    def add(self, record: WindowMoved) -> None:
        """Collect the next move."""
        old, new, at, key = record.old, record.new, record.at, record.key
        attempt = attempt_of(new)
        if type(new) is Starting and ((key, attempt) in self._started or (key, attempt) in self._ended):
            self.write()
        self.line += 1
        self._last[key] = record, self.line
        before, after = status_of(old), status_of(new)
        self._lines.append((key, (self.line, at, before, after, attempt, record.reason)))
        self._counts[key.batch_id, before] -= 1
        self._counts[key.batch_id, after] += 1
        if constants := is_constant(new) - is_constant(old):
            self._constants[key.batch_id] += constants
        if type(new) is Starting and not is_active(old):
            self._placed[key, attempt] = (new.slot.index, new.slot.device_id, new.slot.node, at)
        elif type(new) is Running:
            self._started[key, attempt] = (new.slot.index, new.pid, new.started_at)
        elif type(new) is Stopping:
            if new.pid is not None and getattr(old, "pid", None) is None:
                self._started[key, attempt] = (new.slot.index, new.pid, at)
        elif is_active(old):
            _, pid, started_at = self._started.pop((key, old.attempt), (0, None, None))
            self._ended[key, old.attempt] = (old.slot.index, pid, started_at, *ending_columns(record))

    def write(self) -> None:
        """Write all that has been collected. Raises `LookupError` for a window that no accepted batch has."""
        if not self._last:
            return
        many = self._database.execute_many
        moved = many(statements.MOVE, [_window_row(record, line) for record, line in self._last.values()])
        if moved < len(self._last):
            self._refuse_unknown()
        many(statements.TELL, [(*line, key.batch_id, key.label) for key, line in self._lines])
        for sql, rows in (
            (statements.PLACE, self._placed),
            (statements.START, self._started),
            (statements.END, self._ended),
        ):
            if rows:
                many(sql, [(*row, attempt, key.batch_id, key.label) for (key, attempt), row in rows.items()])
                rows.clear()
        self._count()
        self._last.clear()
        self._lines.clear()

    def _count(self) -> None:
        many = self._database.execute_many
        many(statements.COUNT, [(*of, change) for of, change in self._counts.items() if change])
        if self._constants:
            many(statements.COUNT_CONSTANTS, [(change, batch_id) for batch_id, change in self._constants.items()])
        self._counts.clear()
        self._constants.clear()

    def _refuse_unknown(self) -> None:
        for key in self._last:
            if not self._database.execute(statements.ID, (key.batch_id, key.label)).fetchall():
                raise LookupError(f"{key}: the store has no such window")


def _window_row(record: WindowMoved, line: int) -> _Row:
    """The parameters of `statements.MOVE`; `line` is the number of the move's line."""
    new, key = record.new, record.key
    finishing = line if type(new) is Finished else None
    state = to_json(bounded(new)), is_constant(new)
    return (status_of(new), attempt_of(new), record.at, finishing, *state, key.batch_id, key.label)
