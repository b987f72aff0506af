"""The command line, with the processor time of the longest turn of its event loop in a file.

`python -m benchmarks.turns FILE daemon …` keeps the seconds in the first eight bytes of the file, where `Longest` reads
them. Unlike the time on the clock, this does not depend on the other programs of the machine.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
import time
from pathlib import Path

from gpusched import cli

_SECONDS = struct.Struct("d")


class Longest:
    """The seconds of the longest turn so far, in a file that two processes share."""

    def __init__(self, path: Path) -> None:
        """Make the file if it is missing."""
        with path.open("a+b") as file:
            file.truncate(_SECONDS.size)
            self._shared = mmap.mmap(file.fileno(), _SECONDS.size)

    def set(self, seconds: float) -> None:
        _SECONDS.pack_into(self._shared, 0, seconds)

    def get(self) -> float:
        return float(_SECONDS.unpack_from(self._shared)[0])


def main() -> int:
    _, path, *arguments = sys.argv
    longest = Longest(Path(path))
    run = asyncio.Handle._run

    def timed(self: asyncio.Handle) -> None:
        began = time.thread_time()
        run(self)
        seconds = time.thread_time() - began
        if seconds > longest.get():
            longest.set(seconds)

    asyncio.Handle._run = timed  # type: ignore[method-assign]
    return cli.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
