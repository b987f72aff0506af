"""Reasons for which windows were not trained, counted without the parts that differ from window to window."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable

from gpusched.core.model import PlannedWindow
from gpusched.core.planning import reason_of_plan, with_remedy
from gpusched.protocol import WindowLine

#: the dates in a window's label, and the symbol before them
_DATES = r"\d{4}-\d\d-\d\d_to_\d{4}-\d\d-\d\d"
_SYMBOL = re.compile(rf"(.+?)_{_DATES}")
#: the rest of a label, behind its symbol
_LABEL = re.compile(rf"(?:_{_DATES})?(?!\w)")
#: dates, times and numbers that stand by themselves; those in paths and words name something
_NUMBER = re.compile(r"(?<![\w/.-])\d[\dT:.+-]*\b")


class Reasons:
    """Counts windows by reason. Numbers that all of them have are shown, and a reason that all have word for word."""

    def __init__(self) -> None:
        #: by the texts between the numbers of a reason
        self._counts: Counter[tuple[str, ...]] = Counter()
        #: the numbers themselves; an ellipsis where the windows' own ones differ
        self._numbers: dict[tuple[str, ...], list[str]] = {}
        #: the whole reason; None where the windows' own ones differ
        self._own: dict[tuple[str, ...], str | None] = {}

    def add(self, reason: str, symbol: str) -> None:
        text = _without(symbol, reason)
        general, numbers = tuple(_NUMBER.split(text)), _NUMBER.findall(text)
        self._counts[general] += 1
        if self._own.setdefault(general, reason) == reason:
            self._numbers.setdefault(general, numbers)
            return
        self._own[general] = None
        known = self._numbers[general]
        if known != numbers:
            same = zip(known, numbers, strict=True)
            self._numbers[general] = [one if one == other else "…" for one, other in same]

    def most_common(self, count: int) -> list[tuple[str, int]]:
        """Reasons and numbers of windows, the commonest first."""
        return [(self._said(general), windows) for general, windows in self._counts.most_common(count)]

    def _said(self, general: tuple[str, ...]) -> str:
        parts = zip(general, [*self._numbers[general], ""], strict=True)
        return self._own[general] or "".join(text + number for text, number in parts)

    def __len__(self) -> int:
        return len(self._counts)


def general_reason(reason: str, symbol: str) -> str:
    """A reason without the dates, numbers, symbol and label that differ from window to window."""
    return _NUMBER.sub("…", _without(symbol, reason))


def _without(symbol: str, reason: str) -> str:
    """A reason without the symbol and its labels. No pattern has the symbol: to compile one for each takes seconds."""
    if not symbol:
        return reason
    parts, rest = [], 0
    start = reason.find(symbol)
    while start >= 0:
        end = start + 1
        within_a_word = start > 0 and (reason[start - 1].isalnum() or reason[start - 1] == "_")
        if not within_a_word and (label := _LABEL.match(reason, start + len(symbol))):
            parts += [reason[rest:start], "…"]
            rest = end = label.end()
        start = reason.find(symbol, end)
    return "".join([*parts, reason[rest:]])


@functools.lru_cache(maxsize=4096)  # `top` asks for it in each frame
def general_reason_of(reason: str, label: str) -> str:
    """`general_reason` for the window of a label."""
    symbol = _SYMBOL.match(label)
    return general_reason(reason.replace(label, "…"), symbol[1] if symbol else "")


def of_plan(windows: Iterable[PlannedWindow]) -> Reasons:
    """The reasons of windows that a plan skips or refuses, with the remedies."""
    reasons = Reasons()
    for planned in windows:
        reasons.add(with_remedy(reason_of_plan(planned), planned.remedy), planned.window.symbol)
    return reasons


def bare_reason(window: WindowLine) -> str:
    """The reason of a window that failed, without the kind of failure before it."""
    return window.failure.message if window.failure is not None else window.why or ""
