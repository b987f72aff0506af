"""Columns as the structs of the protocol and the model, and states as columns. Without sqlite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec

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

_UNKNOWN_USAGE = (None,) * len(Usage.__struct_fields__)


class DeviceRow(msgspec.Struct, frozen=True, kw_only=True):
    """The health of a device, as last recorded."""

    id: str
    health: Literal["open", "draining", "quarantined"]
    reason: str
    at: float


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
        failure = state.outcome.failure
        bounded = Failure(
            kind=failure.kind,
            message=_tail(failure.message),
            traceback=_tail(failure.traceback),
            source_line=failure.source_line,
        )
        return Finished(attempts=state.attempts, outcome=type(state.outcome)(failure=bounded))
    return state


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


def batch_row(row: tuple[Any, ...], counts: dict[str, int]) -> BatchStatus:
    batch_id, output_dir, submitted_at, held_reason, finished_at, constants, owner = row
    return BatchStatus(
        id=batch_id,
        output_dir=output_dir,
        submitted_at=submitted_at,
        state="finished" if finished_at is not None else "held" if held_reason is not None else "open",
        held_reason=held_reason,
        finished_at=finished_at,
        counts=counts,
        constants=constants,
        owner=owner,
    )


def window_line(row: Sequence[Any]) -> tuple[WindowLine, PlannedWindow, State]:
    """The line of a window without its result, its plan and its state. `row` has `statements.WINDOW_COLUMNS`."""
    _, _, batch_id, label, encoded_plan, encoded_state, moved_at, slot, device, node, _, pid, started_at, ended_at = (
        row[:14]
    )
    plan, state = decode_plan(encoded_plan), decode_state(encoded_state)
    window, outcome = plan.window, state.outcome if isinstance(state, Finished) else None
    failure = outcome.failure if isinstance(outcome, Failed | Lost) else None
    line = WindowLine(
        key=WindowKey(batch_id, label),
        symbol=window.symbol,
        start=window.start,
        end=window.end,
        status=status_of(state),
        moved_at=moved_at,
        usable_rows=plan.usable_rows,
        attempts=attempt_of(state) - isinstance(state, Queued | Held),
        slot=None if slot is None else Slot(slot, device, node),
        pid=pid,
        started_at=started_at,
        ended_at=ended_at,
        why=reason_of(outcome) if outcome is not None and failure is None else None,
        failure=failure,
        remedy=plan.remedy if outcome is not None else "",
        point=window.point,
    )
    return line, plan, state


def result_line(row: Sequence[Any]) -> WindowLine:
    """The line of a finished window, with its result if it has one."""
    line, _, state = window_line(row)
    assert isinstance(state, Finished)
    placed_at, usage = row[10], row[14:]
    seconds = None
    if placed_at is not None and line.ended_at is not None:
        seconds = max(0.0, line.ended_at - (line.started_at or placed_at))
    added: dict[str, Any] = {
        "placed_at": placed_at,
        "seconds": seconds,
        "usage": None if usage[0] is None else Usage(*usage),
    }
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


def ending(row: Sequence[Any]) -> WindowMoved:
    """The move by which a window left its slot for good. `row` has the reason of the move behind the columns."""
    line, _, state = window_line(row)
    assert line.slot is not None
    old: State = Starting(attempt=line.attempts, slot=line.slot)
    if line.pid is not None and line.started_at is not None:
        old = Running(attempt=line.attempts, slot=line.slot, pid=line.pid, started_at=line.started_at)
    return WindowMoved(key=line.key, old=old, new=state, reason=row[-1], at=line.moved_at)


def story_lines(rows: Iterable[Sequence[Any]]) -> list[StoryLine]:
    lines: list[StoryLine] = []
    state, attempt = "queued", 1
    for at, old, new, number, reason in rows:
        if new is not None:
            state, attempt = new, number
        lines.append(StoryLine(at=at, old=old or state, new=state, attempt=attempt, reason=reason))
    return lines


def attempt_row(row: Sequence[Any]) -> AttemptLine:
    attempt, slot, device, node, placed_at, pid, started_at, ended_at, ending, message, traceback, *usage = row
    return AttemptLine(
        attempt=attempt,
        slot=Slot(slot, device, node),
        placed_at=placed_at,
        pid=pid,
        started_at=started_at,
        ended_at=ended_at,
        ending=ending,
        message=message,
        traceback=traceback,
        usage=None if usage[0] is None else Usage(*usage),
    )
