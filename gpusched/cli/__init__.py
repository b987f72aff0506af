"""The command line: what was typed becomes one call, and whatever happens becomes a sentence and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from gpusched.cli.parser import parse
from gpusched.errors import INTERRUPTED, GpuschedError, InputError


class DiskFull(InputError):
    problem = "{why}"
    remedy = "make room where it writes (`df -h`, `quota`), then run the command again"


#: exit code of a bug in gpusched (EX_SOFTWARE of sysexits.h)
INTERNAL_ERROR = 70


def run(arguments: Sequence[str]) -> int:
    """Do what was asked for; return the exit code. No traceback reaches the user without --debug."""
    debug = "--debug" in arguments
    try:
        options = parse(arguments)
        module, _, name = options.handler.partition(":")
        code = getattr(import_module(module), name)(options)
        print(end="", flush=True)  # noqa: T201  # unlike sys.stdout.flush() also where stdout is closed
    except GpuschedError as error:
        if debug:
            raise
        _complain(f"gpusched: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. The interpreter must not try to flush it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            full = DiskFull(place=error.filename, why=error.strerror)
            _complain(f"gpusched: {full}")
            return full.exit_code
        _complain(
            f"gpusched: internal error: {type(error).__name__}: {error}\n"
            "  this is a bug: run the command again with --debug and report what it prints"
        )
        return INTERNAL_ERROR
    return int(code)


def _complain(text: str) -> None:
    """On stderr, without what a terminal would obey: errors quote what was typed, and files."""
    from gpusched.client.cells import clean  # of rich, and for errors only

    print("\n".join(map(clean, text.split("\n"))), file=sys.stderr)  # noqa: T201
