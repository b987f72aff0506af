"""`gpusched` and `python -m gpusched`."""

from __future__ import annotations

import sys


def main() -> None:
    from gpusched.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
