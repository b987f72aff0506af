"""Failures by reason, each with an example. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gpusched.client.views.reasons import bare_reason, general_reason_of
from gpusched.client.views.window import FinishedWindow
from gpusched.protocol import WindowLine


class FailureGroup(msgspec.Struct, kw_only=True):
    """Windows that failed for the same reason."""

    #: each with the id of its batch
    windows: list[tuple[str, FinishedWindow]]
    #: the reason without the parts that differ from window to window
    general: str
    #: whether all of them have the example's reason word for word
    same: bool = True

    @property
    def example(self) -> FinishedWindow:
        """The first of them."""
        return self.windows[0][1]

    @property
    def labels(self) -> list[str]:
        return [window.label for _, window in self.windows]

    @property
    def reason(self) -> str:
        """The reason in words that are true of all of them."""
        return self.example.reason if self.same else self.general


def by_reason(failures: Iterable[tuple[str, FinishedWindow]]) -> list[FailureGroup]:
    """Failed windows, each with the id of its batch, grouped by kind and reason, the largest group first."""
    groups: dict[tuple[str | None, str], FailureGroup] = {}
    for batch_id, window in failures:
        key = window.kind, general_reason_of(window.reason, window.label)
        group = groups.setdefault(key, FailureGroup(windows=[], general=key[1]))
        group.windows.append((batch_id, window))
        group.same = group.same and window.reason == group.example.reason
    return sorted(groups.values(), key=lambda group: -len(group.windows))


def failed_window(line: WindowLine) -> tuple[str, FinishedWindow]:
    """The line of a listing, if its window has failed: its batch, and the window as the view of a run shows it."""
    began, ended = line.started_at, line.ended_at
    window = FinishedWindow(
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
    return line.key.batch_id, window
