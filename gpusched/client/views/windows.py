"""The windows of one batch as `gpusched top` lists them: kept up to date. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

from gpusched.core.events import WindowMoved
from gpusched.core.states import Active, Finished, Running, Starting, Stopping
from gpusched.core.statuses import BY_URGENCY, name_of, reason_of
from gpusched.protocol import WindowLine

Order = Literal["submitted", "status", "time", "window"]
#: each after the other
ORDERS: tuple[Order, ...] = get_args(Order)

#: orders in which a window moves while it runs
_MOVING = ("status", "time")
#: seconds between two looks at the order of windows that move
ARRANGE_S = 1.0


def seconds(line: WindowLine, wall: float) -> float | None:
    """Seconds of a window's last launch, at the instant `wall` or in all; None: none has begun."""
    return None if line.started_at is None else max(0.0, (line.ended_at or wall) - line.started_at)


class WindowList:
    """The windows of a batch in an order, those that are looked for, and which of them is chosen."""

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        self.loaded = False
        self.order: Order = "submitted"
        self.words = ""
        self._lines: dict[str, WindowLine] = {}
        #: moves that were told before the list was there: they are newer than it
        self._early: list[WindowMoved] = []
        self._shown: list[str] = []
        self._chosen: str | None = None
        self._number = 0
        self._arranged_at: float | None = None

    def load(self, windows: Iterable[WindowLine]) -> None:
        """Begin with the daemon's list."""
        self._lines = {line.key.label: line for line in windows}
        self.loaded = True
        early, self._early = self._early, []
        for moved in early:
            self.apply(moved)
        self._arranged_at = None

    def apply(self, moved: WindowMoved) -> None:
        """A window moved; those of other batches are passed over."""
        if moved.key.batch_id != self.batch_id:
            return
        if not self.loaded:
            self._early.append(moved)
            return
        line = self._lines.get(moved.key.label)
        if line is not None:
            self._lines[moved.key.label] = _moved(line, moved)

    def look_for(self, words: str) -> None:
        """Show only windows with each of these words in the label, the status or the reason."""
        self.words = words
        self._arranged_at = None

    def next_order(self) -> None:
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
        self._chosen, self._number = None, 0
        self._arranged_at = None

    def shown(self, monotonic: float) -> list[str]:
        """The labels in their order. Looked at anew once in `ARRANGE_S`: it costs something with 100,000 of them."""
        stale = self._arranged_at is None or monotonic >= self._arranged_at + ARRANGE_S
        if stale and (self._arranged_at is None or self.words or self.order in _MOVING):
            self._shown = self._arrange()
            self._arranged_at = monotonic
        return self._shown

    def chosen(self, monotonic: float) -> tuple[int, WindowLine] | None:
        """Where the chosen window stands among those that are shown, and the window."""
        shown = self.shown(monotonic)
        if not shown:
            return None
        # Where windows move all the time, the choice stays with the place.
        if self.order in _MOVING or self._chosen not in self._lines or self._chosen not in shown:
            number = min(self._number, len(shown) - 1)
        else:
            number = shown.index(self._chosen)
        return number, self._lines[shown[number]]

    def move(self, step: int, monotonic: float) -> None:
        chosen = self.chosen(monotonic)
        if chosen is not None:
            self._number = max(0, min(len(self._shown) - 1, chosen[0] + step))
            self._chosen = self._shown[self._number]

    def lines(self, first: int, count: int) -> list[WindowLine]:
        """So many of those that are shown."""
        return [self._lines[label] for label in self._shown[first : first + count]]

    def __len__(self) -> int:
        return len(self._lines)

    def _arrange(self) -> list[str]:
        words = self.words.lower().split()
        found = [line for line in self._lines.values() if not words or _has(line, words)]
        match self.order:
            case "status":
                found.sort(key=lambda line: BY_URGENCY.index(line.status))
            case "time":
                found.sort(key=_by_time)
            case "window":
                found.sort(key=lambda line: line.key.label)
        return [line.key.label for line in found]


def _by_time(line: WindowLine) -> float:
    """Windows that run come first, and among them those that began first: they take longest."""
    return 0.0 if line.started_at is None else line.started_at - (line.ended_at or 1e12)


def _has(line: WindowLine, words: list[str]) -> bool:
    text = f"{line.key.label} {line.status} {line.reason or ''}".lower()
    return all(word in text for word in words)


def _moved(line: WindowLine, moved: WindowMoved) -> WindowLine:
    new = moved.new
    match new:
        case Starting(slot=slot) | Running(slot=slot) | Stopping(slot=slot):
            began = moved.at if isinstance(new, Starting) or line.started_at is None else line.started_at
            return msgspec.structs.replace(
                line, status=name_of(new), attempts=new.attempt, slot=slot, started_at=began, ended_at=None, reason=None
            )
        case Finished(outcome=outcome, attempts=attempts):
            ended = moved.at if isinstance(moved.old, Active) else line.ended_at
            return msgspec.structs.replace(
                line, status=name_of(outcome), attempts=attempts, ended_at=ended, reason=reason_of(outcome)
            )
        case _:
            ended = moved.at if isinstance(moved.old, Active) else line.ended_at
            return msgspec.structs.replace(line, status=name_of(new), ended_at=ended, reason=moved.reason)
