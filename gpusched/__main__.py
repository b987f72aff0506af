"""`gpusched` and `python -m gpusched`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    if "_ARGCOMPLETE" in os.environ:
        from gpusched.cli.completion import complete

        complete()
    if sys.argv[1:2] == ["run"]:
        sys.exit(_run_with_launcher())
    from gpusched.cli import run

    sys.exit(run(sys.argv[1:]))


def _run_with_launcher() -> int:
    """Start a launcher first of all, so that it is there when the supervisor is imported."""
    from gpusched.engines.local import early

    early.start_early("gpusched.teacher:train_window")
    try:
        from gpusched.cli import run

        return run(sys.argv[1:])
    finally:
        early.dismiss()


if __name__ == "__main__":
    main()
