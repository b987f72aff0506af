"""The panels of `gpusched top`: which rows each has, in which order, which is chosen and which are marked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

import msgspec

from gpusched.client.views.batch import BatchView
from gpusched.client.views.failures import FailureGroup, by_reason
from gpusched.client.views.numbers import chief_metrics
from gpusched.client.views.overview import DeviceView, Overview
from gpusched.client.views.window import FinishedWindow, RunningWindow
from gpusched.core.merit import merit
from gpusched.core.statuses import FAILURES

Panel = Literal["devices", "batches", "running", "failed", "finished"]
PANELS: tuple[Panel, ...] = get_args(Panel)

Order = Literal["slot", "time", "batch"]
#: the orders of running windows, each after the other
ORDERS: tuple[Order, ...] = get_args(Order)
Ranking = Literal["latest", "best", "worst"]
#: the orders of finished windows: by time, or by the metric that is shown
RANKINGS: tuple[Ranking, ...] = get_args(Ranking)

Choice = TypeVar("Choice", bound=str)


class Lens(msgspec.Struct, frozen=True, kw_only=True):
    """The choice and the order of rows."""

    #: only batches and windows with each of these words in their names
    words: str = ""
    order: Order = "slot"
    ranking: Ranking = "latest"
    #: the metric of finished windows; empty: the first of each
    metric: str = ""

    def value(self, window: FinishedWindow) -> tuple[str, float | None] | None:
        """Name and number of a window's metric; None: it has no such metric."""
        numbers = chief_metrics(window.metrics)
        name = self.metric or next(iter(numbers), "")
        return (name, numbers[name]) if name in numbers else None


