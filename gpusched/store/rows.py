"""Columns as the structs of the protocol and the model, and states as columns. Without sqlite.

The store returns the protocol's own lines where a row has no more than they show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from gpusched.core.events import WindowMoved
from gpusched.core.model import Batch, DataNote, PlannedWindow, Slot, WindowKey, WindowResult
from gpusched.core.samples import Sample
from gpusched.core.states import Failed, Failure, Finished, Lost, State, Usage
from gpusched.protocol import AttemptLine, BatchStatus

#: a failure's message and traceback keep this many bytes each: the end, where the cause is
MAX_TEXT_BYTES = 64 * 1024

_UNKNOWN_USAGE = (None,) * len(Usage.__struct_fields__)


class WindowRow(msgspec.Struct, frozen=True, kw_only=True):
    """A window, its state, and its last launch (None if none was needed, or while the next one waits for a slot)."""

    key: WindowKey
    plan: PlannedWindow
    state: State
    moved_at: float
    last_attempt: AttemptLine | None


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
