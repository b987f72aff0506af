"""Commands whose exit code is the outcome of a batch, even if nobody reads their output to the end."""

from __future__ import annotations

import argparse
import errno
import functools
import sys
from collections.abc import Callable

from gpusched.cli.telling import tell
from gpusched.streams import expendable, lost

Command = Callable[[argparse.Namespace], int]


def outlives_its_reader(command: Command) -> Command:
    """Let a command continue when stdout is lost. If not because its reader left, report the error on stderr."""

    @functools.wraps(command)
    def wrapped(options: argparse.Namespace) -> int:
        with expendable("stdout"):
            code = command(options)
            sys.stdout.flush()
            why = lost(sys.stdout)
        if why is not None and why.errno not in (errno.EPIPE, errno.EIO):
            sentence = f"not all of stdout could be written: {why.strerror}"
            tell("error", sentence, "the batch went on; `df -h` shows where room is needed")
        return code

    return wrapped
