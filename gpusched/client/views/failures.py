"""Failures of a batch by reason, each with an example. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gpusched.client.views.reasons import bare_reason, general_reason_of
from gpusched.client.views.window import FinishedWindow
from gpusched.protocol import WindowLine


class FailureGroup(msgspec.Struct, kw_only=True):
    """Windows that failed for the same reason."""

    #: the first of them
    example: FinishedWindow
    #: the reason without the parts that differ from window to window
    general: str
    labels: list[str]
    #: whether all of them have the example's reason word for word
    same: bool = True

    @property
    def reason(self) -> str:
        """The reason in words that are true of all of them."""
        return self.example.reason if self.same else self.general


def by_reason(windows: Iterable[FinishedWindow]) -> list[FailureGroup]:
    """Failed windows grouped by kind and reason, the largest group first."""
    groups: dict[tuple[str | None, str], FailureGroup] = {}
    for window in windows:
        key = window.kind, general_reason_of(window.reason, window.label)
        group = groups.setdefault(key, FailureGroup(example=window, general=key[1], labels=[]))
        group.labels.append(window.label)
        group.same = group.same and window.reason == group.example.reason
    return sorted(groups.values(), key=lambda group: -len(group.labels))


def failed_window(line: WindowLine) -> FinishedWindow:
    """The line of a listing, if its window has failed, as the view of a run shows it."""
    began, ended = line.started_at, line.ended_at
    return FinishedWindow(
        label=line.key.label,
        outcome=line.status,
        reason=bare_reason(line),
        kind=line.kind,
        attempts=line.attempts,
        seconds=ended - began if began is not None and ended is not None else 0.0,
        slot=line.slot.number if line.slot else None,
        device=line.slot.device_id if line.slot else None,
        node=line.slot.node if line.slot else "",
        source_line=line.failure.source_line if line.failure else "",
    )
