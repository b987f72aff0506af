"""The line of a program to look at, from the text of Python's tracebacks."""

from __future__ import annotations

import re
from pathlib import Path

import gpusched

#: characters of a `file:line`; of a longer one the end is kept
MAX_CHARS = 500

_HEADING = "Traceback (most recent call last):"
#: the stack of the thread that has crashed, the deepest frame first
_CRASHED = re.compile(r"^Current thread .*\(most recent call first\):\n((?:  File .*\n?)*)", re.MULTILINE)
_FRAME = re.compile(r'^ *File "(.+)", line (\d+)', re.MULTILINE)
#: files of Python's own library and of installed packages, and code without a file
_LIBRARY = re.compile(r"/lib/python\d[^/]*/|/(?:site|dist)-packages/|^<")
_PACKAGE = f"{Path(gpusched.__file__).parent}/"


def source_line(text: str) -> str:
    """`file:line` of the last exception in a text, or of the crash; empty if it has no traceback.

    Of its frames, the deepest one that belongs to no library, or else the deepest one.
    """
    if (crashed := _CRASHED.search(text)) is not None:
        frames = _FRAME.findall(crashed[1])[::-1]
    else:
        frames = _FRAME.findall(text[max(0, text.rfind(_HEADING)) :])
    own = [frame for frame in frames if not _LIBRARY.search(frame[0]) and not frame[0].startswith(_PACKAGE)]
    return "".join(f"{file}:{line}"[-MAX_CHARS:] for file, line in (own or frames)[-1:])
