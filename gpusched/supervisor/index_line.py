"""A line of the index of a batch: a finished window, as JSON, for programs that read the index."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from gpusched.core.model import DataNote, Training
from gpusched.core.states import (
    Cancelled,
    Failed,
    Failure,
    Finished,
    Lost,
    Outcome,
    Reused,
    Skipped,
    Succeeded,
    TimedOut,
)
from gpusched.core.statuses import name_of, reason_of
from gpusched.store.store import WindowRow


def line(
    row: WindowRow,
    log: Path | None,
    notes: tuple[DataNote, ...] = (),
    settings: Mapping[str, Any] = MappingProxyType({}),
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """The line of a finished window, for programs that read the index.

    `log` is the log of its last attempt, if there is one; `notes` are about its symbol's data, `settings` those of the
    workload that were given, by `section.key`, and `parameters` those among them that its point of a sweep has set.
    """
    assert isinstance(row.state, Finished)
    window, attempt = row.plan.window, row.last_attempt
    fields: dict[str, Any] = {
        "batch_id": row.key.batch_id,
        "symbol": window.symbol,
        "date_range": {"start": window.start, "end": window.end},
        "window_label": row.key.label,
        **({"point": window.point, "parameters": parameters} if window.point else {}),
        "artifacts_path": None,
        "status": None,
        "metrics": None,
        "sample_counts": None,
        "attempts": row.state.attempts,
        "device": attempt.slot.device_id if attempt else None,
        "slot": attempt.slot.number if attempt else None,
        **({"node": attempt.slot.node} if attempt and attempt.slot.node else {}),
        "started_at": _iso(attempt.started_at or attempt.placed_at) if attempt else None,
        "seconds": 0.0,
        "log": None if log is None else str(log),
    }
    if attempt and attempt.usage:
        fields["peak_memory_bytes"] = attempt.usage.peak_memory_bytes
        fields["device_memory_bytes"] = attempt.usage.device_memory_bytes
    if attempt and attempt.ended_at is not None:
        fields["seconds"] = round(max(0.0, attempt.ended_at - (attempt.started_at or attempt.placed_at)), 6)
    outcome = row.state.outcome
    # The words of the commands and Python; `status`, `skip_reason` and `error` are those of earlier versions.
    fields |= {"outcome": name_of(outcome), "reason": reason_of(outcome)} | _ended(outcome)
    if settings:
        fields["settings"] = dict(settings)
    if notes:
        fields["data_notes"] = notes
    return msgspec.json.encode(fields) + b"\n"


def _ended(outcome: Outcome) -> dict[str, Any]:
    """The fields that depend on how a window ended."""
    match outcome:
        case Succeeded(result=result) | Reused(result=result):
            fields: dict[str, Any] = {
                "status": "success",
                "artifacts_path": result.artifacts_path,
                "metrics": result.metrics,
                "sample_counts": result.sample_counts,
            }
            if result.constant is not None:
                fields["constant"] = result.constant
            if type(outcome) is Reused:
                fields |= {"reused": True, "device": result.device} | _trained(result.training)
            return fields
        case Skipped(reason=reason):
            return {"status": "skipped", "skip_reason": reason}
        case Failed(failure=failure) | Lost(failure=failure):
            return {"status": "failed", "error": _error(failure)}
        case TimedOut(seconds=seconds):
            error = {"kind": "timed_out", "message": f"stopped after {seconds:g} s"}
            return {"status": "failed", "error": error}
        case Cancelled():
            return {"status": "cancelled"}


def _trained(training: Training | None) -> dict[str, Any]:
    """The record of the training whose result is reused."""
    if training is None:
        return {}
    record: dict[str, Any] = {
        "attempts": training.attempts,
        "slot": training.slot,
        "seconds": round(training.seconds, 6),
    }
    record |= {"node": training.node} if training.node else {}
    return record | {"started_at": _iso(training.started_at)}


def _error(failure: Failure) -> dict[str, str]:
    return {"kind": failure.kind, "message": failure.message, "traceback": failure.traceback}


def _iso(wall: float) -> str:
    return dt.datetime.fromtimestamp(wall, dt.UTC).isoformat()
