"""Columns as the structs of the protocol and the model, and states as columns. Without sqlite.

sqlite keeps whatever it is given in a column, so rows are decoded as the JSON in them is: a value that no store has
written (an edit by hand, a damaged page) raises msgspec.ValidationError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import convert

from gpusched.core.events import WindowMoved
from gpusched.core.model import Batch, DataNote, PlannedWindow, Slot, WindowKey, WindowResult
from gpusched.core.samples import Sample
from gpusched.core.states import (
    Failed,
    Failure,
    Finished,
    Held,
    Lost,
    Queued,
    Reused,
    Running,
    Starting,
    State,
    Succeeded,
    Usage,
)
from gpusched.core.statuses import attempt_of, reason_of, status_of
from gpusched.protocol import AttemptLine, BatchStatus, StoryLine, WindowLine

#: a failure's message and traceback keep this many bytes each: the end, where the cause is
MAX_TEXT_BYTES = 64 * 1024

#: seconds since the epoch, or of a duration: fewer than would lead beyond the last year that a datetime can have
Seconds = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_800)]

_UNKNOWN_USAGE = (None,) * len(Usage.__struct_fields__)


class DeviceRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The health of a device, as last recorded."""

    id: str
    health: Literal["open", "draining", "quarantined"]
    reason: str
    at: Seconds


class _CountRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`statements.COUNTS`."""

    batch_id: str
    status: str
    windows: int


class _BatchRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`statements.BATCHES`."""

    id: str
    output_dir: str
    submitted_at: Seconds
    held_reason: str | None
    finished_at: Seconds | None
    constants: int
    owner: int | None


class _WindowRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`statements.WINDOW_COLUMNS`, and behind them the reason of a move."""

    id: int
    finishing: int | None
    batch_id: str
    label: str
    plan: str
    state: str
    moved_at: Seconds
    slot: int | None
    device: str | None
    node: str | None
    placed_at: Seconds | None
    pid: int | None
    started_at: Seconds | None
    ended_at: Seconds | None
    cpu_seconds: Seconds | None
    peak_memory_bytes: int | None
    device_memory_bytes: int | None
    device_seconds: Seconds | None
    own_memory_bytes: int | None
    reason: str = ""


class _StoryRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`statements.STORY`."""

    at: Seconds
    old: str | None
    new: str | None
    attempt: int | None
    reason: str


