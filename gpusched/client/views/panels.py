"""The panels of `gpusched top`: which rows each has, in which order, and which of them is chosen. Pure."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from gpusched.client.views.batch import BatchView
from gpusched.client.views.overview import DeviceView, Overview
from gpusched.client.views.window import FinishedWindow, RunningWindow
from gpusched.core.statuses import FAILURES

Panel = Literal["devices", "batches", "running", "failed", "finished"]
PANELS: tuple[Panel, ...] = get_args(Panel)

Order = Literal["slot", "time", "batch"]
#: the orders of running windows, each after the other
ORDERS: tuple[Order, ...] = get_args(Order)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a panel, and the thing that keys act upon when it is chosen."""

    #: tells it from the others of its panel, and stays the same wherever the row moves to
    key: str
    item: DeviceView | BatchView | RunningWindow | FinishedWindow
    #: of a batch or a window
    batch_id: str = ""
    #: of a window
    label: str | None = None


def rows(overview: Overview, words: str = "", order: Order = "slot") -> dict[Panel, list[Row]]:
    """All rows of each panel; of batches and windows only those that have each of `words` in their names."""
    running = [_running(name, window) for name, window in overview.running]
    if order == "time":
        running.sort(key=lambda row: row.item.since)  # type: ignore[union-attr]  # they are running windows
    elif order == "batch":
        running.sort(key=lambda row: row.batch_id)
    batches = [Row(key=name, item=view, batch_id=name) for name, view in reversed(overview.batches.items())]
    # Those at work first, then those that ended, the latest first.
    batches.sort(key=lambda row: row.item.finished)  # type: ignore[union-attr]  # they are batches
    found: dict[Panel, list[Row]] = {
        "devices": [Row(key=name, item=device) for name, device in overview.devices.items()],
        "batches": batches,
        "running": running,
        "failed": [_finished(name, window) for name, window in reversed(overview.failures)],
        # Without those that failed, which have a panel of their own.
        "finished": [
            _finished(name, window) for name, window in reversed(overview.recent) if window.outcome not in FAILURES
        ],
    }
    wanted = words.lower().split()
    if wanted:
        for panel in PANELS[1:]:
            found[panel] = [row for row in found[panel] if _has(f"{row.batch_id}/{row.label or ''}", wanted)]
    return found


def _has(name: str, wanted: list[str]) -> bool:
    lower = name.lower()
    return all(word in lower for word in wanted)


def _running(batch_id: str, window: RunningWindow) -> Row:
    # The key is the slot: the choice stays there, whichever window holds it by then.
    return Row(key=str(window.slot), item=window, batch_id=batch_id, label=window.label)


def _finished(batch_id: str, window: FinishedWindow) -> Row:
    return Row(key=f"{batch_id}/{window.label}#{window.attempts}", item=window, batch_id=batch_id, label=window.label)


class Cursor:
    """The panel that keys act in, and the chosen row of each. A row that has gone is followed by the first."""

    def __init__(self, panel: Panel = "batches") -> None:
        self.panel: Panel = panel
        self._chosen: dict[Panel, str] = {}

    def number(self, panel: Panel, found: list[Row]) -> int:
        """Which of the panel's rows is chosen."""
        chosen = self._chosen.get(panel)
        return next((number for number, row in enumerate(found) if row.key == chosen), 0)

    def row(self, found: dict[Panel, list[Row]]) -> Row | None:
        """The row that keys act upon."""
        here = found[self.panel]
        return here[self.number(self.panel, here)] if here else None

    def move(self, found: dict[Panel, list[Row]], step: int) -> None:
        """Choose another row of the same panel."""
        here = found[self.panel]
        if here:
            number = max(0, min(len(here) - 1, self.number(self.panel, here) + step))
            self._chosen[self.panel] = here[number].key

    def turn(self, found: dict[Panel, list[Row]], step: int) -> None:
        """Go to the next panel that has rows, or to the one before."""
        number = PANELS.index(self.panel)
        for distance in range(1, len(PANELS)):
            panel = PANELS[(number + step * distance) % len(PANELS)]
            if found[panel]:
                self.panel = panel
                return
