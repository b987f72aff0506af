"""The end of a command about a batch: its exit code, and the reasons where nothing was trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from gpusched.client.views.reasons import Reasons
from gpusched.core.model import PlannedWindow
from gpusched.core.planning import reason_of_plan
from gpusched.errors import DONE, NOTHING_TO_TRAIN, TOO_MANY_FAILURES, GpuschedError
from gpusched.protocol import WindowLine

#: reasons that a message shows, and characters of each
SHOWN_REASONS = 3
REASON_CHARS = 600
#: reasons that `--json` lists
LISTED_REASONS = 100
#: remedy if no window has one
ELSEWHERE = "`gpusched config` shows where the data are looked for, which interval and which dates"
#: remedy for refused data: their reason names the setting
MEND = "mend the files, or give the settings that the reasons name"


class NothingToTrain(GpuschedError):
    exit_code = NOTHING_TO_TRAIN
    problem = "nothing to train: {why}"
    remedy = "likeliest remedy: {likeliest}"


class Untrained(msgspec.Struct, frozen=True, kw_only=True):
    """The reason why a window was not trained."""

    symbol: str
    reason: str
    #: empty: not known
    remedy: str
    #: whether there is data, but unusable
    refused: bool

    @classmethod
    def planned(cls, window: PlannedWindow, reason: str | None = None) -> Untrained:
        """From the plan; `reason` is why it was not trained, if it ran."""
        return cls(
            symbol=window.window.symbol,
            reason=reason or reason_of_plan(window),
            remedy=window.remedy,
            refused=window.refusal is not None,
        )

    @classmethod
    def line(cls, window: WindowLine) -> Untrained:
        return cls(
            symbol=window.symbol,
            reason=window.reason or "",
            remedy=window.remedy,
            refused=window.failure is not None,
        )


def nothing_to_train(windows: Iterable[Untrained]) -> NothingToTrain:
    """The error with the most frequent reasons and the most frequent remedy."""
    reasons = Reasons()
    remedies: Counter[str] = Counter()
    for window in windows:
        reasons.add(window.reason, window.symbol)
        remedies[window.remedy or (MEND if window.refused else ELSEWHERE)] += 1
    shown = [f"{_cut(reason)} ({_windows(count)})" for reason, count in reasons.most_common(SHOWN_REASONS)]
    if (more := len(reasons) - SHOWN_REASONS) > 0:
        shown.append(f"and {more:,} more {'reason' if more == 1 else 'reasons'}")
    ((likeliest, _),) = remedies.most_common(1) or [("give a longer range of dates (--start, --end)", 0)]
    return NothingToTrain(why="; ".join(shown) or "there is no window", likeliest=likeliest)


def refused_object(reasons: Reasons) -> dict[str, Any]:
    """The reasons why data were refused, as an entry of a JSON object; empty if there are none."""
    listed = [{"reason": reason, "windows": windows} for reason, windows in reasons.most_common(LISTED_REASONS)]
    return {"refused": listed} if listed else {}


def is_nothing(totals: dict[str, int], refused: int) -> bool:
    """Whether a finished batch has no result because its data could not be trained on.

    `refused` is the number of windows that failed because of their data. A window that failed for another reason, or
    was cancelled, might have been trained.
    """
    return totals["total"] == totals["skipped"] + refused and totals["failed"] == refused


def exit_code(totals: dict[str, int], max_failure_rate: float, *, held: bool) -> int:
    """1 if more windows failed than the batch allows, or it was held before its end; else 0.

    A cancelled window is none that failed: somebody wanted it so.
    """
    too_many = totals["failed"] > max_failure_rate * max(1, totals["total"])
    return TOO_MANY_FAILURES if too_many or held else DONE


def _cut(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= REASON_CHARS else line[:REASON_CHARS] + "…"


def _windows(count: int) -> str:
    return "1 window" if count == 1 else f"{count:,} windows"
