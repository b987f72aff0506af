"""`gpusched` and `python -m gpusched`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    if "_ARGCOMPLETE" in os.environ:
        from gpusched.cli.completion import complete

        complete()
    from gpusched.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
