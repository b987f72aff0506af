"""`gpusched` and `python -m gpusched`."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from gpusched import signals
from gpusched.leaving import leave  # at once: by the end of a long run its package may have been removed


def main() -> NoReturn:
    _reserve_streams()
    if "_ARGCOMPLETE" in os.environ:
        from gpusched.cli.completion import complete

        complete()
    try:
        signals.restore()
        code = _run_with_launcher() if sys.argv[1:2] == ["run"] else _run()
    except KeyboardInterrupt:  # amid the imports, before there is anything to interrupt
        code = 130
    leave(code)


def _reserve_streams() -> None:
    """Open /dev/null for closed standard streams: a later file could get their numbers, and be damaged by a print.

    Modules open files while they are imported (libffi does, for ctypes), so this comes first.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is `descriptor`
            setattr(sys, name, os.fdopen(opened, "r" if descriptor == 0 else "w", closefd=False))


def _run() -> int:
    from gpusched.cli import run

    return run(sys.argv[1:])


def _run_with_launcher() -> int:
    """Start a launcher first of all, so that it is there when the supervisor is imported."""
    from gpusched.engines.local import early

    early.start_early("gpusched.teacher:train_window")
    try:
        return _run()
    finally:
        early.dismiss()


if __name__ == "__main__":
    main()
