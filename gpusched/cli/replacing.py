"""The question whether results of other parameters may be replaced."""

from __future__ import annotations

import sys

import msgspec

from gpusched.core.model import Existing
from gpusched.errors import ReplacementRefused


def agrees_to_replace(refusal: ReplacementRefused) -> bool:
    """Ask at the terminal whether a batch may replace results; False if there is nobody to ask."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{refusal.sentence}.\nReplace? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def replacing_too(existing: Existing) -> Existing:
    """The same, and results of other parameters may be replaced."""
    return msgspec.structs.replace(existing, replace=True)