class _AttemptRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`statements.ATTEMPT_COLUMNS`."""

    attempt: int
    slot: int
    device: str
    node: str
    placed_at: Seconds
    pid: int | None
    started_at: Seconds | None
    ended_at: Seconds | None
    ending: str | None
    message: str | None
    traceback: str | None
    cpu_seconds: Seconds | None
    peak_memory_bytes: int | None
    device_memory_bytes: int | None
    device_seconds: Seconds | None
    own_memory_bytes: int | None


_encode = msgspec.json.Encoder().encode
decode_batch = msgspec.json.Decoder(Batch).decode
decode_plan = msgspec.json.Decoder(PlannedWindow).decode
decode_state: Callable[[str], State] = msgspec.json.Decoder(State).decode

decode_notes = msgspec.json.Decoder(tuple[DataNote, ...]).decode
decode_samples = msgspec.json.Decoder(list[Sample]).decode


def to_json(value: object) -> str:
    return _encode(value).decode()


def bounded(state: State) -> State:
    """Return `state` with the texts of its failure cut to `MAX_TEXT_BYTES`."""
    if type(state) is Finished and (type(state.outcome) is Failed or type(state.outcome) is Lost):
        failure = bounded_failure(state.outcome.failure)
        return Finished(attempts=state.attempts, outcome=type(state.outcome)(failure=failure))
    return state


def bounded_failure(failure: Failure) -> Failure:
    return Failure(
        kind=failure.kind,
        message=_tail(failure.message),
        traceback=_tail(failure.traceback),
        source_line=failure.source_line,
    )


def _tail(text: str) -> str:
    return text.encode("utf-8", "replace")[-MAX_TEXT_BYTES:].decode("utf-8", "ignore")


def ending_columns(record: WindowMoved) -> tuple[object, ...]:
    """The columns that `statements.END` sets."""
    usage: tuple[object, ...] = msgspec.structs.astuple(record.usage) if record.usage else _UNKNOWN_USAGE
    match record.ending:
        case WindowResult():
            return record.at, "result", None, None, *usage
        case Failure() as failure:
            return record.at, failure.kind, _tail(failure.message), _tail(failure.traceback), *usage
        case None:
            return record.at, None, None, None, *usage


def batch_rows(rows: Iterable[Sequence[Any]], counts: Iterable[Sequence[Any]]) -> list[BatchStatus]:
    """Batches with the numbers of their windows, from rows of `statements.BATCHES` and `statements.COUNTS`."""
    by_batch: dict[str, dict[str, int]] = {}
    for count in (convert(columns, _CountRow) for columns in counts):
        by_batch.setdefault(count.batch_id, {})[count.status] = count.windows
    batches = (convert(columns, _BatchRow) for columns in rows)
    return [_batch(row, by_batch.get(row.id, {})) for row in batches]


def _batch(row: _BatchRow, counts: dict[str, int]) -> BatchStatus:
    return BatchStatus(
        id=row.id,
        output_dir=row.output_dir,
        submitted_at=row.submitted_at,
        state="finished" if row.finished_at is not None else "held" if row.held_reason is not None else "open",
        held_reason=row.held_reason,
        finished_at=row.finished_at,
        counts=counts,
        constants=row.constants,
        owner=row.owner,
    )


def window_line(columns: Sequence[Any]) -> tuple[WindowLine, PlannedWindow, State]:
    """The line of a window without its result, its plan and its state. `columns` are `statements.WINDOW_COLUMNS`."""
    return _window_line(convert(columns, _WindowRow))


def _window_line(row: _WindowRow) -> tuple[WindowLine, PlannedWindow, State]:
    plan, state = decode_plan(row.plan), decode_state(row.state)
    window, outcome = plan.window, state.outcome if isinstance(state, Finished) else None
    failure = outcome.failure if isinstance(outcome, Failed | Lost) else None
    line = WindowLine(
        key=WindowKey(row.batch_id, row.label),
        symbol=window.symbol,
        start=window.start,
        end=window.end,
        status=status_of(state),
        moved_at=row.moved_at,
        usable_rows=plan.usable_rows,
        attempts=attempt_of(state) - isinstance(state, Queued | Held),
        slot=None if row.slot is None else Slot(row.slot, row.device or "", row.node or ""),
        pid=row.pid,
        started_at=row.started_at,
        ended_at=row.ended_at,
        why=reason_of(outcome) if outcome is not None and failure is None else None,
        failure=failure,
        remedy=plan.remedy if outcome is not None else "",
        point=window.point,
    )
    return line, plan, state


def result_line(columns: Sequence[Any]) -> WindowLine:
    """The line of a finished window, with its result if it has one."""
    row = convert(columns, _WindowRow)
    line, _, state = _window_line(row)
    if not isinstance(state, Finished):
        raise msgspec.ValidationError("it is among the finished windows, and its state is another")
    seconds = None
    if row.placed_at is not None and line.ended_at is not None:
        seconds = max(0.0, line.ended_at - (line.started_at or row.placed_at))
    added: dict[str, Any] = {"placed_at": row.placed_at, "seconds": seconds, "usage": _usage(row)}
    if isinstance(state.outcome, Succeeded | Reused):
        result = added["result"] = state.outcome.result
        if (training := result.training) is not None:
            added |= {
                "attempts": training.attempts,
                "slot": line.slot or Slot(-1 if training.slot is None else training.slot, result.device, training.node),
                "seconds": training.seconds,
                "started_at": training.started_at,
                "ended_at": training.started_at + training.seconds,
            }
    return msgspec.structs.replace(line, **added)


def ending(columns: Sequence[Any]) -> WindowMoved:
    """The move by which a window left its slot for good. `columns` have the reason of the move at the end."""
    row = convert(columns, _WindowRow)
    line, _, state = _window_line(row)
    assert line.slot is not None
    old: State = Starting(attempt=line.attempts, slot=line.slot)
    if line.pid is not None and line.started_at is not None:
        old = Running(attempt=line.attempts, slot=line.slot, pid=line.pid, started_at=line.started_at)
    return WindowMoved(key=line.key, old=old, new=state, reason=row.reason, at=line.moved_at)


def story_lines(rows: Iterable[Sequence[Any]]) -> list[StoryLine]:
    lines: list[StoryLine] = []
    state, attempt = "queued", 1
    for row in (convert(columns, _StoryRow) for columns in rows):
        if row.new is not None and row.attempt is not None:
            state, attempt = row.new, row.attempt
        lines.append(StoryLine(at=row.at, old=row.old or state, new=state, attempt=attempt, reason=row.reason))
    return lines


def attempt_row(columns: Sequence[Any]) -> AttemptLine:
    row = convert(columns, _AttemptRow)
    return AttemptLine(
        attempt=row.attempt,
        slot=Slot(row.slot, row.device, row.node),
        placed_at=row.placed_at,
        pid=row.pid,
        started_at=row.started_at,
        ended_at=row.ended_at,
        ending=row.ending,
        message=row.message,
        traceback=row.traceback,
        usage=_usage(row),
    )


def _usage(row: _WindowRow | _AttemptRow) -> Usage | None:
    if row.cpu_seconds is None:
        return None
    return Usage(
        cpu_seconds=row.cpu_seconds,
        peak_memory_bytes=row.peak_memory_bytes or 0,
        device_memory_bytes=row.device_memory_bytes,
        device_seconds=row.device_seconds,
        own_memory_bytes=row.own_memory_bytes,
    )
