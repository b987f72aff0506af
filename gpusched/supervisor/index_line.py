"""A line of the index of a batch: a finished window, as JSON, for programs that read the index."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from gpusched.core.model import DataNote
from gpusched.core.statuses import FAILURES
from gpusched.protocol import WindowLine


def line(
    window: WindowLine,
    log: Path | None,
    notes: tuple[DataNote, ...] = (),
    settings: Mapping[str, Any] = MappingProxyType({}),
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """The line of a finished window with its result, for programs that read the index.

    `log` is the log of its last attempt, if there is one; `notes` are about its symbol's data, `settings` those of the
    workload that were given, by `section.key`, and `parameters` those among them that its point of a sweep has set.
    """
    result, slot = window.result, window.slot
    began = window.started_at or window.placed_at
    fields: dict[str, Any] = {
        "batch_id": window.key.batch_id,
        "symbol": window.symbol,
        "date_range": {"start": window.start, "end": window.end},
        "window_label": window.key.label,
        **({"point": window.point, "parameters": parameters} if window.point else {}),
        "artifacts_path": result.artifacts_path if result else None,
        # The words of the commands and Python are below; this, `skip_reason` and `error` are those of earlier versions.
        "status": "failed" if window.status in FAILURES else "success" if result else window.status,
        "metrics": window.metrics,
        "sample_counts": result.sample_counts if result else None,
        "attempts": window.attempts,
        "device": window.device,
        "slot": slot.number if slot else None,
        **({"node": slot.node} if slot and slot.node else {}),
        "started_at": None if began is None else _iso(began),
        "seconds": round(window.seconds or 0.0, 6),
        "log": None if log is None else str(log),
    }
    if window.usage:
        fields["peak_memory_bytes"] = window.usage.peak_memory_bytes
        fields["device_memory_bytes"] = window.usage.device_memory_bytes
    fields |= {"outcome": window.status, "reason": window.reason} | _ended(window)
    if settings:
        fields["settings"] = dict(settings)
    if notes:
        fields["data_notes"] = notes
    return msgspec.json.encode(fields) + b"\n"


def _ended(window: WindowLine) -> dict[str, Any]:
    """The fields that depend on how a window ended."""
    if window.failure is not None:
        failure = window.failure
        return {"error": {"kind": failure.kind, "message": failure.message, "traceback": failure.traceback}}
    match window.status:
        case "timed_out":
            return {"error": {"kind": "timed_out", "message": window.why}}
        case "skipped":
            return {"skip_reason": window.why}
        case _:
            fields: dict[str, Any] = {}
            if window.result is not None and window.result.constant is not None:
                fields["constant"] = window.result.constant
            return fields | ({"reused": True} if window.status == "reused" else {})


def _iso(wall: float) -> str:
    return dt.datetime.fromtimestamp(wall, dt.UTC).isoformat()
