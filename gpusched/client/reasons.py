"""Reasons for which windows were not trained, without what differs from window to window."""

from __future__ import annotations

import re

from gpusched.protocol import WindowLine

#: dates, times and numbers that stand by themselves; those in paths and words name something
_NUMBER = re.compile(r"(?<![\w/.-])\d[\dT:.+-]*\b")


def general_reason(reason: str, symbol: str) -> str:
    """A reason without the dates, numbers and symbol that differ from window to window."""
    return _NUMBER.sub("…", re.sub(rf"(?<!\w){re.escape(symbol)}(?!\w)", "…", reason))


def bare_reason(window: WindowLine) -> str:
    """The reason of a window that failed, without the kind of failure before it."""
    return (window.reason or "").removeprefix(f"{window.failure}: ")