ALL = Lens()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a panel, and the thing that keys act upon when it is chosen."""

    #: tells it from the others of its panel, and stays the same wherever the row moves to
    key: str
    item: DeviceView | BatchView | RunningWindow | FinishedWindow | FailureGroup
    #: of a batch or a window
    batch_id: str = ""
    #: of a window
    label: str | None = None

    @property
    def mark(self) -> str:
        """The thing that a mark stays with: of a slot, the window that is there when it is marked."""
        return f"{self.batch_id}/{self.label}" if isinstance(self.item, RunningWindow) else self.key

    @property
    def targets(self) -> list[tuple[str, str | None]]:
        """(batch, window or None for all of it) that it stands for."""
        if isinstance(self.item, FailureGroup):
            return [(batch_id, window.label) for batch_id, window in self.item.windows]
        return [(self.batch_id, self.label)] if self.batch_id else []


def rows(overview: Overview, lens: Lens = ALL) -> dict[Panel, list[Row]]:
    """All rows of each panel."""
    running = [_running(name, window) for name, window in overview.running]
    if lens.order == "time":
        running.sort(key=lambda row: row.item.since)  # type: ignore[union-attr]  # they are running windows
    elif lens.order == "batch":
        running.sort(key=lambda row: row.batch_id)
    batches = [Row(key=name, item=view, batch_id=name) for name, view in reversed(overview.batches.items())]
    # The newest first within each, as in `status`.
    batches.sort(key=lambda row: _urgency(row.item))  # type: ignore[arg-type]  # they are batches
    wanted = lens.words.lower().split()
    # Without those that failed, which have a panel of their own.
    finished = [item for item in reversed(overview.recent) if item[1].outcome not in FAILURES]
    # The latest first, as the example of its group.
    failures = (item for item in reversed(overview.failures) if has(f"{item[0]}/{item[1].label}", wanted))
    by_panel: dict[Panel, list[Row]] = {
        "devices": [Row(key=name, item=device) for name, device in overview.devices.items()],
        "batches": [row for row in batches if has(row.batch_id, wanted)],
        "running": [row for row in running if has(f"{row.batch_id}/{row.label}", wanted)],
        "failed": [_failed(group) for group in by_reason(failures)],
        "finished": [_finished(*item) for item in _ranked(finished, lens) if has(f"{item[0]}/{item[1].label}", wanted)],
    }
    return by_panel


def after(choices: Sequence[Choice], present: Choice) -> Choice:
    """The next of several choices, the first one after the last or in place of one that is gone."""
    return choices[(choices.index(present) + 1) % len(choices)] if present in choices else choices[0]


def has(text: str, words: list[str]) -> bool:
    """Whether a text has each of these words, which are in lower case."""
    lower = text.lower()
    return all(word in lower for word in words)


def metric_names(overview: Overview) -> list[str]:
    """The metrics that windows which finished lately have."""
    return list(dict.fromkeys(name for _, window in overview.recent for name in chief_metrics(window.metrics)))


def _urgency(batch: BatchView) -> int:
    """Batches at work come first, then those that wait, are held, and are finished.

    One that has begun keeps its place while others have all of the slots for a moment, so that rows do not jump.
    """
    if batch.finished:
        return 4
    if batch.held_reason is not None:
        return 3
    if batch.waits:
        return 2
    return 0 if batch.running or batch.trained else 1


def _running(batch_id: str, window: RunningWindow) -> Row:
    # The key is the slot: the choice stays there, whichever window holds it by then.
    return Row(key=str(window.slot), item=window, batch_id=batch_id, label=window.label)


def _finished(batch_id: str, window: FinishedWindow) -> Row:
    return Row(key=f"{batch_id}/{window.label}", item=window, batch_id=batch_id, label=window.label)


def _ranked(finished: list[tuple[str, FinishedWindow]], lens: Lens) -> list[tuple[str, FinishedWindow]]:
    if lens.ranking == "latest":
        return finished
    numbered = [
        (merit(value[0], value[1]), item)
        for item in finished
        if (value := lens.value(item[1])) and value[1] is not None
    ]
    numbered.sort(key=lambda entry: entry[0], reverse=lens.ranking == "best")
    return [item for _, item in numbered]


def _failed(group: FailureGroup) -> Row:
    batch_id, latest = group.windows[0]
    return Row(key=f"{latest.kind}: {group.general}", item=group, batch_id=batch_id, label=latest.label)


class Cursor:
    """A panel, the chosen row of each panel by its key, and the rows that are marked."""

    def __init__(self, panel: Panel = "batches") -> None:
        self.panel: Panel = panel
        self._chosen: dict[Panel, str] = {}
        #: the marked rows of `panel`, as `Row.mark` names them
        self.marked: set[str] = set()

    def number(self, panel: Panel, panel_rows: list[Row]) -> int:
        """Where the chosen row of a panel stands; the first one, if it is gone."""
        chosen = self._chosen.get(panel)
        return next((number for number, row in enumerate(panel_rows) if row.key == chosen), 0)

    def row(self, by_panel: dict[Panel, list[Row]]) -> Row | None:
        """The chosen row."""
        here = by_panel[self.panel]
        return here[self.number(self.panel, here)] if here else None

    def rows(self, by_panel: dict[Panel, list[Row]]) -> list[Row]:
        """The rows that keys act upon: the marked ones, or else the chosen one."""
        marked = [row for row in by_panel[self.panel] if row.mark in self.marked]
        chosen = self.row(by_panel)
        return marked or ([chosen] if chosen is not None else [])

    def mark(self, by_panel: dict[Panel, list[Row]]) -> None:
        """Mark the chosen row, or take its mark away, and go on to the next."""
        if (row := self.row(by_panel)) is not None:
            self.marked &= {other.mark for other in by_panel[self.panel]}
            self.marked ^= {row.mark}
            self.move(by_panel, 1)

    def move(self, by_panel: dict[Panel, list[Row]], step: int) -> None:
        """Choose another row of the same panel."""
        here = by_panel[self.panel]
        if here:
            number = max(0, min(len(here) - 1, self.number(self.panel, here) + step))
            self._chosen[self.panel] = here[number].key

    def go_to(self, panel: Panel, key: str) -> None:
        """Choose a row of any panel."""
        if panel != self.panel:
            self.marked.clear()
        self.panel = panel
        self._chosen[panel] = key

    def turn(self, by_panel: dict[Panel, list[Row]], step: int) -> None:
        """Go to the next panel that has rows, or to the one before."""
        number = PANELS.index(self.panel)
        for distance in range(1, len(PANELS)):
            panel = PANELS[(number + step * distance) % len(PANELS)]
            if by_panel[panel]:
                self.panel = panel
                self.marked.clear()
                return
