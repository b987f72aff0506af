"""Errors and warnings on stderr: a sentence, then a hint with the next step, each on a line of its own."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Literal

_STYLES = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "usage": "\x1b[1m", "hint": "\x1b[1;36m"}


def tell(kind: Literal["error", "warning"], sentence: str, hint: str = "", *, usage: str = "") -> None:
    """Print without control characters: errors quote arguments and the content of files. Coloured on a terminal."""
    from gpusched.client.drawing.plain import clean

    coloured = _is_coloured()
    for name, text in ((kind, sentence), ("usage", usage), ("hint", hint)):
        if text:
            lines = "\n".join(map(clean, text.split("\n")))
            with contextlib.suppress(OSError):  # stderr is full or closed: the exit code still shows the error
                print(f"{_STYLES[name]}{name}:\x1b[0m {lines}" if coloured else f"{name}: {lines}", file=sys.stderr)  # noqa: T201


def _is_coloured() -> bool:
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
