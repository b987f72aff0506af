"""The end of a Python process, as by the interpreter, but without taking its objects apart."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn


def wind_up() -> None:
    """Wait for threads and call the functions of `atexit`, as the interpreter does at the end of a program."""
    # Only if it is imported already: a launcher does without it, since its hooks would run in each fork.
    if (threading := sys.modules.get("threading")) is not None:
        threading._shutdown()
    atexit._run_exitfuncs()


def exit_code(stop: SystemExit) -> int:
    """The exit code that the interpreter would use; a text is printed, as it does."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF if -(2**63) <= stop.code < 2**63 else 0xFF
    print(stop.code, file=sys.stderr)  # noqa: T201
    return 1


def leave(code: int) -> NoReturn:
    """Exit as `sys.exit` does, and let the kernel free everything at once.

    The interpreter would free one object after the other, which is a sixth of the time of a short command. What was
    printed must have been flushed, except what `atexit` adds.
    """
    with suppress(KeyboardInterrupt):
        wind_up()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # it is lost, closed, or was never open
            stream.flush()
    os._exit(code)
