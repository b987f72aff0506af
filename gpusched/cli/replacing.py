"""The question whether results of other parameters may be replaced."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec

from gpusched.core.model import Existing
from gpusched.errors import ReplacementRefused

Answer = TypeVar("Answer")


def asking(begin: Callable[[Existing], Answer], existing: Existing) -> Answer:
    """Begin a batch; if results of other parameters stand in its way, again once somebody agrees to replace them.

    Raises ReplacementRefused if nobody does.
    """
    try:
        return begin(existing)
    except ReplacementRefused as refusal:
        if not _agrees(refusal):
            raise
    return begin(msgspec.structs.replace(existing, replace=True))


def _agrees(refusal: ReplacementRefused) -> bool:
    """Ask at the terminal whether a batch may replace results; False if there is nobody to ask."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{refusal.sentence}.\nReplace? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline().strip().lower() in ("y", "yes")
